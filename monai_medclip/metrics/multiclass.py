"""One class out of several: accuracy, macro and per-class figures, the confusion matrix, with patients resampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import logsumexp

from monai_medclip.metrics.classification import (
    Interval,
    as_array,
    column_means,
    flat_figures,
    patient_numbers,
    patient_resamples,
    resampled_figures,
    with_intervals,
)
from monai_medclip.metrics.thresholded import share

__all__ = ["ClassReport", "MulticlassReport", "multiclass"]

Array = NDArray[np.float64]
Classes = NDArray[np.int64]

ON_EMPTY = ("raise", "report")
CLASS_FIGURES = ("accuracy", "precision", "specificity", "f1", "auc", "average_precision")
FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_recall",
    "macro_precision",
    "macro_specificity",
    "macro_f1",
    "macro_auc",
    "macro_average_precision",
    "log_loss",
    "chance_accuracy",
)


class ClassReport(NamedTuple):
    """One class against all others; every figure is NaN without a case."""

    name: str
    cases: int
    accuracy: float  # share of its cases that are given this class: its recall
    precision: float  # share of items given this class that are its cases; NaN where none is given it
    specificity: float  # share of the other classes' cases that are not given it
    f1: float  # 0 where it has cases and none is found
    auc: float  # one against the rest, by probability
    average_precision: float  # likewise; chance is its share of the cases
    accuracy_interval: Interval | None
    precision_interval: Interval | None
    specificity_interval: Interval | None
    f1_interval: Interval | None
    auc_interval: Interval | None
    average_precision_interval: Interval | None


class MulticlassReport(NamedTuple):
    """All classes; a macro figure is the mean over the classes that have cases and for which it is defined."""

    classes: tuple[ClassReport, ...]  # K
    confusion: tuple[tuple[int, ...], ...]  # (K, K) items: rows are the true class, columns the one given
    accuracy: float  # 0 to 1; to be read beside `chance_accuracy`
    balanced_accuracy: float  # 0 to 1; one over the number of classes with cases is chance
    macro_recall: float  # the balanced accuracy under its other name
    macro_precision: float  # a class that no item is given has none, and is not in the mean
    macro_specificity: float
    macro_f1: float
    macro_auc: float  # one against the rest, 0.5 is chance
    macro_average_precision: float
    log_loss: float  # mean cross-entropy of the softmax in nats; ln K where the logits say nothing
    chance_accuracy: float  # what always answering the most frequent class gets
    accuracy_interval: Interval | None
    balanced_accuracy_interval: Interval | None
    macro_recall_interval: Interval | None
    macro_precision_interval: Interval | None
    macro_specificity_interval: Interval | None
    macro_f1_interval: Interval | None
    macro_auc_interval: Interval | None
    macro_average_precision_interval: Interval | None
    log_loss_interval: Interval | None
    chance_accuracy_interval: Interval | None
    items: int  # with a known class
    unknown: int  # left out
    groups: int  # patients of the items, if they were given

    def as_dict(self) -> dict[str, float]:
        """Flat names such as ``accuracy``, ``macro_f1_low``, ``melanoma_auc``, ``melanoma_cases``; no confusion."""
        flat = {field: float(getattr(self, field)) for field in ("items", "unknown", "groups")}
        flat |= flat_figures(self, FIGURES)
        for one in self.classes:
            flat |= {f"{one.name}_cases": float(one.cases)} | flat_figures(one, CLASS_FIGURES, f"{one.name}_")
        return flat


def multiclass(
    logits: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    groups: ArrayLike | None = None,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
    on_empty: str = "raise",
) -> MulticlassReport:
    """Figures of a choice among K classes: the given class is the one with the largest logit, the first of equal ones.

    One-against-rest figures rank by the class's softmax probability, as scikit-learn's do, through its log-odds, which
    do not saturate.

    Args:
        logits: (B, K), the larger the likelier.
        labels: (B,) integers, the number of the true class; -1 is unknown and left out.
        names: K different class names, at least two.
        groups: (B,) patients; the bootstrap resamples them, not images. None: every item is its own.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.
        on_empty: ``"raise"`` refuses a class with fewer than two cases; ``"report"`` gives a class without a case NaN
            and leaves it out of the macro figures, and takes a single case as it is.

    Returns:
        The report; intervals are 2.5 and 97.5 percentiles, of the resamples that define the figure.

    Raises:
        ValueError: shapes that do not agree, logits that are not finite, labels outside -1 to K - 1, no known label, or
            a class with no or one case.
    """
    scores, truth = _checked(logits, labels, names)
    patients = patient_numbers(groups, len(scores))
    known = truth >= 0
    scores, truth = scores[known], truth[known]
    patients = np.unique(patients[known], return_inverse=True)[1]
    _check_cases(truth, names, on_empty)
    own, of_all = _figures(scores, truth, np.ones((1, len(truth))))
    own_draws, draws = _figures(scores, truth, patient_resamples(patients, bootstrap, generator))
    confusion = _confusion(scores, truth, np.ones((1, len(truth))))[0].astype(int)  # (K, K)
    return MulticlassReport(
        tuple(
            ClassReport(
                name, int(confusion[k].sum()), **with_intervals(CLASS_FIGURES, own[:, k, 0].tolist(), own_draws[:, k])
            )
            for k, name in enumerate(names)
        ),
        tuple(tuple(row) for row in confusion.tolist()),
        items=len(truth),
        unknown=int((~known).sum()),
        groups=int(patients.max()) + 1,
        **with_intervals(FIGURES, of_all[:, 0].tolist(), draws),
    )


def _figures(scores: Array, truth: Classes, counts: Array) -> tuple[Array, Array]:
    """`CLASS_FIGURES` (6, K, R) and `FIGURES` (10, R) of every resample; NaN where a class has no case in it."""
    confusion = _confusion(scores, truth, counts)  # (R, K, K)
    cases, calls = confusion.sum(axis=2).T, confusion.sum(axis=1).T  # (K, R)
    hits = np.diagonal(confusion, axis1=1, axis2=2).T  # (K, R)
    items = cases.sum(axis=0)  # (R,)
    ranking = [
        resampled_figures(_log_odds(scores, k), (truth == k).astype(np.float64), counts) for k in range(len(cases))
    ]  # K of (2, R)
    recall, precision, f1 = share(hits, cases), share(hits, calls), share(2 * hits, cases + calls)
    specificity = share(items - cases - calls + hits, items - cases)
    own = np.stack([recall, precision, specificity, f1, *np.stack(ranking, axis=1)])  # (6, K, R)
    own = np.where(cases > 0, own, np.nan)
    recall, precision, specificity, f1, auc, average = (column_means(figure) for figure in own)
    cost = logsumexp(scores, axis=1) - scores[np.arange(len(truth)), truth]  # (B,)
    accuracy, loss, chance = share(hits.sum(axis=0), items), share(counts @ cost, items), share(cases.max(0), items)
    return own, np.stack([accuracy, recall, recall, precision, specificity, f1, auc, average, loss, chance])


def _confusion(scores: Array, truth: Classes, counts: Array) -> Array:
    """(R, K, K): rows are the true class, columns the one given."""
    items, classes = scores.shape
    cell = truth * classes + scores.argmax(axis=1)
    places = csr_array((np.ones(items), (np.arange(items), cell)), shape=(items, classes * classes))
    return np.asarray(counts @ places).reshape(len(counts), classes, classes)


def _log_odds(scores: Array, number: int) -> Array:
    """ln(p / (1 - p)) of the class's softmax probability p, (B,)."""
    return np.asarray(scores[:, number] - logsumexp(np.delete(scores, number, axis=1), axis=1))


