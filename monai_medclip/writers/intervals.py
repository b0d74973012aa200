"""Interval plot: figures with their 95 % intervals under one another, so that one sees which truly differ."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medclip.metrics import Subgroup
from monai_medclip.writers.figure import escaped
from monai_medclip.writers.marks import Mark, mark
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.tables import figure_text

__all__ = ["IntervalRow", "interval_figure", "subgroup_figure"]

CHANCE_AUC: Mapping[str, float] = {"chance": 0.5}
_NAME_LETTERS = 44
_LINE_STYLES = ("--", ":", "-.")


class IntervalRow(NamedTuple):
    """One figure, such as the AUC of one method for one finding."""

    group: str  # heading that rows share, such as the finding; empty: none
    name: str  # such as "model", "text only", "24 x 24 pixels"
    value: float  # NaN: not measurable, said so
    interval: tuple[float, float] | None = None  # 95 %
    kind: str = ""  # rows of a kind look alike and stand in the legend; empty: rows of a name look alike


class HeadedLine(NamedTuple):
    """One line of a chart whose rows stand under headings."""

    label: str
    row: IntervalRow | None  # None: a heading


def interval_figure(
    rows: Sequence[IntervalRow], *, measure: str = "AUC", lines: Mapping[str, float] = CHANCE_AUC, title: str = ""
) -> Figure:
    """Every figure as a point on its interval, in groups, its number at the right.

    Args:
        rows: in the order drawn; groups in the order of first appearance.
        measure: what the figures are.
        lines: values to be compared with, by name; up to three.
        title: such as the data.

    Raises:
        ValueError: no row, or more lines than can be told apart.
    """
    if not rows or len(lines) > len(_LINE_STYLES):
        raise ValueError(f"{len(rows)} rows and {len(lines)} lines: give at least one row and at most three lines.")
    listed = headed_lines(rows)
    tall = sum(line.label.count("\n") + 1 for line in listed)
    figure = new_figure((9.0, 0.27 * tall + 1.9))
    axes = figure.subplots()
    looks = {name: mark(place) for place, name in enumerate(dict.fromkeys(one.kind or one.name for one in rows))}
    for style, (name, value) in zip(_LINE_STYLES, lines.items()):
        axes.axvline(value, color="0.45", linestyle=style, linewidth=1, label=f"{escaped(name)} {figure_text(value)}")
    for place, line in enumerate(listed):
        if line.row is not None:
            _draw(axes, place, line.row, looks[line.row.kind or line.row.name])
    name_lines(axes, listed)
    for kind in dict.fromkeys(one.kind for one in rows if one.kind):
        axes.plot([], [], marker=looks[kind].point, color=looks[kind].color, label=escaped(kind))
    axes.set_xlabel(f"{escaped(measure)} with 95 % interval" if any(one.interval for one in rows) else escaped(measure))
    if lines or any(one.kind for one in rows):
        figure.legend(loc="outside upper right", fontsize=8, ncols=3)
    figure.suptitle(escaped(title), x=0.02, ha="left")
    put_notice(figure)
    return figure


def subgroup_figure(rows: Sequence[Subgroup], *, overall: float, title: str = "") -> Figure:
    """AUC in every subgroup of one finding; those that differ from all others look different.

    Args:
        rows: as `subgroups` of the metrics makes them.
        overall: AUC of all items.
        title: such as the finding.

    Raises:
        ValueError: no row.
    """
    drawn = [
        IntervalRow(
            one.covariate,
            f"{one.value} ({one.positives} of {one.items} positive)",
            one.auc,
            one.auc_interval,
            "differs from the rest, adjusted p < 0.05" if one.adjusted_p_value < 0.05 else "no difference shown",
        )
        for one in rows
    ]
    drawn.sort(key=lambda row: list(dict.fromkeys(one.covariate for one in rows)).index(row.group))
    return interval_figure(drawn, lines={**CHANCE_AUC, "all items": overall}, title=title)


def headed_lines(rows: Sequence[IntervalRow]) -> list[HeadedLine]:
    """Headings and rows from top to bottom."""
    found = []
    for group in dict.fromkeys(row.group for row in rows):
        found += [HeadedLine(_wrapped(group), None)] if group else []
        found += [HeadedLine(_wrapped(row.name), row) for row in rows if row.group == group]
    return found


def _wrapped(name: str) -> str:
    return escaped(textwrap.fill(name, _NAME_LETTERS))


def _draw(axes: Axes, place: int, row: IntervalRow, look: Mark) -> None:
    text = figure_text(row.value, row.interval)
    axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    if not isfinite(row.value):
        return
    if row.interval is not None and all(map(isfinite, row.interval)):
        axes.plot(row.interval, [place, place], color=look.color, linewidth=1.8, solid_capstyle="butt")
    axes.plot(row.value, place, marker=look.point, color=look.color, markersize=6, linestyle="none")


def name_lines(axes: Axes, listed: Sequence[HeadedLine]) -> None:
    """The names at the left of a chart whose line 0 is on top, headings in bold, and a light grid."""
    axes.set_yticks(range(len(listed)), [line.label for line in listed], fontsize=9)
    for label, line in zip(axes.get_yticklabels(), listed):
        label.set_fontweight("normal" if line.row else "bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(listed) - 0.4, -0.6)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
