"""Pictures for a browser: cuts and tints as PNG data URIs, and in words where a map is hot."""

from __future__ import annotations

import base64
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from numpy.typing import NDArray
from PIL import Image

from monai_medclip.writers import OverlayStyle, tint

__all__ = [
    "Peak",
    "cut",
    "heat_ninths",
    "legend_uri",
    "peak_of",
    "picture_uri",
    "pixel_spacing_mm",
    "place_in_words",
    "tint_uri",
]

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "center", "right")


class Peak(NamedTuple):
    """Where a map is highest, in display order."""

    slice: int  # 0 for a radiograph
    row: int
    column: int
    value: float


def peak_of(values: NDArray[np.float32]) -> Peak:
    """The highest pixel of a map (rows, columns) or (slices, rows, columns); the first such one."""
    index = np.unravel_index(int(values.argmax()), values.shape)
    first = int(index[0]) if values.ndim == 3 else 0
    return Peak(first, int(index[-2]), int(index[-1]), float(values[index]))


def cut(values: NDArray[np.float32], index: int, *, volume: bool) -> NDArray[np.float32]:
    """One slice of a volume (slices, rows, columns); a radiograph's picture as it is.

    Raises:
        ValueError: there is no such slice.
    """
    count = len(values) if volume else 1
    if not 0 <= index < count:
        raise ValueError(f"slice {index}: this study has {count}, counted from 0. Ask for one of them.")
    return values[index] if volume else values


def picture_uri(picture: NDArray[np.float32]) -> str:
    """A picture as a PNG data URI.

    Args:
        picture: gray (rows, columns), RGB (rows, columns, 3) or RGBA (rows, columns, 4), 0 to 1.
    """
    stream = BytesIO()
    Image.fromarray((np.asarray(picture) * 255).round().astype(np.uint8)).save(stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def tint_uri(values: NDArray[np.float32], *, full_scale: float, threshold: float = 0.0) -> str:
    """A map as a tint to lay over its picture, for a browser that applies opacity and a higher threshold itself.

    Args:
        values: one slice of the map (rows, columns), raw.
        full_scale: the map value whose pixels are opaque, positive; of the whole map, so that slices can be compared.
        threshold: share of full scale, 0 to below 1, under which pixels are clear.

    Returns:
        RGBA PNG data URI; alpha / 255 is the pixel's share of full scale.
    """
    style = OverlayStyle(opacity=1.0, threshold=threshold, limit=full_scale)
    return picture_uri(tint(values, style))


@cache
def legend_uri() -> str:
    """The tints from zero to full scale, as a strip (1, 256) like those of `tint_uri`."""
    return tint_uri(np.linspace(0, 1, 256, dtype=np.float32)[None], full_scale=1.0)


def pixel_spacing_mm(image: MetaTensor) -> tuple[float, float]:
    """Distance of rows and of columns (mm) of an image (C, *spatial) in display order, from its affine."""
    spacing = affine_to_spacing(image.affine.cpu(), r=image.ndim - 1)
    return float(spacing[-2]), float(spacing[-1])


def place_in_words(row: int, column: int, shape: tuple[int, int]) -> str:
    """Which ninth of a picture (rows, columns) a pixel lies in: "the left lower third of the picture" and so on."""
    down, across = ROWS[3 * row // shape[0]], COLUMNS[3 * column // shape[1]]
    if (down, across) == ("middle", "center"):
        return "the center of the picture"
    return f"the {across} {down} third of the picture"


def heat_ninths(values: NDArray[np.float32]) -> list[list[float]]:
    """How positive heat spreads over the ninths of a picture, for those who do not see it.

    Args:
        values: map (rows, columns), at least 3 x 3.

    Returns:
        3 x 3 shares, upper row first, that sum to 1; zeros for a map without positive heat.
    """
    heat = np.maximum(np.asarray(values, np.float64), 0)
    total = heat.sum() or 1.0
    return [[float(part.sum() / total) for part in _thirds(band, axis=1)] for band in _thirds(heat, axis=0)]


def _thirds(values: NDArray[np.float64], *, axis: int) -> list[NDArray[np.float64]]:
    """Split where `place_in_words` changes its word."""
    count = values.shape[axis]
    return np.split(values, [-(-count // 3), -(-2 * count // 3)], axis=axis)
