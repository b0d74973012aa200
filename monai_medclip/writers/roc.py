"""ROC curves: what every threshold would cost and find, and where the chosen one stands."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from monai_medclip.writers.figure import escaped
from monai_medclip.writers.marks import mark
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.tables import NOT_MEASURABLE, figure_text

__all__ = ["roc_figure"]

Array = NDArray[np.float64]
_NAME_LETTERS = 30  # of a finding in one line of the legend
_LEGEND_INCHES, _LETTER_INCHES = 0.3, 0.062  # beside its letters, and of one at 8 points


def roc_figure(
    scores: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
    intervals: Sequence[tuple[float, float] | None] | None = None,
    title: str = "",
) -> Figure:
    """One curve per finding over the diagonal of chance, the AUC in the legend, a point at the chosen threshold.

    Args:
        scores: (B, F) higher supports the finding.
        labels: (B, F) of 1, 0 or NaN (unknown: left out of that finding).
        names: F findings, or classes against the rest.
        thresholds: F, on the scores; a score at or above it counts as positive. None: no points.
        intervals: F, of the AUC. None: the legend has none.
        title: such as the model and the data.

    Raises:
        ValueError: shapes that do not agree.
    """
    given, truth = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    count = len(names)
    if given.shape != truth.shape or given.ndim != 2 or given.shape[1] != count or not count:
        raise ValueError(f"scores {given.shape} and labels {truth.shape} must both be (B, {count}), at least one name.")
    for kind, listed in (("thresholds", thresholds), ("intervals", intervals)):
        if listed is not None and len(listed) != count:
            raise ValueError(f"{len(listed)} {kind} for {count} findings: give one each.")
    letters = min(_NAME_LETTERS, max(map(len, names))) + len(" 0.500") + (len(" [0.500, 0.500]") if intervals else 0)
    height = max(5.6, 0.3 * count + 1.6)
    figure = new_figure((height + _LEGEND_INCHES + _LETTER_INCHES * letters, height))  # axes about as wide as high
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="chance 0.500")
    for f, name in enumerate(names):
        known = ~np.isnan(truth[:, f])
        cut = thresholds[f] if thresholds is not None else None
        _curve(axes, given[known, f], truth[known, f], name, f, intervals[f] if intervals else None, cut)
    axes.set(xlabel="1 - specificity (false alarms)", ylabel="sensitivity")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    figure.legend(loc="outside right upper", fontsize=8, title="AUC", title_fontsize=8)
    figure.suptitle(escaped(title))
    put_notice(figure, "points: the chosen threshold" if thresholds is not None else "")
    return figure


def _curve(
    axes: Axes,
    scores: Array,
    truth: Array,
    name: str,
    place: int,
    interval: tuple[float, float] | None,
    threshold: float | None,
) -> None:
    """One finding; without both classes it is in the legend alone."""
    look = mark(place)
    if not 0 < truth.sum() < len(truth):
        missing = "positives" if not truth.any() else "negatives"
        axes.plot(
            [], [], color=look.color, linestyle=look.line, label=f"{_wrapped(name)} {NOT_MEASURABLE}: no {missing}"
        )
        return
    alarms, hits, _ = roc_curve(truth, scores)
    auc = figure_text(float(roc_auc_score(truth, scores)), interval)
    axes.plot(alarms, hits, color=look.color, linestyle=look.line, linewidth=1.6, label=f"{_wrapped(name)} {auc}")
    if threshold is not None:
        called = scores >= threshold
        point = called[truth == 0].mean(), called[truth == 1].mean()
        axes.plot(*point, marker=look.point, color=look.color, markeredgecolor="white", markersize=8, linestyle="none")


def _wrapped(name: str) -> str:
    return escaped(textwrap.fill(name, _NAME_LETTERS))
