"""A hot patch tints its own corner and nothing else; below the threshold the image stays what it was."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch

from monai_medclip.writers.heat import Heat
from monai_medclip.writers.overlay import (
    OverlayStyle,
    full_scale,
    legend_colors,
    overlay,
    statements,
    tint,
    unit_image,
)

ROWS, COLUMNS = 30, 50
CORNERS = {
    "top left": (slice(0, 4), slice(0, 7)),
    "top right": (slice(0, 4), slice(43, 50)),
    "bottom left": (slice(26, 30), slice(0, 7)),
    "bottom right": (slice(26, 30), slice(43, 50)),
}


def gray() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(ROWS, COLUMNS))


def patch(corner: str, value: float = 2.0) -> np.ndarray:
    heat = np.zeros((ROWS, COLUMNS))
    heat[CORNERS[corner]] = value
    return heat


@pytest.mark.parametrize("corner", CORNERS)
def test_one_hot_patch_tints_exactly_its_corner(corner):
    image, style = gray(), OverlayStyle(color_map="viridis", opacity=0.6)
    shown = overlay(image, patch(corner), style)
    assert shown.shape == (ROWS, COLUMNS, 3)
    hottest = np.array(matplotlib.colormaps["viridis"](1.0)[:3])
    np.testing.assert_allclose(shown[CORNERS[corner]], 0.4 * image[CORNERS[corner]][..., None] + 0.6 * hottest)
    tinted = (shown != image[..., None]).any(-1)
    assert np.array_equal(tinted, patch(corner) > 0)


@pytest.mark.parametrize("color", [False, True])
def test_below_the_threshold_pixels_are_the_image_exactly(color):
    image = np.random.default_rng(1).uniform(size=(ROWS, COLUMNS, 3)) if color else gray()
    heat = np.linspace(0, 1, ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    shown = overlay(image, heat, OverlayStyle(threshold=0.4))
    base = image if color else np.repeat(image[..., None], 3, axis=-1)
    assert np.array_equal(shown[heat < 0.4], base[heat < 0.4])
    assert (shown[heat >= 0.4] != base[heat >= 0.4]).any(-1).all()


def test_strength_follows_the_value_and_zero_is_never_tinted():
    color = tint(np.array([[0.0, 0.5, 1.0, -1.0]]), OverlayStyle(opacity=0.8, threshold=0))
    np.testing.assert_allclose(color[0, :, 3], [0, 0.4, 0.8, 0])


def test_a_fixed_limit_makes_maps_comparable():
    weak = np.array([[0.5, 1.0]])
    style = OverlayStyle(opacity=1.0, threshold=0.0, limit=2.0)
    np.testing.assert_allclose(tint(weak, style)[0, :, 3], [0.25, 0.5])
    assert tint(4 * weak, style)[0, 1, 3] == 1.0
    assert "values beyond 2 look alike" in statements(Heat(4 * weak, "nodule", "Chefer", 1.0), style)["tinted"]


def test_a_signed_map_shows_both_sides_in_their_colors():
    style = OverlayStyle(color_map="blue-white-orange", threshold=0.2, opacity=1.0)
    heat = np.array([[-1.0, -0.1, 0.5, 2.0]])
    color = tint(heat, style)
    np.testing.assert_allclose(color[0, :, 3], [0.5, 0, 0.25, 1])
    assert color[0, 0, 2] > color[0, 0, 0]  # blue: against
    assert color[0, 3, 0] > color[0, 3, 2]  # orange: for
    assert legend_colors(heat, style)[1:] == (-2, 2)
    hidden = statements(Heat(heat, "nodule", "Occlusion", 1.0), OverlayStyle())["tinted"]
    assert "negative values are not tinted" in hidden


def test_the_legend_is_the_tint_itself_over_middle_gray():
    heat, style = patch("top left", 3.7), OverlayStyle(threshold=0.25)
    colors, low, high = legend_colors(heat, style)
    assert (low, high) == (0, 3.7)
    np.testing.assert_allclose(colors(0.2)[:3], 0.5)
    expected = overlay(np.full((1, 2), 0.5), np.array([[3.7, 0.5 * 3.7]]), style)[0]
    np.testing.assert_allclose([colors(1.0)[:3], colors(0.5)[:3]], expected, atol=0.01)


def test_an_empty_map_tints_nothing_and_says_so():
    image = gray()
    assert np.array_equal(overlay(image, np.zeros_like(image)), np.repeat(image[..., None], 3, axis=2))
    assert full_scale(np.zeros((2, 2)), OverlayStyle()) == 1
    said = statements(Heat(np.zeros((2, 2)), "nodule", "Chefer", 0.0), OverlayStyle())
    assert said["tinted"] == "nothing: the map is zero everywhere"


def test_statements_name_range_threshold_and_color_map():
    said = statements(Heat(patch("top left"), "nodule", "Chefer", 0.3, units="cosine"), OverlayStyle(threshold=0.1))
    assert said["map"] == "raw, in cosine"
    assert said["values"] == "0 to 2, total heat 56"  # 4 x 7 pixels of 2
    assert said["tinted"] == "from 0.2 (10 % of full scale 2)"
    assert said["color map"].startswith("plasma, 65 %")


def test_unit_image_undoes_the_encoders_normalization():
    picture = torch.rand(1, 4, 6)
    np.testing.assert_allclose(unit_image((picture - 0.5) / 0.25, mean=[0.5], std=[0.25]), picture[0], atol=1e-6)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    color = torch.rand(3, 4, 6)
    normalized = (color - mean[:, None, None]) / std[:, None, None]
    shown = unit_image(normalized, mean=mean.tolist(), std=std.tolist())
    np.testing.assert_allclose(shown, color.permute(1, 2, 0), atol=1e-6)
    tripled = (picture.repeat(3, 1, 1) - mean[:, None, None]) / std[:, None, None]
    assert unit_image(tripled, mean=mean.tolist(), std=std.tolist()).shape == (4, 6)  # gray stays gray
    windows = torch.rand(3, 2, 4, 6)
    np.testing.assert_allclose(unit_image(windows, channel=1), windows[1])
    with pytest.raises(ValueError, match="which channel"):
        unit_image(windows)
    with pytest.raises(ValueError, match="give the encoder's own"):
        unit_image(normalized)


@pytest.mark.parametrize(
    ("image", "heat", "message"),
    [
        (np.zeros((30, 50)), np.zeros((50, 30)), "one grid"),
        (np.full((30, 50), 3.0), np.zeros((30, 50)), "not within 0 to 1"),
        (np.zeros((1, 30, 50)), np.zeros((30, 50)), "the image has shape"),
        (np.zeros((30, 50)), np.full((30, 50), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_drawn_is_refused(image, heat, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, heat)


@pytest.mark.parametrize(
    "style", [OverlayStyle(color_map="jet"), OverlayStyle(opacity=0), OverlayStyle(threshold=1), OverlayStyle(limit=0)]
)
def test_styles_out_of_range_are_refused(style):
    with pytest.raises(ValueError):
        tint(np.ones((2, 2)), style)
