"""Photographs keep their colors and their place."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import Compose, Invertd
from PIL import Image

from monai_medclip.transforms import BadInputError, DisplayOrderd, FitImaged, LoadDermoscopyd


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_three_channels_in_display_order(tmp_path, mode):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:5, :8] = (255, 255, 255) if mode == "L" else (255, 51, 0)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "lesion.png")
    pipeline = Compose([LoadDermoscopyd("image"), DisplayOrderd("image")])
    out = pipeline({"image": str(tmp_path / "lesion.png")})
    assert out["image"].shape == (3, 20, 30)
    np.testing.assert_allclose(out["image"][:, 0, 0].numpy(), [1, 1, 1] if mode == "L" else [1, 0.2, 0])
    assert not out["image"][:, 10, 10].any()
    assert Invertd("image", transform=pipeline, orig_keys="image")(out)["image"].shape == (3, 30, 20)


def test_real_lesion_fits_the_network(shared_data):
    path = str(next((shared_data / "derm_isic_uda1").rglob("*.jpg")))
    out = Compose([LoadDermoscopyd("image"), FitImaged("image", (64, 64)), DisplayOrderd("image")])({"image": path})
    assert out["image"].shape == (3, 64, 64)
    assert out["image"][0].mean() > out["image"][2].mean()  # skin is redder than it is blue


@pytest.mark.parametrize("kind", ["missing", "constant", "text"])
def test_bad_photographs_are_named(tmp_path, kind):
    path = tmp_path / "lesion.png"
    if kind == "constant":
        Image.fromarray(np.full((9, 9, 3), 8, np.uint8)).save(path)
    if kind == "text":
        path.write_text("no image")
    with pytest.raises(BadInputError) as caught:
        LoadDermoscopyd("image")({"image": str(path)})
    assert caught.value.file == str(path)
    assert caught.value.remedy
