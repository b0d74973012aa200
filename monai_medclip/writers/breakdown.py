"""Breakdown: for which images retrieval finds the report, and for which it does not."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medclip.metrics import BreakdownRow, DirectionReport
from monai_medclip.writers.figure import escaped
from monai_medclip.writers.intervals import IntervalRow, headed_lines, name_lines
from monai_medclip.writers.marks import mark
from monai_medclip.writers.saving import new_figure, put_notice

__all__ = ["breakdown_figure"]

_BAR = 0.7  # height, of the distance from one line to the next


def breakdown_figure(rows: Sequence[BreakdownRow], *, k: int, title: str = "") -> Figure:
    """Recall at k of every subset of the queries, a bar each in both directions, with chance and interval.

    Args:
        rows: as `retrieval_breakdown` makes them.
        k: cut-off, one of those that the rows have.
        title: such as the data.

    Raises:
        ValueError: no row, or no recall at k.
    """
    if not rows or any(k not in row.image_to_text.recall for row in rows):
        known = sorted(rows[0].image_to_text.recall) if rows else []
        raise ValueError(
            f"{len(rows)} rows with recall at {known}, not at k={k}: give rows, and one of their cut-offs."
        )
    names = [IntervalRow(row.covariate, f"{row.value} ({row.items})", row.text_to_image.recall[k]) for row in rows]
    listed = headed_lines(names)
    report = dict(zip(names, rows, strict=True))
    tall = sum(line.label.count("\n") + 1 for line in listed)
    figure = new_figure((9.5, 0.27 * tall + 2.1))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, direction, said in zip(
        panels, ("image_to_text", "text_to_image"), ("image to report", "report to image")
    ):
        for place, line in enumerate(listed):
            if line.row is not None:
                _bar(axes, place, getattr(report[line.row], direction), k)
        axes.set_title(said, fontsize=10)
        axes.set_xlabel(f"recall@{k}")
        axes.set_xlim(0, 1)
        name_lines(axes, listed)
    figure.suptitle(escaped(title))
    put_notice(figure, "in brackets: queries; black line across a bar: chance; thin line along it: 95 % interval")
    return figure


def _bar(axes: Axes, place: int, report: DirectionReport, k: int) -> None:
    axes.barh(place, report.recall[k], _BAR, color=mark(0).color, alpha=0.75)
    half = _BAR / 2
    axes.plot([report.chance[k]] * 2, [place - half, place + half], color="black", linewidth=2)
    interval = report.recall_interval[k]
    if interval is not None:
        axes.plot(interval, [place, place], color="0.15", linewidth=1.3)
