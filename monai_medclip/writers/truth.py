"""Ground truth: masks and boxes as outlines, the same in every picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Truth"]

TRUTH_COLOR = "#00e5ff"  # cyan: in none of the sequential color maps


class Truth(NamedTuple):
    """Where a finding really is, in the image's own rows and columns."""

    mask: np.ndarray | None = None  # (rows, columns) or (slices, rows, columns), truthy inside
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # x0 <= column < x1, y0 <= row < y1 as (x0, y0, x1, y1)


def outlines(truth: Truth | None, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Closed lines around masks and boxes.

    Args:
        truth: mask and boxes of a 2D image, or nothing.
        shape: the image's (rows, columns).

    Returns:
        lines (n, 2) of x, y, with pixel centers at whole numbers.

    Raises:
        ValueError: the mask's shape is another.
    """
    if truth is None:
        return []
    boxes = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]) - 0.5 for x0, y0, x1, y1 in truth.boxes]
    if truth.mask is None:
        return boxes
    if truth.mask.shape != tuple(shape):
        raise ValueError(
            f"the ground truth has shape {truth.mask.shape}, the image {tuple(shape)}: give them one grid."
        )
    return boxes + _mask_lines(np.asarray(truth.mask) > 0)


def _mask_lines(mask: np.ndarray) -> list[np.ndarray]:
    if not mask.any():
        return []
    framed = np.pad(mask, 1).astype(float)  # so that lines close at the image's edge
    paths = Figure().subplots().contour(framed, levels=[0.5]).get_paths()
    return [np.asarray(polygon, float) - 1 for path in paths for polygon in path.to_polygons(closed_only=False)]


def draw_outlines(axes: Axes, lines: list[np.ndarray]) -> None:
    """Cyan with a dark rim, visible on bone, on air and on the tint."""
    for line in lines:
        axes.plot(*line.T, color="black", linewidth=2.6, alpha=0.6)
        axes.plot(*line.T, color=TRUTH_COLOR, linewidth=1.3)
