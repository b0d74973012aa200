"""Equal steps of heat are equal steps of color, and black letters stay legible on them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from monai_medclip.writers.colors import COLOR_MAPS, SIGNED_COLOR_MAP, color_map


def signed_colors() -> np.ndarray:
    return color_map(SIGNED_COLOR_MAP)(np.linspace(0, 1, 255))[:, :3]


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_lightness_rises_evenly_with_heat(name):
    lightness = rgb2lab(color_map(name)(np.linspace(0, 1, 255))[None, :, :3])[0, :, 0]
    lightness = lightness[:128] if name == SIGNED_COLOR_MAP else lightness
    assert (np.diff(lightness) > -0.05).all()
    assert np.corrcoef(lightness, np.arange(len(lightness)))[0, 1] > 0.99


def test_steps_of_the_signed_map_look_equal():
    lab = rgb2lab(signed_colors()[None])[0]
    steps = np.linalg.norm(np.diff(lab[:128:8], axis=0), axis=1), np.linalg.norm(np.diff(lab[127::8], axis=0), axis=1)
    assert max(step.max() / step.min() for step in steps) < 1.6


def test_the_signed_map_is_white_at_zero_and_as_strong_on_either_side():
    colors = signed_colors()
    np.testing.assert_allclose(colors[127], 1, atol=1e-3)
    lightness = rgb2lab(colors[None])[0, :, 0]
    np.testing.assert_allclose(lightness, lightness[::-1], atol=3)
    assert colors[0, 2] > 0.8 > 0.5 > colors[0, 0]  # against: blue
    assert colors[-1, 0] > 0.8 > 0.4 > colors[-1, 2]  # for: orange


def test_no_color_of_the_signed_map_was_clipped():
    colors = signed_colors()
    assert (np.delete(colors, 127, axis=0) < 1).all()
    assert (colors > 0).all()


def test_black_letters_have_contrast_on_every_tint():
    colors = signed_colors()
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert ((luminance + 0.05) / 0.05).min() > 4.5  # WCAG 2.1, 1.4.3


@pytest.mark.parametrize("name", ["jet", "hot", "turbo", "bwr"])
def test_rainbows_are_refused(name):
    with pytest.raises(ValueError, match="not perceptually uniform"):
        color_map(name)
