"""Volumes: a montage of slices, and three orthogonal views through one voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from monai_medclip.writers.figure import draw_legend, put_title, said, show
from monai_medclip.writers.heat import Heat, number
from monai_medclip.writers.overlay import DEFAULT_STYLE, OverlayStyle, full_scale, overlay
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.truth import Truth, draw_outlines, outlines

__all__ = ["montage_figure", "orthogonal_figure", "peak_voxel"]

VIEWS = (  # axis that is cut; letters at the left, right, upper and lower edge, for volumes in CT display order
    ("axial", 0, "RLAP"),
    ("coronal", 1, "RLHF"),
    ("sagittal", 2, "APHF"),
)


_LETTER: dict[str, Any] = {
    "color": "white",
    "fontsize": 10,
    "ha": "center",
    "va": "center",
    "path_effects": [withStroke(linewidth=2.5, foreground="black")],
}


def peak_voxel(values: np.ndarray) -> tuple[int, int, int]:
    """Where a map (slices, rows, columns) is highest: slice, row, column; the first such voxel."""
    slice_, row, column = np.unravel_index(int(values.argmax()), values.shape)
    return int(slice_), int(row), int(column)


def montage_figure(
    volume: np.ndarray,
    heat: Heat,
    *,
    count: int = 12,
    spacing_mm: Sequence[float] = (1, 1, 1),
    style: OverlayStyle = DEFAULT_STYLE,
    truth: Truth | None = None,
) -> Figure:
    """Slices from feet to head, evenly spaced, the one with the map's peak among them.

    Args:
        volume: gray (slices, rows, columns), 0 to 1, in CT display order.
        heat: the map (slices, rows, columns).
        count: how many slices, at most.
        spacing_mm: between slices, rows and columns.
        style: see `OverlayStyle`; full scale is that of the whole volume, so slices can be compared.
        truth: mask of the finding (slices, rows, columns), if there is one.

    Raises:
        ValueError: shapes differ, or the volume is none.
    """
    check_volume(volume, heat, truth)
    peak = peak_voxel(heat.values)[0]
    chosen = chosen_slices(len(volume), count, peak)
    scale = style._replace(limit=full_scale(heat.values, style))
    columns = min(len(chosen), int(np.ceil(np.sqrt(len(chosen) * 4 / 3))))
    rows = int(np.ceil(len(chosen) / columns))
    figure = new_figure((2.3 * columns + 1.4, 2.4 * rows + 1.7))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, chosen):
        show(axes, overlay(volume[index], heat.values[index], scale), aspect=spacing_mm[1] / spacing_mm[2])
        draw_outlines(axes, cut_outlines(truth, 0, index, volume[index].shape))
        title = f"slice {index}{' (peak)' if index == peak else ''} · heat {number(float(heat.values[index].sum()))}"
        axes.set_title(title, fontsize=7.5)
    draw_legend(figure, list(grid.flat), heat, scale)
    put_title(figure, f"{heat.prompt}: score {heat.score_label}", heat.method)
    shown = f"{len(chosen)} of {len(volume)} slices, from feet to head, the patient's right at the left"
    put_notice(figure, said(heat, scale), shown + truth_key(truth))
    return figure


def chosen_slices(total: int, count: int, peak: int) -> list[int]:
    """At most `count` slices of `total`, evenly spaced, the nearest one moved to the peak."""
    if count < 1:
        raise ValueError(f"count={count}: show at least one slice.")
    even = np.unique(np.linspace(0, total - 1, min(count, total) + 2)[1:-1].round().astype(int))
    if count >= total:
        even = np.arange(total)
    even[np.abs(even - peak).argmin()] = peak
    return sorted(even.tolist())


def orthogonal_figure(
    volume: np.ndarray,
    heat: Heat,
    *,
    voxel: Sequence[int] | None = None,
    spacing_mm: Sequence[float] = (1, 1, 1),
    style: OverlayStyle = DEFAULT_STYLE,
    truth: Truth | None = None,
) -> Figure:
    """Axial, coronal and sagittal view through one voxel, head up, the patient's right at the left.

    Args:
        volume: gray (slices, rows, columns), 0 to 1, in CT display order.
        heat: the map (slices, rows, columns).
        voxel: slice, row and column to cut through; the map's peak by default.
        spacing_mm: between slices, rows and columns.
        style: see `OverlayStyle`; full scale is that of the whole volume.
        truth: mask of the finding (slices, rows, columns), if there is one.

    Raises:
        ValueError: shapes differ, or the voxel lies outside.
    """
    check_volume(volume, heat, truth)
    at = peak_voxel(heat.values) if voxel is None else tuple(int(index) for index in voxel)
    if len(at) != 3 or any(not 0 <= index < n for index, n in zip(at, volume.shape)):
        raise ValueError(f"voxel {at} lies outside the volume {volume.shape} (slices, rows, columns).")
    scale = style._replace(limit=full_scale(heat.values, style))
    sizes_mm = [n * mm for n, mm in zip(volume.shape, spacing_mm)]
    widths = [sizes_mm[2], sizes_mm[2], sizes_mm[1]]
    figure = new_figure((12.6, 5.4))
    all_axes = figure.subplots(1, 3, width_ratios=widths)
    for axes, (name, axis, letters) in zip(all_axes, VIEWS):
        _view(axes, volume, heat, at=at, axis=axis, spacing_mm=spacing_mm, style=scale, truth=truth)
        axes.set_title(f"{name}, {('slice', 'row', 'column')[axis]} {at[axis]}", fontsize=9)
        put_letters(axes, letters)
    draw_legend(figure, list(all_axes), heat, scale)
    put_title(figure, f"{heat.prompt}: score {heat.score_label}", heat.method)
    where = f"slice {at[0]}, row {at[1]}, column {at[2]}"
    cut = f"cut through {'the peak' if voxel is None else 'the given voxel'} ({where}), heat {number(heat.values[at])}"
    put_notice(figure, said(heat, scale), cut + truth_key(truth))
    return figure


def plane(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """One cut of a volume (slices, rows, columns) as a picture: coronal and sagittal cuts have the head up."""
    return head_up(np.take(volume, index, axis=axis), axis)


def head_up(picture: np.ndarray, axis: int) -> np.ndarray:
    """A cut or projection along an axis: slices run from feet to head, rows of a picture from the top."""
    return picture if axis == 0 else picture[::-1]


def place_in(voxel: Sequence[int], axis: int, slices: int) -> tuple[int, int]:
    """Row and column of a voxel (slice, row, column) in the cut or projection along an axis, of so many slices."""
    down, across = (index for other, index in enumerate(voxel) if other != axis)
    return (down if axis == 0 else slices - 1 - down), across


def _view(
    axes: Axes,
    volume: np.ndarray,
    heat: Heat,
    *,
    at: tuple[int, ...],
    axis: int,
    spacing_mm: Sequence[float],
    style: OverlayStyle,
    truth: Truth | None,
) -> None:
    picture = plane(volume, axis, at[axis])
    down, across = (other for other in range(3) if other != axis)
    show(
        axes, overlay(picture, plane(heat.values, axis, at[axis]), style), aspect=spacing_mm[down] / spacing_mm[across]
    )
    draw_outlines(axes, cut_outlines(truth, axis, at[axis], picture.shape))
    row, column = place_in(at, axis, len(volume))
    for draw, position in ((axes.axhline, row), (axes.axvline, column)):
        draw(position, color="white", linewidth=0.7, linestyle=(0, (4, 4)), alpha=0.7)


def put_letters(axes: Axes, letters: str) -> None:
    """Where the patient's sides are: letters at the left, right, upper and lower edge."""
    for letter, (x, y) in zip(letters, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04))):
        axes.text(x, y, letter, transform=axes.transAxes, **_LETTER)


def cut_outlines(truth: Truth | None, axis: int, index: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Lines around the mask of a volume in one cut of it."""
    return [] if truth is None or truth.mask is None else outlines(Truth(plane(truth.mask, axis, index)), shape)


def truth_key(truth: Truth | None) -> str:
    """What the outline is, if there is one."""
    return "; cyan outline: ground truth" if truth is not None and truth.mask is not None else ""


def check_volume(volume: np.ndarray, heat: Heat, truth: Truth | None) -> None:
    """Refuse what is no volume, or a map or mask of another grid."""
    mask = None if truth is None else truth.mask
    shapes = {part.shape for part in (volume, heat.values, mask) if part is not None}
    if volume.ndim != 3 or len(shapes) != 1:
        raise ValueError(f"volume, map and mask have shapes {sorted(shapes)}: give one grid (slices, rows, columns).")
    if truth is not None and truth.boxes:
        raise ValueError("boxes have no slices: give the ground truth of a volume as a mask.")
