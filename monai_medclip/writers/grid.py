"""Grid: the image and the methods below one another, prompts side by side, one scale per method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from monai_medclip.writers.figure import draw_legend, escaped, show
from monai_medclip.writers.heat import Heat, number
from monai_medclip.writers.overlay import DEFAULT_STYLE, OverlayStyle, full_scale, hidden, overlay, rgb_image
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.truth import Truth, draw_outlines, outlines
from monai_medclip.writers.volume import check_volume, cut_outlines, peak_voxel

__all__ = ["grid_figure"]

CELL_INCHES = 2.3
_ABSENT, _PRESENT = "#8c2d04", "0.15"


class _Cell(NamedTuple):
    """What one cell shows: a 2D image, or the axial slice of a volume through its map's peak."""

    picture: np.ndarray  # (rows, columns) or (rows, columns, 3)
    values: np.ndarray  # (rows, columns)
    lines: list[np.ndarray]  # around the ground truth
    place: str  # which slice


def grid_figure(
    image: np.ndarray,
    heats: Sequence[Sequence[Heat]],
    *,
    present: Sequence[bool] | None = None,
    truths: Sequence[Truth | None] | None = None,
    spacing_mm: Sequence[float] = (1, 1),
    style: OverlayStyle = DEFAULT_STYLE,
) -> Figure:
    """The image as it is in the first row, and below it every method's map of every prompt.

    The maps of a method share one scale, its largest value, so that a weak map looks weak. Each cell says the score
    that it explains, since methods may explain networks of their own, and its total heat; a prompt that is absent from
    the image is named so and framed, for heat there speaks against the method. Of a volume each cell has the axial
    slice through the peak of its own map, and the first row the slices of the row below it.

    Args:
        image: gray (rows, columns), RGB (rows, columns, 3), or a gray volume (slices, rows, columns), 0 to 1, all in
            display order.
        heats: one row per method, one map per prompt, prompts in the same order.
        present: whether each prompt's finding is in the image, if that is known.
        truths: outline of each prompt's finding, if there is one.
        spacing_mm: (between slices,) rows and columns.
        style: see `OverlayStyle`.

    Raises:
        ValueError: rows of different prompts, or of other lengths than `present` and `truths`.
    """
    prompts = _shared_prompts(heats)
    for name, given in (("present", present), ("truths", truths)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{name} has {len(given)} entries for {len(prompts)} prompts: give one each.")
    outlined = truths or [None] * len(prompts)
    cells = [[_cell(image, heat, truth) for heat, truth in zip(row, outlined, strict=True)] for row in heats]
    rows, columns = cells[0][0].values.shape
    aspect = spacing_mm[-2] / spacing_mm[-1]
    cell = float(np.clip(CELL_INCHES * columns / rows / aspect, 1.4, 5))
    size = (cell * len(prompts) + 1.9, (CELL_INCHES + 0.3) * (len(heats) + 1) + 1.6)
    figure = new_figure(size)
    all_axes = figure.subplots(len(heats) + 1, len(prompts), squeeze=False)
    for axes, drawn in zip(all_axes[0], cells[0]):
        show(axes, rgb_image(drawn.picture), aspect=aspect)
        draw_outlines(axes, drawn.lines)
    all_axes[0][0].set_ylabel("image", fontsize=9)
    for axes_row, row, drawn_row in zip(all_axes[1:], heats, cells, strict=True):
        shared = np.stack([heat.values for heat in row])  # (F, *spatial)
        scale = style._replace(limit=full_scale(shared, style))
        for index, (axes, heat, drawn) in enumerate(zip(axes_row, row, drawn_row, strict=True)):
            show(axes, overlay(drawn.picture, drawn.values, scale), aspect=aspect)
            draw_outlines(axes, drawn.lines)
            label = f"{drawn.place}score {number(heat.score)}, total heat {number(heat.total)}"
            axes.set_xlabel(textwrap.fill(label, max(12, int(cell * 16))), fontsize=7.5, labelpad=2)
            if present is not None and not present[index]:
                axes.spines[:].set(color=_ABSENT, linewidth=2, linestyle=(0, (3, 2)))
        axes_row[0].set_ylabel(escaped(textwrap.fill(row[0].method, 22)), fontsize=9)
        draw_legend(figure, list(axes_row), row[0], scale)
    _head(all_axes[0], heats[0], present, cell)
    put_notice(figure, *_notes(heats, present, truths, style))
    return figure


def _cell(image: np.ndarray, heat: Heat, truth: Truth | None) -> _Cell:
    shape = heat.values.shape
    if len(shape) == 2:
        return _Cell(image, heat.values, outlines(truth, shape), "")
    check_volume(image, heat, truth)
    at = peak_voxel(heat.values)[0]
    return _Cell(image[at], heat.values[at], cut_outlines(truth, 0, at, shape[1:]), f"slice {at}, ")


def _shared_prompts(heats: Sequence[Sequence[Heat]]) -> list[str]:
    prompts = [heat.prompt for heat in heats[0]] if heats else []
    if not prompts or any([heat.prompt for heat in row] != prompts for row in heats):
        raise ValueError("every method needs a map of the same prompts in the same order, and at least one.")
    if any({(heat.method, heat.units, heat.scaling) for heat in row} != {_kind(row[0])} for row in heats):
        raise ValueError("the maps of a row share a scale: give them one method, one unit and one scaling.")
    return prompts


def _kind(heat: Heat) -> tuple[str, str, str]:
    return heat.method, heat.units, heat.scaling


def _head(axes_row: np.ndarray, row: Sequence[Heat], present: Sequence[bool] | None, cell_inches: float) -> None:
    """Prompt and presence above each column."""
    width = max(12, int(cell_inches * 11))
    for index, (axes, heat) in enumerate(zip(axes_row, row)):
        absent = present is not None and not present[index]
        state = "" if present is None else "\nabsent" if absent else "\npresent"
        title = f"{escaped(textwrap.fill(heat.prompt, width))}{state}"
        axes.set_title(title, fontsize=8.5, color=_ABSENT if absent else _PRESENT)


def _notes(
    heats: Sequence[Sequence[Heat]],
    present: Sequence[bool] | None,
    truths: Sequence[Truth | None] | None,
    style: OverlayStyle,
) -> list[str]:
    scaling = " and ".join(dict.fromkeys(heat.scaling for row in heats for heat in row))
    units = " and ".join(dict.fromkeys(heat.score_units for row in heats for heat in row))
    notes = [
        f"maps: {scaling}, one scale per row; tinted from {100 * style.threshold:g} % of the row's full scale; "
        f"color map: {style.color_map}; score: what a map explains ({units}); "
        "total heat: sum over a map, in its unit"
    ]
    volume = heats[0][0].values.ndim == 3
    marks = ["each cell: the axial slice through its map's peak, the patient's right at the left"] if volume else []
    marks += ["dashed frame: the finding is absent from the image"] if present and not all(present) else []
    marks += ["cyan outline: ground truth"] if any(truth is not None for truth in truths or ()) else []
    unseen = dict.fromkeys(note for row in heats for heat in row for note in hidden(heat.values, style))
    return [*notes, "; ".join([*marks, *unseen])]
