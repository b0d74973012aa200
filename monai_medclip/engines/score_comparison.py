"""Is one set of scores better than another on the same test items, and what did a classifier of another run score?"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..metrics import AUCDifference, ClassificationReport, classification, delong, holm
from .embedding import Embeddings

__all__ = ["Comparison", "FineTuned", "compare_scores", "read_fine_tuned"]

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]


class Comparison(NamedTuple):
    """Whether two sets of scores differ in one finding's AUC on the same test items."""

    finding: str
    first: str
    second: str
    difference: AUCDifference  # first minus second
    adjusted_p_value: float  # by Holm, over all comparisons of the run

    def as_dict(self) -> dict[str, Any]:
        """Flat."""
        names = {"finding": self.finding, "first": self.first, "second": self.second}
        return {**names, **self.difference._asdict(), "adjusted_p_value": self.adjusted_p_value}


class FineTuned(NamedTuple):
    """What a classifier that was trained end to end says of the same test items."""

    report: ClassificationReport
    logits: Array  # (N, F)


def compare_scores(
    names: Sequence[str], test: Embeddings, base: str, base_logits: Array, others: Mapping[str, Array]
) -> tuple[Comparison, ...]:
    """Every other set of scores against one, per finding, with DeLong's test; p values corrected over all of them.

    Args:
        names: F findings.
        test: the items' labels and patients.
        base: name of the scores that all others are compared with.
        base_logits: (N, F).
        others: name -> (N, F).

    Returns:
        One entry per finding and other scores, without those of which the test items say too little.
    """
    patients, label = np.array(test.patients), test.label.numpy()
    found = []
    for f, name in enumerate(names):
        for other, logits in others.items():
            try:
                difference = delong(logits[:, f], base_logits[:, f], label[:, f], groups=patients)
            except ValueError as error:
                logger.info("%s: '%s' and '%s' cannot be compared: %s", name, other, base, error)
                continue
            found.append(Comparison(name, other, base, difference, difference.p_value))
    adjusted = holm([one.difference.p_value for one in found])
    return tuple(one._replace(adjusted_p_value=float(p)) for one, p in zip(found, adjusted, strict=True))


def read_fine_tuned(folder: Path, names: Sequence[str], test: Embeddings, *, bootstrap: int = 0) -> FineTuned:
    """A classifier's predictions on the same test items, judged at the thresholds that its validation chose.

    Args:
        folder: of its run, with ``predictions.csv`` and ``metrics.json``.
        names: F findings.
        test: the items to be judged.
        bootstrap: resamples of patients for the 95 % intervals.

    Raises:
        FileNotFoundError: it was not evaluated.
        ValueError: it lacks an item or a finding.
    """
    path = folder / "predictions.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: train that classifier first (train.json with fine_tuned.json)."
        )
    with path.open(newline="", encoding="utf-8") as stream:
        by_id = {row["id"]: row for row in csv.DictReader(stream)}
    unknown = [item for item in test.ids if item not in by_id]
    if unknown:
        raise ValueError(
            f"{path} lacks {len(unknown)} of the test items, first {unknown[:3]}: train on the same split."
        )
    absent = [name for name in names if f"{name} logit" not in next(iter(by_id.values()))]
    if absent:
        raise ValueError(f"{path} has no scores of {absent}: train that classifier with the same findings.")
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["classification"]
    logits = np.array([[float(by_id[item][f"{name} logit"]) for name in names] for item in test.ids])
    cuts = [float(figures[f"{name}_threshold"]) for name in names]
    groups = np.array(test.patients)
    label = test.label.numpy()
    report = classification(logits, label, names, groups=groups, threshold=cuts, bootstrap=bootstrap)
    return FineTuned(report, logits)
