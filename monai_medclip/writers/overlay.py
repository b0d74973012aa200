"""Overlay: a map as a tint over its image, nothing tinted below a stated threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import ListedColormap
from torch import Tensor

from monai_medclip.writers.colors import SIGNED_COLOR_MAP, color_map
from monai_medclip.writers.heat import RAW, Heat, number

__all__ = ["OverlayStyle", "full_scale", "legend_colors", "overlay", "statements", "tint", "unit_image"]


_SLACK = 5e-3  # of [0, 1]: less than two of 255 gray levels, what interpolation and half precision cost


class OverlayStyle(NamedTuple):
    """How maps are tinted; pictures state all of it."""

    color_map: str = "plasma"  # one of COLOR_MAPS; "blue-white-orange" also shows what speaks against
    opacity: float = 0.65  # of the tint at full scale, in proportion below it
    threshold: float = 0.25  # share of full scale below which a pixel keeps its gray value
    limit: float | None = None  # map value at full scale; None: the largest of the map

    @property
    def signed(self) -> bool:
        """Whether negative values are tinted too."""
        return self.color_map == SIGNED_COLOR_MAP

    def checked(self) -> OverlayStyle:
        """Itself.

        Raises:
            ValueError: a value outside its range, or a color map that is not perceptually uniform.
        """
        color_map(self.color_map)
        if not (0 < self.opacity <= 1 and 0 <= self.threshold < 1):
            raise ValueError(f"opacity={self.opacity} must be in (0, 1], threshold={self.threshold} in [0, 1).")
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"limit={self.limit} must be positive: it is the map value that gets the full color.")
        return self


DEFAULT_STYLE = OverlayStyle()


def full_scale(values: np.ndarray, style: OverlayStyle) -> float:
    """The map value that gets the full color, positive; 1 for a map with nothing to tint."""
    if style.limit is not None:
        return style.limit
    largest = float((np.abs(values) if style.signed else values).max())
    return largest if largest > 0 else 1.0


def tint(values: np.ndarray, style: OverlayStyle = DEFAULT_STYLE) -> np.ndarray:
    """The colors to lay over an image.

    Args:
        values: map (rows, columns), finite, in display order.
        style: see `OverlayStyle`.

    Returns:
        RGBA (rows, columns, 4) in [0, 1]; alpha is 0 below the threshold, else in proportion to the value.

    Raises:
        ValueError: the map is not finite.
    """
    style = style.checked()
    if not np.isfinite(values).all():
        raise ValueError("the map has NaN or infinity: nothing honest can be drawn from that.")
    share = np.clip(np.asarray(values, np.float64) / full_scale(values, style), -1 if style.signed else 0, 1)
    color = color_map(style.color_map)((share + 1) / 2 if style.signed else share)  # (rows, columns, 4)
    strength = np.abs(share)
    color[..., 3] = np.where((strength >= style.threshold) & (strength > 0), style.opacity * strength, 0)
    return color


def overlay(image: np.ndarray, values: np.ndarray, style: OverlayStyle = DEFAULT_STYLE) -> np.ndarray:
    """An image with a map as a tint.

    Args:
        image: gray (rows, columns) or RGB (rows, columns, 3), 0 to 1, in display order.
        values: map (rows, columns).
        style: see `OverlayStyle`.

    Returns:
        RGB (rows, columns, 3) in [0, 1]; below the threshold exactly the image.

    Raises:
        ValueError: image and map differ in shape, or either has values that cannot be drawn.
    """
    base = rgb_image(image)
    if base.shape[:2] != values.shape:
        raise ValueError(f"the image has {base.shape[:2]} (rows, columns), the map {values.shape}: give them one grid.")
    color = tint(values, style)
    alpha = color[..., 3:]
    return base * (1 - alpha) + color[..., :3] * alpha


def rgb_image(image: np.ndarray) -> np.ndarray:
    """Gray (rows, columns) or RGB (rows, columns, 3) in [0, 1] as RGB float64."""
    image = np.asarray(image, np.float64)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"the image has shape {image.shape}: give (rows, columns) or (rows, columns, 3).")
    if not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(
            f"image values run from {image.min():.3g} to {image.max():.3g}, not within 0 to 1: see unit_image."
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def unit_image(
    image: Tensor, *, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), channel: int | None = None
) -> np.ndarray:
    """What a network sees as a picture from 0 to 1: the encoder's normalization is undone, nothing is stretched.

    Args:
        image: (C, *spatial) as the network takes it.
        mean: the encoder's, one value or one per channel.
        std: likewise.
        channel: the one to show, such as one window of a CT. None: a gray picture if all channels are alike, colors if
            a 2D image has three.

    Returns:
        gray (*spatial) or RGB (rows, columns, 3).

    Raises:
        ValueError: channels that are neither alike nor colors, or values that are not 0 to 1 then.
    """
    shape = (-1,) + (1,) * (image.ndim - 1)
    values = image.detach().cpu().float().numpy() * np.reshape(std, shape) + np.reshape(mean, shape)
    if not (values.min() >= -_SLACK and values.max() <= 1 + _SLACK):
        raise ValueError(
            f"image values run from {values.min():.3g} to {values.max():.3g}, not within 0 to 1, after undoing mean "
            f"{tuple(mean)} and std {tuple(std)}: give the encoder's own."
        )
    values = np.clip(values, 0, 1)
    if channel is not None or np.allclose(values, values[:1], atol=_SLACK):
        return values[channel or 0]
    if values.ndim != 3 or len(values) != 3:
        raise ValueError(f"an image of shape {tuple(image.shape)} has no colors: say which channel to show.")
    return np.moveaxis(values, 0, -1)


def legend_colors(values: np.ndarray, style: OverlayStyle) -> tuple[ListedColormap, float, float]:
    """The tint as it looks over middle gray, and the range of map values (lowest, highest) that it stands for."""
    high = full_scale(values, style)
    low = -high if style.signed else 0.0
    strip = np.linspace(low, high, 511)[:, None]
    colors = overlay(np.full(strip.shape, 0.5), strip, style._replace(limit=high))
    return ListedColormap(colors[:, 0], style.color_map), low, high


def statements(heat: Heat, style: OverlayStyle) -> dict[str, str]:
    """What a picture of a map has to say about itself, in words."""
    high = full_scale(heat.values, style)
    lowest, highest = float(heat.values.min()), float(heat.values.max())
    if lowest == highest == 0:
        tinted = "nothing: the map is zero everywhere"
    else:
        share = f"{100 * style.threshold:g} % of full scale"
        tinted = f"from {'±' if style.signed else ''}{number(style.threshold * high)} ({share} {number(high)})"
    return {
        "map": f"{heat.scaling}, in {heat.units}" if heat.scaling == RAW else heat.unit_label,
        "values": f"{number(lowest)} to {number(highest)}, total heat {number(heat.total)}",
        "tinted": "; ".join([tinted, *hidden(heat.values, style)]),
        "color map": f"{style.color_map}, {100 * style.opacity:g} % opaque at full scale, less in proportion",
        "legend": "as over middle gray",
    }


def hidden(values: np.ndarray, style: OverlayStyle) -> list[str]:
    """What of a map, or of maps that share a scale, the tint cannot show."""
    notes = ["negative values are not tinted"] if not style.signed and values.min() < 0 else []
    high = full_scale(values, style)
    if (np.abs(values) if style.signed else values).max() > high:
        notes.append(f"values beyond {number(high)} look alike")
    return notes
