"""A forced choice between two wordings: how often it is right, with intervals from resampling patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_medclip.metrics.classification import (
    Interval,
    auc_or_nan,
    patient_resamples,
    percentile_interval,
    resampled_figures,
)

__all__ = ["CLEAR", "Choice", "chosen", "draw_patients", "in_percent", "is_sentence", "mean_choice", "or_none"]

Array = NDArray[np.float64]
CLEAR = 0.75  # accuracy halfway between chance and always right: below it an answer is hardly better than a guess
TIE = 1e-6  # cosines closer than this are the same answer: half right


class Choice(NamedTuple):
    """How a choice by the sign of a score fares against the truth; figures without their class are NaN."""

    positives: int  # items whose right answer is the first wording
    negatives: int
    right_positive: float  # share of the positives for which the first wording scores higher, 0 to 1
    right_negative: float  # share of the negatives for which the second one does
    accuracy: float  # mean of the two: 0.5 is chance, also for a model that always says the same
    interval: Interval | None
    auc: float  # of the score: whether it ranks, wherever its zero lies
    auc_interval: Interval | None
    draws: Array  # (2, R) accuracy and AUC of the resamples

    @property
    def by_chance(self) -> bool:
        """Whether the accuracy may be chance, or less."""
        return (self.interval.low if self.interval else self.accuracy) <= 0.5

    def told(self) -> str:
        """The accuracy and its interval in words."""
        within = f" ({in_percent(self.interval.low)} to {in_percent(self.interval.high)})" if self.interval else ""
        return f"{in_percent(self.accuracy)}{within}"

    def columns(self) -> dict[str, float | None]:
        """The figures, as columns of an audit's table."""
        return {
            "accuracy": or_none(self.accuracy),
            "low": self.interval.low if self.interval else None,
            "high": self.interval.high if self.interval else None,
            "auc": or_none(self.auc),
            "auc low": self.auc_interval.low if self.auc_interval else None,
            "auc high": self.auc_interval.high if self.auc_interval else None,
        }


def draw_patients(
    patients: Sequence[str] | None, items: int, bootstrap: int, generator: np.random.Generator | int
) -> Array:
    """How often each item is drawn when patients are drawn with replacement, (R, N).

    Args:
        patients: N patients; None: every item is its own.
        items: N.
        bootstrap: R resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Raises:
        ValueError: another number of patients than items.
    """
    names = np.arange(items) if patients is None else np.asarray(patients)
    if len(names) != items:
        raise ValueError(f"patients has {len(names)} entries for {items} images: give one patient per image.")
    return patient_resamples(np.unique(names, return_inverse=True)[1], bootstrap, generator)


def chosen(scores: ArrayLike, truth: ArrayLike, counts: Array) -> Choice:
    """Judge the sign of scores.

    Args:
        scores: (N,) how much higher the first wording scores than the second, as a difference of cosines.
        truth: (N,) 1 where the first wording is right, 0 where the second is, NaN where nobody knows.
        counts: (R, N) of `draw_patients`.
    """
    known = ~np.isnan(np.asarray(truth, np.float64))
    score, answer = np.asarray(scores, np.float64)[known], np.asarray(truth, np.float64)[known]
    score = np.where(np.abs(score) < TIE, 0.0, score)
    right = np.where(score == 0, 0.5, (score > 0) == (answer == 1)).astype(np.float64)
    weights = counts[:, known]  # (R, known)
    shares = np.stack([_share(weights, right, answer == value) for value in (1, 0)])  # (2, R)
    positive, negative = (float(_share(np.ones((1, len(score))), right, answer == value)[0]) for value in (1, 0))
    draws = np.stack([shares.mean(axis=0), resampled_figures(score, answer, weights)[0]])
    return Choice(
        int((answer == 1).sum()),
        int((answer == 0).sum()),
        positive,
        negative,
        (positive + negative) / 2,
        percentile_interval(draws[0]),
        auc_or_nan(score, answer),
        percentile_interval(draws[1]),
        draws,
    )


def mean_choice(choices: Sequence[Choice]) -> Choice | None:
    """Mean over the findings that have both classes; their resamples are averaged one by one. None without any."""
    both = [one for one in choices if one.positives and one.negatives]
    if not both:
        return None
    draws = np.ma.masked_invalid(np.stack([one.draws for one in both])).mean(axis=0).filled(np.nan)  # (2, R)
    figures = np.mean([[one.right_positive, one.right_negative, one.accuracy, one.auc] for one in both], axis=0)
    positive, negative, accuracy, auc = map(float, figures)
    return Choice(
        sum(one.positives for one in both),
        sum(one.negatives for one in both),
        positive,
        negative,
        accuracy,
        percentile_interval(draws[0]),
        auc,
        percentile_interval(draws[1]),
        draws,
    )


def in_percent(share: float) -> str:
    """A share from 0 to 1 in words."""
    return f"{100 * share:.0f} %"


def is_sentence(name: str) -> bool:
    """Whether a finding's name is a whole sentence, which no template can take in."""
    return name.endswith((".", "?", "!"))


def or_none(value: float) -> float | None:
    """A figure for a table or a result file: None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def _share(weights: Array, right: Array, chosen_items: NDArray[np.bool_]) -> Array:
    """Weighted share of right answers, (R,); NaN where nothing was drawn."""
    total = weights[:, chosen_items].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weights[:, chosen_items] @ right[chosen_items] / total, np.nan)
