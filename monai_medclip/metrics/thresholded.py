"""What calling items positive at a threshold is worth, and what their probabilities cost: for all resamples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["THRESHOLDED", "share", "thresholded_figures"]

Array = NDArray[np.float64]

THRESHOLDED = ("accuracy", "sensitivity", "specificity", "precision", "f1", "balanced_accuracy", "log_loss")


def thresholded_figures(scores: Array, truth: Array, threshold: float, counts: Array) -> Array:
    """`THRESHOLDED` of every resample, in that order: (7, R); each is one product of the counts with 0 and 1.

    Args:
        scores: (B,) logits, higher supports the finding.
        truth: (B,) of 1, 0 or NaN (unknown: left out).
        threshold: a score at or above it is called positive.
        counts: (R, B) how often each item is drawn; ones give the figures of the items themselves.

    Returns:
        Shares from 0 to 1, and the log loss: mean cross-entropy of sigmoid(score) in nats, 0 or more, ln 2 where every
        score is 0; the threshold does not enter it. What is not defined is NaN, never 0: sensitivity and F1 without a
        positive item, specificity without a negative one, balanced accuracy without both, precision where no item is
        called positive. F1 is 2 hits / (positives + calls), and so 0 where items are positive and none is called.
    """
    positive, negative, called = truth == 1, truth == 0, scores >= threshold  # NaN is neither
    cost = np.where(positive, np.logaddexp(0, -scores), np.where(negative, np.logaddexp(0, scores), 0))
    columns = np.stack([positive & called, positive, negative & called, negative, cost], axis=1).astype(np.float64)
    hits, positives, alarms, negatives, costs = (counts @ columns).T  # (R,) each
    known = positives + negatives
    sensitivity, specificity = share(hits, positives), share(negatives - alarms, negatives)
    return np.stack(
        [
            share(hits + negatives - alarms, known),
            sensitivity,
            specificity,
            share(hits, hits + alarms),
            np.where(positives > 0, share(2 * hits, positives + hits + alarms), np.nan),
            (sensitivity + specificity) / 2,
            share(costs, known),
        ]
    )


def share(part: Any, whole: Any) -> Array:
    """part / whole, NaN where the whole is 0; shapes as numpy broadcasts them."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
