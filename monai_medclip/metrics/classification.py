"""Classification per finding: ranking and threshold figures, with intervals from resampling patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from monai_medclip.metrics.thresholded import THRESHOLDED, share, thresholded_figures

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

FIGURES = ("auc", "average_precision", *THRESHOLDED)
SWEPT = 2**20  # drawn items held at once, which bounds memory: 8 MB per array


class Interval(NamedTuple):
    """A 95 % percentile interval of a bootstrap."""

    low: float
    high: float


class FindingReport(NamedTuple):
    """One finding; a figure that its items do not define is NaN, never 0 (see `thresholded_figures`)."""

    name: str
    positives: int
    negatives: int  # items with an unknown label are in neither
    auc: float  # 0 to 1, 0.5 is chance
    average_precision: float  # 0 to 1; chance is the prevalence
    threshold: float  # a score at or above it counts as positive
    accuracy: float
    sensitivity: float
    specificity: float
    precision: float  # NaN where no item is called positive
    f1: float  # 0 where items are positive and none is called
    balanced_accuracy: float  # mean of sensitivity and specificity, chance is 0.5
    log_loss: float  # of sigmoid(score), in nats, whatever the threshold; ln 2 where the scores say nothing
    auc_interval: Interval | None
    average_precision_interval: Interval | None
    accuracy_interval: Interval | None
    sensitivity_interval: Interval | None
    specificity_interval: Interval | None
    precision_interval: Interval | None
    f1_interval: Interval | None
    balanced_accuracy_interval: Interval | None
    log_loss_interval: Interval | None


class ClassificationReport(NamedTuple):
    """All findings and their means; each mean is over the findings that have the figure."""

    findings: tuple[FindingReport, ...]
    macro_auc: float
    macro_average_precision: float
    macro_accuracy: float
    macro_sensitivity: float
    macro_specificity: float
    macro_precision: float
    macro_f1: float
    macro_balanced_accuracy: float
    macro_log_loss: float
    macro_auc_interval: Interval | None
    macro_average_precision_interval: Interval | None
    macro_accuracy_interval: Interval | None
    macro_sensitivity_interval: Interval | None
    macro_specificity_interval: Interval | None
    macro_precision_interval: Interval | None
    macro_f1_interval: Interval | None
    macro_balanced_accuracy_interval: Interval | None
    macro_log_loss_interval: Interval | None
    items: int
    groups: int  # patients, if they were given

    def as_dict(self) -> dict[str, float]:
        """Flat names such as ``macro_auc``, ``nodule_auc``, ``nodule_f1``, ``nodule_f1_low``."""
        flat: dict[str, float] = {"items": float(self.items), "groups": float(self.groups)}
        flat |= flat_figures(self, [f"macro_{figure}" for figure in FIGURES])
        for one in self.findings:
            flat |= flat_figures(one, FIGURES, f"{one.name}_")
            for field in ("positives", "negatives", "threshold"):
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
    """Per finding: AUC, average precision, log loss, and at a threshold accuracy, F1 and their kin; their means.

    Args:
        logits: (B, F) scores, higher supports the finding; the log loss takes them as logits, the rest as an order.
        labels: (B, F) of 1, 0 or NaN (unknown: left out of that finding).
        names: F finding names.
        groups: (B,) patients; the bootstrap resamples them, not images. None: every item is its own.
        threshold: on the scores, one or F of them, fixed beforehand or by `youden_threshold` on validation.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        The report; intervals are 2.5 and 97.5 percentiles, of the resamples that define the figure.

    Raises:
        ValueError: shapes that do not agree, scores that are not finite, labels other than 0, 1 and NaN.
    """
    scores, truth = _checked(logits, labels, names)
    patients = patient_numbers(groups, len(scores))
    cuts = np.broadcast_to(np.asarray(threshold, dtype=float), len(names)).tolist()
    counts = patient_resamples(patients, bootstrap, generator)  # (R, B)
    draws = np.array([_draws(scores[:, f], truth[:, f], cut, counts) for f, cut in enumerate(cuts)])  # (F, 9, R)
    findings = tuple(_finding(name, scores[:, f], truth[:, f], cuts[f], draws[f]) for f, name in enumerate(names))
    means = [column_means(np.array([getattr(one, figure) for one in findings])) for figure in FIGURES]
    spread = [column_means(draws[:, number]) for number in range(len(FIGURES))]
    return ClassificationReport(
        findings,
        items=len(scores),
        groups=int(patients.max()) + 1,
        **with_intervals([f"macro_{figure}" for figure in FIGURES], means, spread),
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


def _draws(scores: Array, truth: Array, threshold: float, counts: Array) -> Array:
    """`FIGURES` of every resample, (9, R)."""
    ranking = resampled_figures(scores, truth, counts)
    return np.concatenate([ranking, thresholded_figures(scores, truth, threshold, counts)])


def _finding(name: str, scores: Array, truth: Array, threshold: float, draws: Array) -> FindingReport:
    known = ~np.isnan(truth)
    positive = truth[known] == 1
    both = positive.any() and not positive.all()
    values = [
        auc_or_nan(scores[known], truth[known]),
        float(average_precision_score(positive, scores[known])) if both else np.nan,
        *thresholded_figures(scores, truth, threshold, np.ones((1, len(scores))))[:, 0].tolist(),
    ]
    return FindingReport(
        name,
        int(positive.sum()),
        int((~positive).sum()),
        threshold=threshold,
        **with_intervals(FIGURES, values, draws),
    )


def _tercile(scores: Array, truth: Array, covariate: Array, inside: NDArray[np.bool_]) -> Tercile:
    if not inside.any():
        return Tercile(np.nan, np.nan, 0, 0, np.nan)
    low, high = float(covariate[inside].min()), float(covariate[inside].max())
    return Tercile(low, high, int(inside.sum()), int(truth[inside].sum()), auc_or_nan(scores[inside], truth[inside]))


def auc_or_nan(scores: Array, truth: Array) -> float:
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < len(truth) else np.nan


def patient_numbers(patients: ArrayLike | None, items: int) -> NDArray[np.int_]:
    """(B,) numbers from 0, one per patient; None makes every item its own.

    Raises:
        ValueError: not one patient per item.
    """
    if patients is None:
        return np.arange(items)
    numbers = np.unique(as_array(patients, None), return_inverse=True)[1]
    if numbers.shape != (items,):
        raise ValueError(f"{len(numbers)} patients were given for {items} items: give one patient per item.")
    return numbers


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
    order = np.flatnonzero(known)[np.argsort(-scores[known], kind="stable")]
    if not len(order) or not len(counts):
        return np.full((2, len(counts)), np.nan)
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # last item of each tied score
    at_once = max(1, SWEPT // len(order))
    parts = [counts[first : first + at_once, order] for first in range(0, len(counts), at_once)]
    return np.concatenate([_swept(part, truth[order], ends) for part in parts], axis=1)


def _swept(weights: Array, positive: Array, ends: NDArray[np.intp]) -> Array:
    """AUC and average precision (2, R) of items in descending order, drawn ``weights`` (R, N) times."""
    hits = np.cumsum(weights * positive, axis=1)[:, ends]  # (R, scores)
    alarms = np.cumsum(weights * (1 - positive), axis=1)[:, ends]
    new_hits, new_alarms = np.diff(hits, axis=1, prepend=0), np.diff(alarms, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (new_alarms * (hits - new_hits / 2)).sum(1) / (hits[:, -1] * alarms[:, -1])
        precision = np.nan_to_num(hits / (hits + alarms))
        average = np.where(alarms[:, -1] > 0, (new_hits * precision).sum(1) / hits[:, -1], np.nan)
    return np.stack([auc, average])


def percentile_interval(draws: Array) -> Interval | None:
    draws = draws[np.isfinite(draws)]
    return Interval(*map(float, np.percentile(draws, (2.5, 97.5)))) if draws.size else None


def mean_interval(values: Array, counts: Array) -> Interval | None:
    """Of a mean over items (B,), each drawn ``counts`` (R, B) times; resamples without any of them are left out."""
    return percentile_interval(share(counts @ values, counts.sum(axis=1)))


def column_means(values: Array) -> Array:
    """Mean over findings or classes, (F, ...) -> (...), of those that have a figure; NaN where none has."""
    there = np.isfinite(values)
    return np.where(there, values, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)


def with_intervals(names: Sequence[str], values: Sequence[Any], draws: Sequence[Array] | Array) -> dict[str, Any]:
    """Fields of a report: each name with its value, and ``NAME_interval`` from its resamples (R,)."""
    found = zip(names, values, draws, strict=True)
    return {
        field: given
        for name, value, drawn in found
        for field, given in ((name, float(value)), (f"{name}_interval", percentile_interval(drawn)))
    }


def flat_figures(report: Any, names: Sequence[str], prefix: str = "") -> dict[str, float]:
    """Figures of a report that has ``NAME`` and ``NAME_interval``, under ``prefixNAME``, ``..._low``, ``..._high``."""
    flat: dict[str, float] = {}
    for name in names:
        flat |= flat_figure(f"{prefix}{name}", getattr(report, name), getattr(report, f"{name}_interval"))
    return flat


def flat_figure(name: str, value: float, interval: Interval | None) -> dict[str, float]:
    """One figure under its name, and where it has an interval under ``NAME_low`` and ``NAME_high``."""
    return {name: value} | ({f"{name}_low": interval.low, f"{name}_high": interval.high} if interval else {})
