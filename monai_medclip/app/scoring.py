"""How well the model and the readers' probe agree with the readers: figures with counts, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from numpy.typing import NDArray

from monai_medclip.app.image_answers import ImageAnswer, ImageAnswers, ImagePath, stock_path
from monai_medclip.app.labels import ReaderFindings, all_findings
from monai_medclip.app.reader_probe import ReaderProbe
from monai_medclip.engines import BundleModel, write_json
from monai_medclip.metrics import FindingReport, Interval, classification

__all__ = ["FEWEST", "ReadersAgreement"]

FEWEST = 5  # patients with, and without, a finding: fewer make no figure
BOOTSTRAP = 1000
RESULT = "agreement.json"

Json = dict[str, Any]
Array = NDArray[Any]


class _Judged(NamedTuple):
    """One image that a reader and the model have judged."""

    reading: ReaderFindings
    answer: ImageAnswer
    group: str  # stands for the patient, or the image where the patient is unknown


class ReadersAgreement(ScoringMethod):
    """Per finding AUC, sensitivity and specificity against the readers, with 95 % intervals over patients.

    A figure needs five patients with the finding and five without. The probe is judged on patients alone that it was
    not fitted on; its record has the cross-validated AUC of the others. Sensitivity and specificity are at probability
    1/2, which nobody has chosen on these images. Readers mostly saw images that active learning has picked, and the
    model's own scores: the figures hold for these images.

    Args:
        model: that is judged.
        image_path: where an image of the datastore lies.
        folder: of the readers' probes; the last result is kept there, for `info`.
    """

    def __init__(self, model: BundleModel, image_path: ImagePath = stock_path, *, folder: str | Path) -> None:
        """See the class."""
        super().__init__("Agreement of zero-shot scores and readers' probe with the readers' findings")
        self.answers, self.folder = ImageAnswers(model, image_path), Path(folder)

    def info(self) -> Json:
        """The description, and the last ``result``: MONAI Label itself keeps none."""
        with suppress(OSError, ValueError):
            return {**super().info(), "result": json.loads(self._result_file.read_text(encoding="utf-8"))}
        return super().info()

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Json:
        """The figures as plain JSON; a finding without enough readings has ``note`` instead.

        MONAI Label logs them, so they hold no ids; `info` lists the labels that are damaged.
        """
        model = self.answers.model
        readings = all_findings(datastore, model.findings)
        judged = [one for reading in readings.readings if (one := self._judged(datastore, reading)) is not None]
        probe = ReaderProbe.load(self.folder, model)
        result = {
            "model": model.name,
            "model_version": model.version,
            "images": len(judged),
            "patients": len({one.group for one in judged}),
            "unreadable": len(readings.readings) - len(judged),
            "damaged": len(readings.damaged),
            "zero_shot": self._zero_shot(judged),
            "probe": None if probe is None else _probe(probe, judged),
        }
        write_json(self._result_file, result | {"damaged_labels": list(readings.damaged)})
        return result

    @property
    def _result_file(self) -> Path:
        return self.folder / self.answers.model.version / RESULT

    def _judged(self, datastore: Datastore, reading: ReaderFindings) -> _Judged | None:
        try:
            answer = self.answers.get(datastore, reading.image_id)
        except Exception:  # counted as unreadable
            return None
        return _Judged(reading, answer, answer.patient or self.answers.digest(datastore, reading.image_id))

    def _zero_shot(self, judged: Sequence[_Judged]) -> Json:
        names = self.answers.model.findings
        logits = np.array([one.answer.logits for one in judged], float).reshape(len(judged), len(names))
        pairs = all(one.answer.probabilities is not None for one in judged)
        return {name: _figures(name, logits[:, f], judged, thresholded=pairs) for f, name in enumerate(names)}


def _probe(probe: ReaderProbe, judged: Sequence[_Judged]) -> Json:
    """On patients that it has not seen."""
    seen = set(probe.record["groups"])
    new = [one for one in judged if one.group not in seen]
    logits = [probe.logits(one.answer.embedding) for one in new]
    fits = {fit["finding"]: fit for fit in probe.record["findings"]}
    return {
        name: _figures(name, np.array([row[name] for row in logits], float), new, thresholded=True)
        | {"cross_validated_auc": fits[name]["auc"], "fitted_on": fits[name]["positives"] + fits[name]["negatives"]}
        for name in probe.findings
    }


def _figures(name: str, logits: Array, judged: Sequence[_Judged], *, thresholded: bool) -> Json:
    """Figures of one finding, (N,) logits, or why there are none."""
    truth = np.array([one.reading.findings.get(name, np.nan) for one in judged], float)
    groups = np.array([one.group for one in judged], str)
    present, absent = (len(np.unique(groups[truth == value])) for value in (1, 0))
    counts: Json = {
        "positives": int((truth == 1).sum()),
        "negatives": int((truth == 0).sum()),
        "positive_patients": present,
        "negative_patients": absent,
    }
    if min(present, absent) < FEWEST:
        return counts | {"note": f"too few readings: {FEWEST} patients with and {FEWEST} without it are needed."}
    known = ~np.isnan(truth)
    report = classification(
        logits[known, None], truth[known, None], [name], groups=groups[known], bootstrap=BOOTSTRAP
    ).findings[0]
    return counts | _plain(report, ("auc", *(("sensitivity", "specificity") if thresholded else ())))


def _plain(report: FindingReport, figures: Sequence[str]) -> Json:
    """Figures with their intervals as JSON has them."""
    plain: Json = {}
    for figure in figures:
        value, interval = getattr(report, figure), getattr(report, f"{figure}_interval")
        plain |= {figure: value if isfinite(value) else None, f"{figure}_interval": _ends(interval)}
    return plain


def _ends(interval: Interval | None) -> list[float] | None:
    ends = list(interval) if interval else []
    return ends if ends and all(isfinite(end) for end in ends) else None
