"""Maximum intensity projection: all heat of a volume in three pictures, over the volume seen through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from monai_medclip.writers.figure import draw_legend, put_title, said, show
from monai_medclip.writers.heat import Heat, number
from monai_medclip.writers.overlay import DEFAULT_STYLE, OverlayStyle, full_scale, overlay
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.truth import Truth, draw_outlines, outlines
from monai_medclip.writers.volume import VIEWS, check_volume, head_up, peak_voxel, place_in, put_letters, truth_key

__all__ = ["mip_figure"]

_RING_POINTS = 13.0


def mip_figure(
    volume: np.ndarray,
    heat: Heat,
    *,
    spacing_mm: Sequence[float] = (1, 1, 1),
    style: OverlayStyle = DEFAULT_STYLE,
    truth: Truth | None = None,
) -> Figure:
    """The strongest heat along each of the three axes, a ring around the map's peak, head up, right at the left.

    Behind it lies the mean of the volume along the axis, as an X-ray would show it, stretched to the full gray scale.

    Args:
        volume: gray (slices, rows, columns), 0 to 1, in CT display order.
        heat: the map (slices, rows, columns).
        spacing_mm: between slices, rows and columns.
        style: see `OverlayStyle`; full scale is that of the whole volume.
        truth: mask of the finding (slices, rows, columns), if there is one; the outline is that of its shadow.

    Raises:
        ValueError: shapes differ, or the volume is none.
    """
    check_volume(volume, heat, truth)
    peak = peak_voxel(heat.values)
    scale = style._replace(limit=full_scale(heat.values, style))
    figure = new_figure((12.6, 5.4))
    sizes_mm = [n * mm for n, mm in zip(volume.shape, spacing_mm)]
    all_axes = figure.subplots(1, 3, width_ratios=[sizes_mm[2], sizes_mm[2], sizes_mm[1]])
    for axes, (name, axis, letters) in zip(all_axes, VIEWS):
        hottest = head_up(strongest(heat.values, axis, signed=style.signed), axis)
        down, across = (mm for other, mm in enumerate(spacing_mm) if other != axis)
        show(axes, overlay(head_up(seen_through(volume, axis), axis), hottest, scale), aspect=down / across)
        if truth is not None and truth.mask is not None:
            shadow = head_up((truth.mask > 0).max(axis=axis), axis)
            draw_outlines(axes, outlines(Truth(shadow), shadow.shape))
        row, column = place_in(peak, axis, len(volume))
        for color, width in (("black", 2.6), ("white", 1.3)):
            axes.plot(column, row, "o", ms=_RING_POINTS, mfc="none", mec=color, mew=width)
        axes.set_title(
            f"{name}, from {'the feet' if axis == 0 else 'the front' if axis == 1 else 'the left'}", fontsize=9
        )
        put_letters(axes, letters)
    draw_legend(figure, list(all_axes), heat, scale)
    put_title(figure, f"{heat.prompt}: score {heat.score_label}", heat.method)
    where = f"slice {peak[0]}, row {peak[1]}, column {peak[2]}"
    shown = f"maximum of the heat along each axis, over the mean of the image; ring: the peak ({where})"
    put_notice(figure, said(heat, scale), f"{shown}, heat {number(heat.values[peak])}{truth_key(truth)}")
    return figure


def strongest(values: np.ndarray, axis: int, *, signed: bool = False) -> np.ndarray:
    """The largest value along an axis; if signed, the one farthest from zero, with its sign."""
    largest = values.max(axis=axis)
    if not signed:
        return np.asarray(largest)
    smallest = values.min(axis=axis)
    return np.where(-smallest > largest, smallest, largest)


def seen_through(volume: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis, stretched to 0 to 1; zeros if it is the same everywhere."""
    mean = volume.mean(axis=axis, dtype=np.float64)
    low, high = float(mean.min()), float(mean.max())
    return (mean - low) / (high - low) if high > low else np.zeros_like(mean)
