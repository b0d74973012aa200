"""Small pictures keep shape and brightness."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.writers.thumbnails import thumbnail


def test_the_longer_edge_fits_and_the_shape_stays() -> None:
    image = np.zeros((200, 100))
    image[:100] = 1
    small = thumbnail(image, edge=40)
    assert small.shape == (40, 20, 3)
    np.testing.assert_allclose(small[:15], 1)
    np.testing.assert_allclose(small[25:], 0)


def test_small_pictures_stay_as_they_are() -> None:
    colors = np.random.default_rng(0).integers(0, 256, (6, 9, 3)) / 255
    np.testing.assert_allclose(thumbnail(colors, edge=9), colors)


def test_a_volume_shows_its_middle_slice() -> None:
    volume = np.stack([np.full((4, 5), level) for level in (0.0, 0.2, 1.0)])
    np.testing.assert_allclose(thumbnail(volume), 0.2)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="not within 0 to 1"):
        thumbnail(np.full((3, 3), 2.0))
    with pytest.raises(ValueError, match="edge=0"):
        thumbnail(np.zeros((3, 3)), edge=0)
