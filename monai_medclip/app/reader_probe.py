"""The probe that readers train: logistic regression on embeddings of images whose findings they have corrected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from monai_medclip.audits import STRENGTHS, LogisticFit, fit_logistic
from monai_medclip.engines import BundleModel, write_json
from monai_medclip.engines.recent import Recent
from monai_medclip.networks import ProbeClassifier, load_probe, probe_head, save_probe

__all__ = ["FewReadingsError", "FindingFit", "ProbeRecord", "ReaderImage", "ReaderProbe", "fit_reader_probe"]

RECORD = "record.json"  # names the probe's file: it is written last, so that both change at once
FEWEST = 2  # patients with, and without, a finding that is fitted
FOLDS = 5

Array = NDArray[Any]


class ReaderImage(NamedTuple):
    """One image with a reader's findings."""

    key: str  # that stands for the image: a digest of its id
    embedding: Tensor  # (E,) unit
    findings: Mapping[str, bool]
    patient: str = ""  # that stands for the patient; "" where nobody knows: the image is then its own


class FindingFit(NamedTuple):
    """One finding of a probe, in counts."""

    finding: str
    positives: int  # images
    negatives: int
    patients: int
    strength: float  # scikit-learn's C, chosen by cross-validation over patients
    auc: (
        float | None
    )  # mean over folds of patients that the fold's probe has not seen; None where no fold has both classes
    folds: int  # that the AUC is the mean of


class ProbeRecord(NamedTuple):
    """What was fitted, on what."""

    model: str
    model_version: str
    file: str  # beside the record
    created: str  # UTC
    findings: tuple[FindingFit, ...]
    left_out: dict[str, str]  # finding -> why it was not fitted
    images: tuple[str, ...]  # keys
    groups: tuple[str, ...]  # patients, or images where the patient is unknown

    @property
    def mean_auc(self) -> float | None:
        """Mean of the cross-validated AUCs there are."""
        found = [fit.auc for fit in self.findings if fit.auc is not None]
        return float(np.mean(found)) if found else None


class FewReadingsError(ValueError):
    """No finding can be fitted; the text says of each what is missing."""


class ReaderProbe:
    """A fitted probe.

    Attributes:
        findings: those that it was fitted for.
        record: what it was fitted on, as JSON.
    """

    def __init__(self, head: nn.Module, findings: Sequence[str], record: dict[str, Any]) -> None:
        """Use `load`."""
        self.head, self.findings, self.record = head.eval().requires_grad_(False), tuple(findings), record

    @classmethod
    def load(cls, folder: str | Path, model: BundleModel) -> ReaderProbe | None:
        """The probe of this version of the model, as it was written last; None where there is none.

        Args:
            folder: as for `fit_reader_probe`.
            model: whose embeddings it reads.

        Raises:
            ValueError: the record or the probe is damaged.
        """
        path = _version_folder(folder, model) / RECORD
        try:
            written = path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return _LOADED.get((str(path), written), lambda: _read(path, model))

    def logits(self, embedding: Tensor) -> dict[str, float]:
        """Logit per finding of an image's embedding (E,)."""
        weight = next(self.head.parameters())
        with torch.no_grad():
            logits = self.head(embedding.to(weight)[None])[0]
        return dict(zip(self.findings, logits.tolist(), strict=True))

    def probabilities(self, embedding: Tensor) -> dict[str, float]:
        """Probability per finding, 0 to 1, of an image's embedding (E,).

        Few readings make a strongly regularized probe, whose probabilities rank images but stay near the finding's
        share among the readings: they are not calibrated.
        """
        return {name: float(torch.tensor(logit).sigmoid()) for name, logit in self.logits(embedding).items()}


_LOADED: Recent[ReaderProbe] = Recent(4)


