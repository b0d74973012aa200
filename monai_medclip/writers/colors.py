"""Color maps in which equal steps of heat look like equal steps of color."""

from __future__ import annotations

from functools import cache

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, ListedColormap

__all__ = ["COLOR_MAPS", "SIGNED_COLOR_MAP", "color_map"]

SEQUENTIAL = ("plasma", "viridis", "inferno", "magma", "cividis")
SIGNED_COLOR_MAP = "blue-white-orange"
"""For maps and words with a sign: against is blue, for is orange, zero is white."""

COLOR_MAPS = (*SEQUENTIAL, SIGNED_COLOR_MAP)
_STEPS = 255  # odd, so that one of them is exactly zero

_END_LIGHTNESS, _CHROMA = 0.70, 0.125  # of OKLab; both ends inside sRGB, and black text legible on either
_BLUE, _ORANGE = np.deg2rad(250.0), np.deg2rad(60.0)  # hues that color-blind readers tell apart


def color_map(name: str) -> Colormap:
    """A perceptually uniform color map.

    Args:
        name: one of `COLOR_MAPS`.

    Raises:
        ValueError: another name. Rainbows such as jet draw borders where the map has none.
    """
    if name == SIGNED_COLOR_MAP:
        return _signed()
    if name not in SEQUENTIAL:
        raise ValueError(f"color_map={name!r} is not perceptually uniform: use one of {', '.join(COLOR_MAPS)}.")
    return matplotlib.colormaps[name]


@cache
def _signed() -> Colormap:
    """Straight lines in OKLab from white to two colors of equal lightness and chroma, so that steps look equal."""
    signed = np.linspace(-1, 1, _STEPS)
    hue = np.where(signed < 0, _BLUE, _ORANGE)
    strength = np.abs(signed)
    lab = np.stack(
        [
            1 - (1 - _END_LIGHTNESS) * strength,
            _CHROMA * strength * np.cos(hue),
            _CHROMA * strength * np.sin(hue),
        ],
        axis=-1,
    )
    return ListedColormap(np.clip(_oklab_to_srgb(lab), 0, 1), SIGNED_COLOR_MAP)


def _oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """OKLab (..., 3) to gamma-encoded sRGB (..., 3).

    References:
        Ottosson, A perceptual color space for image processing, 2020; gamma from IEC 61966-2-1.
    """
    to_lms = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.707614701],
        ]
    )
    linear = np.maximum((lab @ to_lms.T) ** 3 @ to_rgb.T, 0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
