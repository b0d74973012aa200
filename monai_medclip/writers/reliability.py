"""Reliability diagram: how often what was given a probability was true, with the number of items behind each point."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from monai_medclip.metrics import CalibrationReport
from monai_medclip.writers.saving import new_figure, put_notice

__all__ = ["reliability_figure"]


def reliability_figure(reports: Mapping[str, CalibrationReport], *, title: str = "") -> Figure:
    """One curve per report over the diagonal of perfect calibration; below it the items of each bin.

    Args:
        reports: by name, such as ``{"as trained": ..., "temperature 1.8": ...}``; at least one.
        title: such as the finding.

    Raises:
        ValueError: no report.
    """
    if not reports:
        raise ValueError("no report to draw: give at least one of `calibration`.")
    figure = new_figure((5.5, 6.5))
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    for name, report in reports.items():
        predicted = [one.predicted for one in report.bins]
        (line,) = curve.plot(predicted, [one.observed for one in report.bins], marker="o", markersize=4)
        line.set_label(f"{name}: ECE {report.ece:.3f}, Brier {report.brier:.3f}")
        items = [one.items for one in report.bins]
        counts.plot(predicted, items, marker="o", markersize=4, linestyle="none", color=line.get_color())
    curve.set(ylabel="share of positives", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    curve.legend(loc="upper left", fontsize=8)
    counts.set(xlabel="mean probability in the bin", ylabel="items")
    counts.set_ylim(bottom=0)
    figure.suptitle(title)
    put_notice(figure)
    return figure
