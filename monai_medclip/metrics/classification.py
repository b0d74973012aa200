"""Classification per finding: ranking and threshold figures, with intervals from resampling patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

__all__ = [
    "ClassificationReport",
    "FindingReport",
    "Interval",
    "Tercile",
    "TercileReport",
    "auc_by_tercile",
    "classification",
    "youden_threshold",
]

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A 95 % percentile interval of a bootstrap."""

    low: float
    high: float


class FindingReport(NamedTuple):
    """One finding; figures that need both classes are NaN where one is missing."""

    name: str
    positives: int
    negatives: int  # items with an unknown label are in neither
    auc: float  # 0 to 1, 0.5 is chance
    average_precision: float  # 0 to 1; chance is the prevalence
    threshold: float  # a score at or above it counts as positive
    accuracy: float
    sensitivity: float
    specificity: float
    auc_interval: Interval | None
    average_precision_interval: Interval | None


class ClassificationReport(NamedTuple):
    """All findings and their mean."""

    findings: tuple[FindingReport, ...]
    macro_auc: float  # mean over the findings that have an AUC
    macro_average_precision: float
    macro_auc_interval: Interval | None
    macro_average_precision_interval: Interval | None
    items: int
    groups: int  # patients, if they were given

    def as_dict(self) -> dict[str, float]:
        """Flat names such as ``macro_auc``, ``nodule_auc``, ``nodule_auc_low``."""
        flat: dict[str, float] = {"items": float(self.items), "groups": float(self.groups)}
        flat |= _flat("macro_auc", self.macro_auc, self.macro_auc_interval)
        flat |= _flat("macro_average_precision", self.macro_average_precision, self.macro_average_precision_interval)
        for one in self.findings:
            flat |= _flat(f"{one.name}_auc", one.auc, one.auc_interval)
            flat |= _flat(f"{one.name}_average_precision", one.average_precision, one.average_precision_interval)
            for field in ("positives", "negatives", "threshold", "accuracy", "sensitivity", "specificity"):
                flat[f"{one.name}_{field}"] = float(getattr(one, field))
        return flat


class Tercile(NamedTuple):
    """One third of the items by a covariate."""

    low: float  # covariate, smallest in this third
    high: float  # covariate, largest in this third
    items: int
    positives: int
    auc: float  # NaN where a class is missing


class TercileReport(NamedTuple):
    """Whether scores rank within thirds of a covariate such as nodule diameter, which alone might do the ranking."""

    auc: float  # of the scores, over all items
    covariate_auc: float  # of the covariate itself, over all items
    terciles: tuple[Tercile, ...]  # 3, in ascending order of the covariate

    def as_dict(self) -> dict[str, float]:
        """Flat names: ``auc``, ``covariate_auc``, ``tercile_1_auc``, ``tercile_1_low``, ..."""
        flat = {"auc": self.auc, "covariate_auc": self.covariate_auc}
        for number, tercile in enumerate(self.terciles, 1):
            flat |= {f"tercile_{number}_{field}": float(value) for field, value in tercile._asdict().items()}
        return flat


def classification(
    logits: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    groups: ArrayLike | None = None,
    threshold: float | Sequence[float] = 0.0,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
) -> ClassificationReport:
    """Per finding: AUC, average precision, and accuracy, sensitivity, specificity at a threshold; their mean.

    Args:
        logits: (B, F) scores, higher supports the finding.
        labels: (B, F) of 1, 0 or NaN (unknown: left out of that finding).
        names: F finding names.
        groups: (B,) patients; the bootstrap resamples them, not images. None: every item is its own.
        threshold: on the scores, one or F of them, fixed beforehand or by `youden_threshold` on validation.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        The report; intervals are 2.5 and 97.5 percentiles.

    Raises:
        ValueError: shapes that do not agree, scores that are not finite, labels other than 0, 1 and NaN.
    """
    scores, truth = _checked(logits, labels, names)
    patients = np.unique(np.arange(len(scores)) if groups is None else as_array(groups, None), return_inverse=True)[1]
    if len(patients) != len(scores):
        raise ValueError(f"groups has {len(patients)} entries for {len(scores)} items: give one patient per item.")
    cuts = np.broadcast_to(np.asarray(threshold, dtype=float), len(names))
    counts = patient_resamples(patients, bootstrap, generator)  # (R, B)
    draws = np.array([resampled_figures(scores[:, f], truth[:, f], counts) for f in range(len(names))])  # (F, 2, R)
    findings = tuple(
        _finding(name, scores[:, f], truth[:, f], float(cuts[f]), draws[f]) for f, name in enumerate(names)
    )
    return ClassificationReport(
        findings,
        _mean([one.auc for one in findings]),
        _mean([one.average_precision for one in findings]),
        percentile_interval(_column_means(draws[:, 0])),
        percentile_interval(_column_means(draws[:, 1])),
        len(scores),
        int(patients.max()) + 1,
    )


