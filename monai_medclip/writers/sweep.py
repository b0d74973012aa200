"""Sweep: one figure of many runs against each setting that differs between them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medclip.writers.figure import escaped
from monai_medclip.writers.marks import mark
from monai_medclip.writers.saving import new_figure, put_notice

__all__ = ["SweepRun", "sweep_figure", "varied_settings"]

_TICKS, _LEVEL = 6, 3  # numbers that get a tick each; ticks whose labels have room side by side
_LETTERS = 14  # in one line of a tick's label
_LOG_RATIO = 50  # settings that span more than this, such as learning rates, are drawn by their logarithm


class SweepRun(NamedTuple):
    """One run of a sweep."""

    settings: Mapping[str, Any]  # name -> number or text; the same names in every run
    value: float  # of the measure; NaN for a run that failed
    interval: tuple[float, float] | None = None  # 95 %


def varied_settings(runs: Sequence[SweepRun]) -> tuple[str, ...]:
    """The settings that have more than one value, in their order.

    Raises:
        ValueError: runs with different settings.
    """
    names = list(runs[0].settings) if runs else []
    for run in runs:
        if set(run.settings) != set(names):
            raise ValueError(
                f"a run has the settings {sorted(run.settings)}, another {sorted(names)}: name all in each."
            )
    return tuple(name for name in names if len({str(run.settings[name]) for run in runs}) > 1)


def sweep_figure(runs: Sequence[SweepRun], *, measure: str, title: str = "") -> Figure:
    """One panel per varied setting, one point per run with its interval, the highest run marked in all panels.

    Args:
        runs: all runs; those whose value is NaN are counted, not drawn.
        measure: what was measured, higher is better.
        title: such as the data.

    Raises:
        ValueError: no setting varies, no run has a value, or runs have different settings.
    """
    names = varied_settings(runs)
    done = [run for run in runs if isfinite(run.value)]
    if not names or not done:
        raise ValueError(f"{len(done)} runs with a value, varied settings {list(names)}: a sweep needs both.")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((max(5.5, 3.8 * columns), 3.3 * rows + 1.2))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    best = max(done, key=lambda run: run.value)
    for axes, name in zip(panels, names):
        _panel(axes, done, name, best)
    for axes in panels[len(names) :]:
        axes.remove()
    for axes in panels[::columns][:rows]:
        axes.set_ylabel(escaped(measure))
    figure.suptitle(escaped(title))
    failed = f"; {len(runs) - len(done)} of {len(runs)} runs gave no figure" if len(done) < len(runs) else ""
    chosen = ", ".join(f"{name} {_label(best.settings[name])}" for name in names)
    put_notice(figure, escaped(f"circle: the highest run ({chosen}); gray ticks: median of a setting's value{failed}"))
    return figure


def _panel(axes: Axes, runs: Sequence[SweepRun], name: str, best: SweepRun) -> None:
    values = [run.settings[name] for run in runs]
    numeric = all(isinstance(value, Real) and not isinstance(value, bool) for value in values)
    order = list(dict.fromkeys(map(_label, sorted(values) if numeric else values)))
    places = np.array([float(value) if numeric else order.index(_label(value)) for value in values])
    heights = np.array([run.value for run in runs])
    look = mark(0)
    for place, run in zip(places, runs, strict=True):
        if run.interval is not None:
            axes.plot([place, place], run.interval, color=look.color, linewidth=1, alpha=0.4)
    axes.plot(places, heights, look.point, color=look.color, markersize=5, alpha=0.8)
    for place in np.unique(places):
        axes.plot(
            place, np.median(heights[places == place]), marker="_", color="0.35", markersize=16, markeredgewidth=1.5
        )
    axes.plot(places[runs.index(best)], best.value, "o", color=mark(1).color, fillstyle="none", markersize=11)
    if numeric and places.min() > 0 and places.max() / places.min() > _LOG_RATIO:
        axes.set_xscale("log")
    if len(order) <= _TICKS or not numeric:
        labels = [escaped(textwrap.fill(one, _LETTERS)) for one in order]
        axes.set_xticks(np.unique(places), labels, fontsize=8.5)
        if len(order) > _LEVEL:
            axes.tick_params(axis="x", rotation=60)
        axes.minorticks_off()
    axes.margins(x=0.15)
    axes.set_xlabel(escaped(name))
    axes.grid(axis="y", color="0.9")


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, Real) and not isinstance(value, bool) else str(value)
