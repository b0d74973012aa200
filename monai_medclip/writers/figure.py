"""Overlay figure: image and tinted image side by side, with the legend in units of the map."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from monai_medclip.writers.heat import Heat, number
from monai_medclip.writers.overlay import (
    DEFAULT_STYLE,
    OverlayStyle,
    full_scale,
    legend_colors,
    overlay,
    rgb_image,
    statements,
)
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.truth import Truth, draw_outlines, outlines

__all__ = ["overlay_figure"]

HEIGHT_INCHES = 4.6


def overlay_figure(
    image: np.ndarray, heat: Heat, *, style: OverlayStyle = DEFAULT_STYLE, truth: Truth | None = None
) -> Figure:
    """One map over one image: left the image alone, right the tint, both with the outline of the ground truth.

    Args:
        image: gray (rows, columns) or RGB (rows, columns, 3), 0 to 1, in display order; see `unit_image`.
        heat: the map (rows, columns).
        style: see `OverlayStyle`.
        truth: where the finding really is, if that is known.

    Returns:
        A figure for `save_figure`.

    Raises:
        ValueError: image, map and mask differ in shape, or hold what cannot be drawn.
    """
    rows, columns = image.shape[:2]
    width = float(np.clip(HEIGHT_INCHES * columns / rows, 2.6, 9.0))
    figure = new_figure((2 * width + 1.6, HEIGHT_INCHES + 1.5))
    plain, tinted = figure.subplots(1, 2)
    lines = outlines(truth, image.shape[:2])
    for axes, picture, title in (
        (plain, rgb_image(image), "image"),
        (tinted, overlay(image, heat.values, style), "tinted"),
    ):
        show(axes, picture)
        draw_outlines(axes, lines)
        axes.set_title(title, fontsize=9, color="0.25")
    draw_legend(figure, tinted, heat, style)
    put_title(figure, f"{heat.prompt}: score {heat.score_label}", heat.method)
    put_notice(figure, said(heat, style), "cyan outline: ground truth" if lines else "")
    return figure


def show(axes: Axes, picture: np.ndarray, *, aspect: float = 1.0) -> None:
    """An RGB picture (rows, columns, 3) with nothing around it, pixels as they are."""
    axes.imshow(picture, interpolation="nearest", aspect=aspect)
    axes.set(xticks=[], yticks=[], xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    axes.set_autoscale_on(False)


def draw_legend(figure: Figure, axes: Any, heat: Heat, style: OverlayStyle) -> None:
    """A color bar in units of the map: the tint as it looks over middle gray, plain gray below the threshold."""
    colors, low, high = legend_colors(heat.values, style)
    bar = figure.colorbar(ScalarMappable(Normalize(low, high), colors), ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(f"heat ({heat.unit_label})", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    edge = style.threshold * full_scale(heat.values, style)
    for level in {edge, -edge if style.signed else edge}:
        bar.ax.axhline(level, color="black", linewidth=1.2)
    bar.ax.set_title(f"{number(high)}", fontsize=7, color="0.25")


def put_title(figure: Figure, headline: str, method: str) -> None:
    """Prompt and score, wrapped to the figure's width so that nothing is cut, and the method below."""
    width = max(24, int(figure.get_figwidth() * 9.5))
    wrapped = "\n".join(textwrap.wrap(headline, width)) or headline
    figure.suptitle(f"{escaped(wrapped)}\n{escaped(method)}", fontsize=11)


def said(heat: Heat, style: OverlayStyle) -> str:
    """The statements of a map in one line."""
    return escaped("; ".join(f"{name}: {what}" for name, what in statements(heat, style).items()))


def escaped(text: str) -> str:
    """Text in which matplotlib finds no formula: a prompt may well hold dollar signs."""
    return text.replace("$", r"\$")
