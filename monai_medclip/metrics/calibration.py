"""Do probabilities mean what they say: reliability bins, calibration error, and the temperature that mends it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from monai_medclip.metrics.classification import Interval, patient_numbers, patient_resamples, percentile_interval

__all__ = ["CalibrationReport", "ReliabilityBin", "calibration", "fit_temperature"]

Array = NDArray[np.float64]
BINNINGS = ("quantile", "uniform")


class ReliabilityBin(NamedTuple):
    """Items of similar probability."""

    low: float  # smallest probability in it
    high: float
    items: int
    predicted: float  # mean probability
    observed: float  # share of positives


class CalibrationReport(NamedTuple):
    """How far probabilities are from frequencies."""

    bins: tuple[ReliabilityBin, ...]  # those that hold items, ascending
    ece: float  # expected calibration error: |observed - predicted| averaged over items, 0 to 1
    mce: float  # maximum calibration error: of the worst bin
    brier: float  # mean squared error of the probability, 0 to 1
    items: int
    ece_interval: Interval | None = None
    brier_interval: Interval | None = None


def calibration(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = 10,
    binning: str = "quantile",
    groups: ArrayLike | None = None,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
) -> CalibrationReport:
    """Reliability of one finding's probabilities.

    scikit-learn's ``calibration_curve`` gives the curve without counts, so without the error.

    Args:
        probabilities: (B,) from 0 to 1.
        labels: (B,) of 1, 0 or NaN (unknown: left out).
        bins: how many.
        binning: ``"quantile"``: as many items in each (equal probabilities stay together), or ``"uniform"``: of equal
            width, the usual one, in which rare probabilities make noisy bins.
        groups: (B,) patients whom the bootstrap resamples; None: every item is its own.
        bootstrap: resamples for the 95 % intervals, over which the bins stay; 0 gives none. A calibration error cannot
            be negative and noise adds to it, so that its interval lies high.
        generator: numpy generator or its seed.

    Raises:
        ValueError: lengths that do not agree, numbers outside their range, or no known label.

    References:
        Naeini et al., AAAI 2015 (ECE, MCE); Brier, Monthly Weather Review 1950.
    """
    given, truth = _known(probabilities, labels)
    patients = patient_numbers(groups, np.size(labels))[~np.isnan(np.asarray(labels, dtype=np.float64))]
    if bins < 1 or binning not in BINNINGS:
        raise ValueError(f"bins={bins}, binning={binning!r}: give at least one bin, and one of {', '.join(BINNINGS)}.")
    if ((given < 0) | (given > 1)).any():
        raise ValueError("probabilities must lie from 0 to 1: pass logits through a sigmoid first.")
    if binning == "uniform":
        edges = np.linspace(0, 1, bins + 1)[1:-1]
    else:
        edges = np.unique(np.quantile(given, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(edges, given, side="left")  # an edge belongs to the bin below it
    found = tuple(
        ReliabilityBin(
            float(given[which == number].min()),
            float(given[which == number].max()),
            int((which == number).sum()),
            float(given[which == number].mean()),
            float(truth[which == number].mean()),
        )
        for number in np.unique(which)
    )
    gaps = np.array([abs(one.observed - one.predicted) for one in found])
    shares = np.array([one.items for one in found]) / len(given)
    brier = float(np.square(given - truth).mean())
    report = CalibrationReport(found, float(gaps @ shares), float(gaps.max()), brier, len(given))
    if not bootstrap:
        return report
    counts = patient_resamples(np.unique(patients, return_inverse=True)[1], bootstrap, generator)  # (R, B)
    members = (which[:, None] == np.unique(which)).astype(np.float64)  # (B, bins)
    drawn = counts.sum(axis=1)
    eces = np.abs(counts @ (members * (truth - given)[:, None])).sum(axis=1) / drawn
    briers = counts @ np.square(given - truth) / drawn
    return report._replace(ece_interval=percentile_interval(eces), brier_interval=percentile_interval(briers))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T > 0 for which sigmoid(logits / T) has the least cross-entropy: fit it on validation, never on test.

    It changes probabilities and no ranking.

    Args:
        logits: (B,) or (B, F), pooled.
        labels: same shape, 1, 0 or NaN (unknown: left out).

    Raises:
        ValueError: as `calibration`; also if one class is missing, or if no temperature is best because every logit is
            on the right side of zero, or their average on the wrong one.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    given, truth = _known(np.ravel(np.asarray(logits)), np.ravel(np.asarray(labels)))
    if len(np.unique(truth)) < 2:
        raise ValueError("a temperature needs items of both classes: give a larger validation set.")
    signed = np.where(truth == 1, given, -given)  # positive where a logit is on the right side
    if signed.min() >= 0 or signed.mean() <= 0:
        raise ValueError(
            "no temperature is best: the logits are on the right side of zero for all items, or on the wrong side on "
            "average, so the cross-entropy falls towards 0 or infinity. Is their zero elsewhere?"
        )

    def slope(sharpness: float) -> float:
        """Of the cross-entropy over 1 / T: convex, negative at 0, positive far out."""
        return float(-(signed * expit(-signed * sharpness)).mean())

    far = 1.0 / np.abs(signed).max()
    while slope(far) < 0:
        far *= 2
    return 1 / float(brentq(slope, 0, far))


def _known(values: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    given, truth = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if given.shape != truth.shape or given.ndim != 1:
        raise ValueError(f"one label per number, in one row: not {given.shape} and {truth.shape}.")
    known = ~np.isnan(truth)
    if not known.any() or not np.isfinite(given[known]).all() or not np.isin(truth[known], (0, 1)).all():
        raise ValueError("numbers must be finite, and labels 1, 0 or NaN (unknown), not all unknown.")
    return given[known], truth[known]