def auc_by_tercile(scores: ArrayLike, labels: ArrayLike, covariate: ArrayLike) -> TercileReport:
    """AUC within each third of a covariate, beside the covariate's own AUC.

    Args:
        scores: (B,) higher supports the finding.
        labels: (B,) of 1, 0 or NaN (left out).
        covariate: (B,) such as the nodule's diameter in mm; equal values stay in one third.

    Raises:
        ValueError: shapes that do not agree, or a covariate that is not finite.
    """
    score, truth = _checked(as_array(scores)[:, None], as_array(labels)[:, None], ["finding"])
    size = as_array(covariate)
    if size.shape != (len(score),) or not np.isfinite(size).all():
        raise ValueError(f"covariate {size.shape} must be ({len(score)},) and finite. Drop the items that have none.")
    known = ~np.isnan(truth[:, 0])
    score, truth, size = score[known, 0], truth[known, 0], size[known]
    third = np.searchsorted(np.quantile(size, (1 / 3, 2 / 3)), size, side="left")
    return TercileReport(
        auc_or_nan(score, truth),
        auc_or_nan(size, truth),
        tuple(_tercile(score, truth, size, third == t) for t in range(3)),
    )


def youden_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The threshold with the largest sensitivity + specificity; to be chosen on validation, never on test.

    Args:
        scores: (B,).
        labels: (B,) of 1, 0 or NaN (left out), both classes present.
    """
    score, truth = as_array(scores), as_array(labels)
    known = ~np.isnan(truth)
    false_positives, true_positives, cuts = roc_curve(truth[known], score[known])
    return float(cuts[1:][np.argmax((true_positives - false_positives)[1:])])


def _checked(logits: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> tuple[Array, Array]:
    scores, truth = as_array(logits), as_array(labels)
    if scores.ndim != 2 or scores.shape != truth.shape or scores.shape[1] != len(names) or not len(scores):
        raise ValueError(f"logits {scores.shape} and labels {truth.shape} must both be (B, {len(names)}), B > 0.")
    if not np.isfinite(scores).all():
        raise ValueError("logits hold NaN or infinity: the network's output is broken, see its inputs and weights.")
    if not (np.isnan(truth) | (truth == 0) | (truth == 1)).all():
        raise ValueError(f"labels must be 0, 1 or NaN (unknown), not {np.unique(truth)[:5]}.")
    return scores, truth


def as_array(values: Any, dtype: type | None = np.float64) -> NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, on any device, of any float type
        values = values.detach().cpu()
        values = values.double() if dtype is not None else values
    return np.asarray(values, dtype=dtype)


def _finding(name: str, scores: Array, truth: Array, threshold: float, draws: Array) -> FindingReport:
    known = ~np.isnan(truth)
    positive, called = truth[known] == 1, scores[known] >= threshold
    both = positive.any() and not positive.all()
    return FindingReport(
        name,
        int(positive.sum()),
        int((~positive).sum()),
        auc_or_nan(scores[known], truth[known]),
        float(average_precision_score(positive, scores[known])) if both else np.nan,
        threshold,
        _share(called == positive),
        _share(called[positive]),
        _share(~called[~positive]),
        percentile_interval(draws[0]),
        percentile_interval(draws[1]),
    )


def _tercile(scores: Array, truth: Array, covariate: Array, inside: NDArray[np.bool_]) -> Tercile:
    if not inside.any():
        return Tercile(np.nan, np.nan, 0, 0, np.nan)
    low, high = float(covariate[inside].min()), float(covariate[inside].max())
    return Tercile(low, high, int(inside.sum()), int(truth[inside].sum()), auc_or_nan(scores[inside], truth[inside]))


def auc_or_nan(scores: Array, truth: Array) -> float:
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else np.nan


def patient_resamples(patients: NDArray[np.int_], bootstrap: int, generator: np.random.Generator | int) -> Array:
    """How often each item is drawn when patients are drawn with replacement, (R, B)."""
    number = int(patients.max()) + 1
    draws = np.random.default_rng(generator).multinomial(number, np.full(number, 1 / number), size=bootstrap)
    return draws[:, patients].astype(np.float64)


def resampled_figures(scores: Array, truth: Array, counts: Array) -> Array:
    """AUC and average precision of every resample, (2, R); NaN where it lacks a class.

    sklearn's figures with ``sample_weight``, for all resamples in one sweep down the sorted scores.
    """
    known = ~np.isnan(truth)
    order = np.argsort(-scores[known], kind="stable")
    ends = np.flatnonzero(np.diff(scores[known][order], append=-np.inf))  # last item of each tied score
    weights, positive = counts[:, known][:, order], truth[known][order]
    hits = np.cumsum(weights * positive, axis=1)[:, ends]  # (R, scores)
    alarms = np.cumsum(weights * (1 - positive), axis=1)[:, ends]
    if not hits.size:
        return np.full((2, len(counts)), np.nan)
    new_hits, new_alarms = np.diff(hits, axis=1, prepend=0), np.diff(alarms, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (new_alarms * (hits - new_hits / 2)).sum(1) / (hits[:, -1] * alarms[:, -1])
        precision = np.nan_to_num(hits / (hits + alarms))
        average = np.where(alarms[:, -1] > 0, (new_hits * precision).sum(1) / hits[:, -1], np.nan)
    return np.stack([auc, average])


def percentile_interval(draws: Array) -> Interval | None:
    draws = draws[np.isfinite(draws)]
    return Interval(*map(float, np.percentile(draws, (2.5, 97.5)))) if draws.size else None


def _column_means(draws: Array) -> Array:
    """Mean over findings, (F, R) -> (R,), of those that have a figure."""
    there = np.isfinite(draws)
    return np.where(there, draws, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else np.nan


def _share(true: NDArray[np.bool_]) -> float:
    return float(true.mean()) if true.size else np.nan


def _flat(name: str, value: float, interval: Interval | None) -> dict[str, float]:
    return {name: value} | ({f"{name}_low": interval.low, f"{name}_high": interval.high} if interval else {})
