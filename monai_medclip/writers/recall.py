"""Recall: how often retrieval finds what it should, with chance and ceiling marked on every bar."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medclip.metrics import DirectionReport, RetrievalReport
from monai_medclip.writers.figure import escaped
from monai_medclip.writers.marks import mark
from monai_medclip.writers.saving import new_figure, put_notice

__all__ = ["recall_figure"]

_PROTOCOLS = {"strict": "strict", "tie-aware": "tie_aware", "de-duplicated": "deduplicated"}
_DIRECTIONS = {"image to report": "image_to_text", "report to image": "text_to_image"}
_BAR = 0.26  # width, of the distance from one k to the next
_CEILING = "#b2182b"


def recall_figure(report: RetrievalReport, *, title: str = "") -> Figure:
    """Recall at every k in both directions: one bar per protocol with its interval, its chance, and the strict ceiling.

    Args:
        report: as `retrieval` makes it, with or without intervals.
        title: such as the data.
    """
    figure = new_figure((9.5, 4.9))
    panels = figure.subplots(1, 2, sharey=True)
    ks = list(report.ceiling)
    for axes, (said, direction) in zip(panels, _DIRECTIONS.items(), strict=True):
        for place, (name, protocol) in enumerate(_PROTOCOLS.items()):
            _bars(axes, getattr(getattr(report, protocol), direction), np.arange(len(ks)) + (place - 1) * _BAR, name)
        _ticks(axes, [report.ceiling[k] for k in ks], np.arange(len(ks)) - _BAR, _CEILING, "ceiling of strict recall")
        axes.set_xticks(range(len(ks)), [f"recall@{k}" for k in ks])
        axes.set_title(said, fontsize=10)
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
    panels[0].set(ylabel="share of queries", ylim=(0, 1.03))
    handles = {label: handle for handle, label in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper right", fontsize=8, ncols=len(handles))
    figure.suptitle(escaped(title), x=0.02, ha="left")
    bars = "bars: share of queries whose right answer is among the first k, with 95 % intervals where there are any"
    put_notice(figure, f"{report.items} pairs, {report.unique_texts} different reports; {bars}")
    return figure


def _bars(axes: Axes, report: DirectionReport, places: np.ndarray, name: str) -> None:
    """One protocol's bars, (k,), with chance as a line across each."""
    look = mark(list(_PROTOCOLS).index(name))
    heights = list(report.recall.values())
    axes.bar(places, heights, _BAR * 0.92, color=look.color, alpha=0.75, label=name)
    for place, interval in zip(places, report.recall_interval.values(), strict=True):
        if interval is not None:
            axes.plot([place, place], interval, color="0.15", linewidth=1.3)
    _ticks(axes, list(report.chance.values()), places, "black", "chance")


def _ticks(axes: Axes, heights: list[float], places: np.ndarray, color: str, name: str) -> None:
    half = _BAR * 0.46
    style = "-" if name == "chance" else (0, (2, 1))
    axes.hlines(heights, places - half, places + half, color=color, linestyle=style, linewidth=1.8, label=name)
