"""Thumbnails: small pictures for pages that hold many of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from monai_medclip.writers.overlay import rgb_image

__all__ = ["thumbnail"]


def thumbnail(image: np.ndarray, *, edge: int = 240) -> np.ndarray:
    """A picture whose longer edge has at most so many pixels; a smaller one stays as it is.

    Args:
        image: gray (rows, columns), RGB (rows, columns, 3) or a volume (slices, rows, columns), whose middle slice is
            shown; 0 to 1, in display order; see `unit_image`.
        edge: pixels, at least 1.

    Returns:
        RGB (rows, columns, 3), 0 to 1, in 256 levels.

    Raises:
        ValueError: another shape or range.
    """
    if edge < 1:
        raise ValueError(f"edge={edge} must be at least 1 pixel.")
    image = np.asarray(image)
    flat = image[len(image) // 2] if image.ndim == 3 and image.shape[2] != 3 else image
    picture = Image.fromarray((rgb_image(flat) * 255).round().astype(np.uint8))
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return np.asarray(picture) / 255
