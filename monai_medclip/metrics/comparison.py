"""Is one model better than another: AUC differences on the same items, and p values of many comparisons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from monai_medclip.metrics.classification import Interval

__all__ = ["AUCDifference", "delong", "holm"]

Array = NDArray[np.float64]
Z_95 = float(norm.ppf(0.975))


class AUCDifference(NamedTuple):
    """Two scores of the same items, compared."""

    auc_a: float  # 0 to 1
    auc_b: float
    difference: float  # a minus b
    standard_error: float
    interval: Interval  # 95 %, of the difference
    p_value: float  # two-sided, of no difference
    items: int  # with a known label
    groups: int  # patients, if they were given


def delong(
    scores_a: ArrayLike, scores_b: ArrayLike, labels: ArrayLike, *, groups: ArrayLike | None = None
) -> AUCDifference:
    """Whether two AUCs on the same items differ: DeLong's test, with patients as clusters.

    Args:
        scores_a: (B,) higher supports the finding.
        scores_b: (B,) of the other model.
        labels: (B,) of 1, 0 or NaN (unknown: left out).
        groups: (B,) patients; images of one patient are not independent. None: every item is its own.

    Returns:
        Both AUCs (ties count half), their difference with a normal 95 % interval, and the p value.

    Raises:
        ValueError: lengths that do not agree, scores that are not finite, other labels, or a class with fewer than two
            patients.

    References:
        DeLong et al., Biometrics 1988; Sun and Xu, IEEE Signal Processing Letters 2014 (by ranks); Obuchowski,
        Biometrics 1997 (clusters), Eq. 4-7.
    """
    a, b, truth = (np.asarray(values, dtype=np.float64) for values in (scores_a, scores_b, labels))
    patients = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if not (a.shape == b.shape == truth.shape == patients.shape == (len(truth),)):
        raise ValueError(f"one score, label and patient per item: not {a.shape}, {b.shape}, {truth.shape}.")
    known = ~np.isnan(truth)
    if not (np.isfinite(a[known]).all() and np.isfinite(b[known]).all() and np.isin(truth[known], (0, 1)).all()):
        raise ValueError("scores must be finite, and labels 1, 0 or NaN (unknown).")
    positive = truth[known] == 1
    clusters = np.unique(patients[known], return_inverse=True)[1]
    for kind, members in (("positive", clusters[positive]), ("negative", clusters[~positive])):
        if len(np.unique(members)) < 2:
            raise ValueError(f"{len(np.unique(members))} patient(s) with a {kind} item: give at least two.")
    of_positives, of_negatives = zip(*(_placements(one[known], positive) for one in (a, b)), strict=True)
    aucs = np.array([placed.mean() for placed in of_positives])
    covariance = _covariance(
        _cluster_sums(np.stack(of_positives) - aucs[:, None], clusters[positive], clusters.max() + 1),
        _cluster_sums(np.stack(of_negatives) - aucs[:, None], clusters[~positive], clusters.max() + 1),
        clusters,
        positive,
    )
    difference = float(aucs[0] - aucs[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    if error < 1e-12:  # the same ranking, or one that cannot vary
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    else:
        p_value = float(2 * norm.sf(abs(difference) / error))
    interval = Interval(difference - Z_95 * error, difference + Z_95 * error)
    groups_known = int(clusters.max()) + 1
    return AUCDifference(
        float(aucs[0]), float(aucs[1]), difference, error, interval, p_value, len(positive), groups_known
    )


def holm(p_values: ArrayLike) -> Array:
    """Adjusted p values of K comparisons, (K,): below 0.05 keeps the chance of any false alarm below 0.05.

    References:
        Holm, Scandinavian Journal of Statistics 1979.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise ValueError("p values are numbers from 0 to 1 in one row; leave out comparisons that were not made.")
    order = np.argsort(given, kind="stable")
    scaled = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _placements(scores: Array, positive: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Per positive, the share of negatives below it; per negative, the share of positives above it; ties count half."""
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(scores[positive])) / (~positive).sum()
    below = 1 - (ranks[~positive] - rankdata(scores[~positive])) / positive.sum()
    return above, below


def _cluster_sums(deviations: Array, clusters: NDArray[np.intp], count: int) -> Array:
    """Deviations (2, M) from the AUC, summed per cluster: (2, K)."""
    return np.stack([np.bincount(clusters, weights=row, minlength=count) for row in deviations])


def _covariance(positives: Array, negatives: Array, clusters: NDArray[np.intp], positive: NDArray[np.bool_]) -> Array:
    """Of the two AUCs, (2, 2), from what each cluster's positives and negatives (2, K) deviate."""
    m, n, count = positive.sum(), (~positive).sum(), positives.shape[1]
    with_positive, with_negative = (len(np.unique(clusters[mask])) for mask in (positive, ~positive))
    s10 = with_positive / ((with_positive - 1) * m) * positives @ positives.T
    s01 = with_negative / ((with_negative - 1) * n) * negatives @ negatives.T
    s11 = count / (count - 1) * positives @ negatives.T
    covariance: Array = s10 / m + s01 / n + (s11 + s11.T) / (m * n)
    return covariance
