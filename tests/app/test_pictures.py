"""Pictures for the browser: exact pixels, and places in words that agree with them."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_medclip.app.pictures import (
    ROWS,
    cut,
    heat_ninths,
    legend_uri,
    peak_of,
    picture_uri,
    pixel_spacing_mm,
    place_in_words,
    tint_uri,
)
from monai_medclip.writers import OverlayStyle, tint


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def test_a_picture_comes_back_as_it_was() -> None:
    gray = (np.arange(20).reshape(4, 5) / 19).astype(np.float32)
    assert np.array_equal(pixels(picture_uri(gray)), np.round(gray * 255))
    color = np.stack([gray, gray[::-1], gray * 0], axis=-1)
    assert np.array_equal(pixels(picture_uri(color)), np.round(color * 255))


def test_alpha_is_the_share_of_full_scale_and_colors_are_those_of_our_overlays() -> None:
    values = np.array([[-1.0, 0.0, 0.5], [1.0, 2.0, 4.0]], np.float32)
    found = pixels(tint_uri(values, full_scale=4.0))
    assert found[..., 3].tolist() == [[0, 0, 32], [64, 128, 255]]
    expected = tint(values, OverlayStyle(opacity=1, threshold=0))[..., :3]
    assert np.array_equal(found[..., :3], np.round(expected * 255))
    assert pixels(tint_uri(values, full_scale=4.0, threshold=0.5))[..., 3].tolist() == [[0, 0, 0], [0, 128, 255]]


def test_the_legend_runs_from_clear_to_full() -> None:
    strip = pixels(legend_uri())
    assert strip.shape == (1, 256, 4)
    assert np.array_equal(strip[0, :, 3], np.arange(256))


def test_the_peak_of_a_volume_and_of_a_film() -> None:
    volume = np.zeros((3, 4, 5), np.float32)
    volume[1, 2, 3] = 7
    assert peak_of(volume) == (1, 2, 3, 7.0)
    assert peak_of(volume[1]) == (0, 2, 3, 7.0)


def test_a_slice_that_is_not_there_is_refused() -> None:
    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(cut(volume, 1, volume=True), volume[1])
    assert cut(volume, 0, volume=False) is volume
    for index, is_volume in ((2, True), (-1, True), (1, False)):
        with pytest.raises(ValueError, match=f"slice {index}: this study has"):
            cut(volume, index, volume=is_volume)


def test_spacing_is_that_of_rows_and_columns() -> None:
    film = MetaTensor(torch.zeros(1, 4, 5), affine=torch.diag(torch.tensor([0.2, 0.3, 1.0, 1.0])))
    volume = MetaTensor(torch.zeros(1, 3, 4, 5), affine=torch.diag(torch.tensor([5.0, 0.7, 0.8, 1.0])))
    assert pixel_spacing_mm(film) == pytest.approx((0.2, 0.3))
    assert pixel_spacing_mm(volume) == pytest.approx((0.7, 0.8))


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "the left upper third of the picture"),
        (9, 0, "the left lower third of the picture"),
        (5, 19, "the right middle third of the picture"),
        (5, 10, "the center of the picture"),
    ],
)
def test_places_in_words(row: int, column: int, words: str) -> None:
    assert place_in_words(row, column, (10, 20)) == words


@pytest.mark.parametrize("shape", [(9, 12), (10, 20), (7, 5), (3, 3)])
def test_a_pixel_lies_in_the_ninth_that_its_words_name(shape: tuple[int, int]) -> None:
    for row in range(shape[0]):
        for column in range(shape[1]):
            values = np.full(shape, -1.0, np.float32)
            values[row, column] = 2
            ninths = np.array(heat_ninths(values))
            assert ninths.sum() == 1
            down, across = (int(at) for at in np.argwhere(ninths)[0])
            words = place_in_words(row, column, shape)
            assert ROWS[down] in words or (words == "the center of the picture" and (down, across) == (1, 1))
            assert ("left", "center", "right")[across] in words
    assert np.sum(heat_ninths(np.full(shape, -1.0, np.float32))) == 0
