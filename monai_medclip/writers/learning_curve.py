"""Learning curve: how much a few labeled cases per class add to what zero-shot already knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from monai_medclip.writers.figure import escaped
from monai_medclip.writers.marks import mark
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.tables import figure_text

__all__ = ["FewShot", "few_shot_figure"]


class FewShot(NamedTuple):
    """What training on a number of cases reached, once per random draw of the cases."""

    cases: int | None  # per class; None: all
    values: Sequence[float]  # one per repeat, such as the macro AUC; NaN is left out
    interval: tuple[float, float] | None = None  # 95 %, of their mean, over test patients


def few_shot_figure(
    curves: Mapping[str, Sequence[FewShot]],
    *,
    zero_shot: float | None = None,
    zero_shot_interval: tuple[float, float] | None = None,
    measure: str = "macro AUC",
    title: str = "",
) -> Figure:
    """One curve per method: mean over the repeats, a band from the worst to the best one, a dot for each.

    Args:
        curves: by name, such as ``{"probe": [...], "probe of an untrained encoder": [...]}``.
        zero_shot: the same measure without any labeled case, drawn as a line.
        zero_shot_interval: its 95 % interval.
        measure: what the figures are.
        title: such as the data.

    Raises:
        ValueError: no curve, or a curve without a point.
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"each curve needs at least one number of cases: got {dict(curves)}.")
    steps = {point.cases for points in curves.values() for point in points}
    order = [*sorted(cases for cases in steps if cases is not None), *([None] if None in steps else [])]
    figure = new_figure((7.2, 5.0))
    axes = figure.subplots()
    if zero_shot is not None:
        said = figure_text(zero_shot, zero_shot_interval)
        axes.axhline(zero_shot, color="0.35", linestyle="--", linewidth=1.2, label=f"zero-shot, no case: {said}")
    if zero_shot_interval is not None:
        axes.axhspan(*zero_shot_interval, color="0.35", alpha=0.12, linewidth=0)
    for number, (name, points) in enumerate(curves.items()):
        look = mark(number)
        tried = {order.index(one.cases): np.asarray(one.values, float) for one in points}
        tried = {place: kept for place in sorted(tried) if len(kept := tried[place][np.isfinite(tried[place])])}
        places = list(tried)
        low, mean, high = (np.array([of(kept) for kept in tried.values()]) for of in (np.min, np.mean, np.max))
        axes.fill_between(places, low, high, color=look.color, alpha=0.18, linewidth=0)
        axes.plot(places, mean, color=look.color, marker=look.point, label=escaped(name))
        for place, kept in tried.items():
            axes.plot(np.full(len(kept), place), kept, ".", color=look.color, markersize=3, alpha=0.7)
    axes.set_xticks(range(len(order)), ["all" if cases is None else str(cases) for cases in order])
    axes.set(xlabel="labeled cases per class", ylabel=escaped(measure))
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=8)
    figure.suptitle(escaped(title))
    repeats = sorted({len(point.values) for points in curves.values() for point in points})
    spread = f"{repeats[0]} to {repeats[-1]}" if len(repeats) > 1 else f"{repeats[0]}"
    put_notice(figure, f"curve: mean of {spread} random draws of the cases; band: from the worst to the best draw")
    return figure