def fit_reader_probe(
    model: BundleModel, images: Sequence[ReaderImage], folder: str | Path, *, seed: int = 0
) -> ProbeRecord:
    """Fit a probe for every finding that has enough readings, and write it where `ReaderProbe.load` finds it.

    A reader's probe of another time is replaced at once, or, if this is killed, not at all.

    Args:
        model: whose embeddings they are.
        images: with readings; findings that the model does not know are ignored.
        folder: of all probes; each version of a model has its own in it.
        seed: of the folds.

    Returns:
        The record, which is written beside the probe.

    Raises:
        FewReadingsError: no finding has two patients with and two without it.
    """
    table = np.array([[image.findings.get(name, np.nan) for name in model.findings] for image in images], float)
    table = table.reshape(len(images), len(model.findings))  # (N, F) of 1, 0 and NaN
    groups = np.array([image.patient or image.key for image in images], dtype=str)
    left_out = {name: why for f, name in enumerate(model.findings) if (why := _missing(table[:, f], groups))}
    kept = [f for f, name in enumerate(model.findings) if name not in left_out]
    if not kept:
        raise FewReadingsError(f"no finding can be fitted: {'; '.join(f'{n}: {w}' for n, w in left_out.items())}.")
    names = [model.findings[f] for f in kept]
    features = np.stack([image.embedding.double().cpu().numpy() for image in images])  # (N, E)
    fit = fit_logistic(features, table[:, kept], names, groups=groups, seed=seed)
    fits = [
        _described(name, features, table[:, f], groups, strength, seed)
        for f, name, strength in zip(kept, names, fit.strength, strict=True)
    ]
    keys, patients = sorted({image.key for image in images}), sorted(set(groups.tolist()))
    return _written(folder, model, fit, tuple(fits), left_out, tuple(keys), tuple(patients))


def _missing(truth: Array, groups: Array) -> str:
    """Why a finding cannot be fitted; nothing if it can."""
    present, absent = (len(np.unique(groups[truth == value])) for value in (1, 0))
    if min(present, absent) >= FEWEST:
        return ""
    return f"present in {present} and absent in {absent} patients, at least {FEWEST} of each are needed"


def _described(name: str, features: Array, truth: Array, groups: Array, strength: float, seed: int) -> FindingFit:
    known = ~np.isnan(truth)
    aucs = _fold_aucs(name, features[known], truth[known].astype(int), groups[known], seed)
    return FindingFit(
        name,
        int((truth == 1).sum()),
        int((truth == 0).sum()),
        len(np.unique(groups[known])),
        strength,
        float(np.mean(aucs)) if aucs else None,
        len(aucs),
    )


def _fold_aucs(name: str, x: Array, y: Array, groups: Array, seed: int) -> list[float]:
    """AUC of each fold of patients by a probe fitted, and its strength chosen, on the other folds alone."""
    folds = min(FOLDS, *(len(np.unique(groups[y == value])) for value in (0, 1)))
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, groups)
    found = []
    for fit, ask in splits:
        patients = min(len(np.unique(groups[fit][y[fit] == value])) for value in (0, 1))
        if not patients or len(np.unique(y[ask])) < 2:
            continue
        strengths = STRENGTHS if patients >= FEWEST else STRENGTHS[len(STRENGTHS) // 2 :][:1]
        line = fit_logistic(x[fit], y[fit][:, None], [name], groups=groups[fit], strengths=strengths, seed=seed)
        found.append(float(roc_auc_score(y[ask], line.scores(x[ask])[:, 0])))
    return found


def _written(
    folder: str | Path,
    model: BundleModel,
    fit: LogisticFit,
    findings: tuple[FindingFit, ...],
    left_out: dict[str, str],
    images: tuple[str, ...],
    groups: tuple[str, ...],
) -> ProbeRecord:
    place = _version_folder(folder, model)
    before = _named_file(place / RECORD)
    head = probe_head("logistic", fit.weight.shape[1], len(fit.names))
    head.load_state_dict({"weight": torch.from_numpy(fit.weight), "bias": torch.from_numpy(fit.bias)})
    file = f"probe_{hashlib.sha256(fit.weight.tobytes() + fit.bias.tobytes()).hexdigest()[:12]}.pt"
    save_probe(place / file, ProbeClassifier(model.clip, head, fit.names), kind="logistic")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    record = ProbeRecord(model.name, model.version, file, created, findings, left_out, images, groups)
    fits = [one._asdict() for one in findings]
    write_json(place / RECORD, record._asdict() | {"findings": fits, "mean_auc": record.mean_auc})
    for other in place.glob("probe_*.pt"):
        if other.name not in (file, before):  # whoever has read the former record finds its file
            other.unlink(missing_ok=True)
    return record


def _read(path: Path, model: BundleModel) -> ReaderProbe:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        probe = load_probe(model.clip, path.parent / record["file"])
    except Exception as error:  # torch has many for a damaged file
        raise ValueError(f"the readers' probe {path.name} is damaged: train it again, or delete its folder.") from error
    return ReaderProbe(probe.head, probe.findings, record)


def _named_file(record: Path) -> str:
    """The probe's file that a record names; nothing where there is none."""
    with suppress(OSError, ValueError, KeyError):
        return str(json.loads(record.read_text(encoding="utf-8"))["file"])
    return ""


def _version_folder(folder: str | Path, model: BundleModel) -> Path:
    return Path(folder) / model.version