def _checked(logits: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> tuple[Array, Classes]:
    scores, truth = as_array(logits), as_array(labels, None)
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"names {list(names)} must be at least two, all different: a single finding is not a choice.")
    if scores.ndim != 2 or scores.shape[1] != len(names) or truth.shape != scores.shape[:1] or not len(scores):
        raise ValueError(f"logits {scores.shape} and labels {truth.shape} must be (B, {len(names)}) and (B,), B > 0.")
    if not np.isfinite(scores).all():
        raise ValueError("logits hold NaN or infinity: the network's output is broken, see its inputs and weights.")
    if not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels are {truth.dtype}, and must be integers: the number of the class, -1 where unknown.")
    outside = np.unique(truth[(truth < -1) | (truth >= len(names))])
    if len(outside):
        raise ValueError(
            f"labels hold {outside[:5].tolist()}: for {len(names)} classes they are 0 to {len(names) - 1}, or -1 "
            "(unknown). Number the classes in the order of the names."
        )
    if (truth < 0).all():
        raise ValueError(f"all {len(truth)} labels are -1 (unknown): there is nothing to judge by.")
    return scores, truth.astype(np.int64)


def _check_cases(truth: Classes, names: Sequence[str], on_empty: str) -> None:
    if on_empty not in ON_EMPTY:
        raise ValueError(f"on_empty={on_empty!r} is not one of {', '.join(ON_EMPTY)}.")
    cases = np.bincount(truth, minlength=len(names))
    for few, words in ((0, "no case: an empty class"), (1, "one case")):
        short: list[Any] = [name for name, count in zip(names, cases, strict=True) if count == few]
        if short and on_empty == "raise":
            raise ValueError(
                f"{', '.join(map(repr, short))} of {len(names)} classes: {words} among {len(truth)} items. Add cases, "
                "leave the class out, or pass on_empty='report' to go on without figures for classes without a case."
            )
