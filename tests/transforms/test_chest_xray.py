"""Radiographs of every file type become the same picture; what cannot be used says why."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.transforms import Invertd, RandAffined
from PIL import Image

from monai_medclip.transforms import BadInputError, ChestXrayTransform, LoadRadiographd, NormalizeForEncoderd

from .make_dicom import write_dicom

ROWS, COLUMNS = 40, 60


def film() -> np.ndarray:
    """A ramp from dark (left) to bright (right) with a bright upper left corner, 8 bits."""
    pixels = np.tile(np.linspace(0, 200, COLUMNS), (ROWS, 1)).astype(np.uint8)
    pixels[:5, :8] = 250
    return pixels


def write_film(folder, kind: str) -> str:
    path = folder / f"film.{kind.split('-')[0]}"
    pixels = film()
    if kind == "dcm":
        return write_dicom(path, pixels, modality="CR")
    if kind == "dcm-inverted":
        return write_dicom(path, 255 - pixels, modality="DX", PhotometricInterpretation="MONOCHROME1")
    if kind == "nii.gz":
        path = folder / "film.nii.gz"
        nib.save(nib.Nifti1Image(pixels.T[:, :, None].astype(np.int16) * 10 - 500, np.diag([-1, -1, 1, 1])), path)
        return str(path)
    modes = {"png-rgb": "RGB", "png-rgba": "RGBA", "png-palette": "P", "png-la": "LA"}
    image = Image.fromarray(pixels.astype(np.uint16) * 257) if kind == "png-16bit" else Image.fromarray(pixels)
    image.convert(modes[kind]).save(path) if kind in modes else image.save(path)
    return str(path)


@pytest.mark.parametrize(
    "kind",
    [
        *("png", "png-16bit", "png-rgb", "png-rgba", "png-la", "png-palette"),
        *("jpg", "bmp", "tif", "nii.gz", "dcm", "dcm-inverted"),
    ],
)
def test_every_file_type_gives_the_same_picture(tmp_path, kind):
    image = LoadRadiographd("image", percentiles=(0, 100))({"image": write_film(tmp_path, kind)})["image"]
    assert image.shape == (1, COLUMNS, ROWS)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0].T.numpy(), film() / 250, atol=0.05 if kind == "jpg" else 1e-3)


def test_a_burnt_in_marker_does_not_set_the_contrast(tmp_path):
    pixels = np.tile(np.linspace(50, 100, 200).astype(np.uint8), (200, 1))
    pixels[:5, :5] = 255
    Image.fromarray(pixels).save(tmp_path / "film.png")
    image = LoadRadiographd("image")({"image": str(tmp_path / "film.png")})["image"]
    assert image.min() == 0
    assert image.max() == 1
    assert image[0, 199, 100] > 0.98  # the brightest tissue is white, though the marker is far brighter


def test_padding_only_on_a_few_pixels_falls_back_to_the_full_range(tmp_path):
    pixels = np.zeros((100, 100), np.uint8)
    pixels[0, 0] = 9
    Image.fromarray(pixels).save(tmp_path / "film.png")
    assert LoadRadiographd("image")({"image": str(tmp_path / "film.png")})["image"].max() == 1


def bad_film(folder, kind: str) -> str:
    pixels = film().astype(np.float32)
    if kind == "constant":
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / "film.png")
        return str(folder / "film.png")
    if kind == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(folder / "film.png")
        (folder / "film.png").write_bytes((folder / "film.png").read_bytes()[:4000])
        return str(folder / "film.png")
    if kind == "folder":
        return str(folder)
    if kind == "volume":
        pixels = np.stack([pixels, pixels])
    if kind in ("NaN", "infinite"):
        pixels[3, 4] = {"NaN": np.nan, "infinite": np.inf}[kind]
    nib.save(nib.Nifti1Image(pixels, np.eye(4)), folder / "film.nii.gz")
    return str(folder / "film.nii.gz")


@pytest.mark.parametrize("kind", ["constant", "truncated", "folder", "volume", "NaN", "infinite"])
def test_bad_films_are_named_with_reason_and_remedy(tmp_path, kind):
    path = bad_film(tmp_path, kind)
    with pytest.raises(BadInputError) as caught:
        LoadRadiographd("image")({"image": path})
    assert caught.value.file == path
    assert caught.value.remedy
    words = {"truncated": "cannot be read", "volume": "two axes", "infinite": "infinite"}
    assert words.get(kind, kind) in caught.value.reason


def test_the_whole_pipeline_gives_what_the_encoder_wants_and_goes_back(tmp_path):
    path = write_film(tmp_path, "png")
    pipeline = ChestXrayTransform(image_size=(32, 48), mean=(0.4,), std=(0.2,))
    item = pipeline({"image": path})
    assert item["image"].shape == (1, 32, 48)
    assert item["image"][0, 2, 2] > item["image"][0, 10, 2]  # the marked corner is up and left
    assert item["image"].min() == pytest.approx(-2, abs=0.02)  # (0 - 0.4) / 0.2, hardly blurred
    back = Invertd("image", transform=pipeline, orig_keys="image", nearest_interp=False)(item)["image"]
    error = np.abs(back[0].T.numpy() * 0.2 + 0.4 - film() / 250)
    assert error.shape == (ROWS, COLUMNS)
    assert error.mean() < 0.01  # the corner's edges are blurred, the rest is back


def test_films_of_different_kinds_collate(tmp_path):
    pipeline = ChestXrayTransform(image_size=(32, 32))
    items = []
    for kind in ("png", "nii.gz", "dcm"):
        (tmp_path / kind).mkdir()
        items.append(pipeline({"image": write_film(tmp_path / kind, kind)}))
    batch = next(iter(DataLoader(items, batch_size=3)))
    assert batch["image"].shape == (3, 1, 32, 32)
    assert all(operations[-1]["class"] == "DisplayOrderd" for operations in batch["image"].applied_operations)


def test_training_pipeline_from_a_config_line(tmp_path):
    config = {
        "transform": {
            "_target_": "monai_medclip.transforms.ChestXrayTransform",
            "image_size": [32, 32],
            "mean": [0.5],
            "std": [0.25],
            "random": [{"_target_": "RandAffined", "keys": "image", "prob": 1.0, "rotate_range": 0.1}],
        }
    }
    pipeline = ConfigParser(json.loads(json.dumps(config))).get_parsed_content("transform")
    assert isinstance(pipeline.transforms[2], RandAffined)
    assert pipeline({"image": write_film(tmp_path, "png")})["image"].shape == (1, 32, 32)


def test_gray_meets_three_statistics_exactly():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = NormalizeForEncoderd("image", mean, std)({"image": torch.full((1, 2, 2), 0.5)})["image"]
    assert out.shape == (3, 2, 2)
    np.testing.assert_allclose(out[:, 0, 0].numpy(), [(0.5 - m) / s for m, s in zip(mean, std)], rtol=1e-6)
    color = torch.rand(3, 2, 2)
    torch.testing.assert_close(
        NormalizeForEncoderd("image", [0.5], [0.5])({"image": color})["image"], (color - 0.5) / 0.5
    )
    with pytest.raises(ValueError, match="2 channels"):
        NormalizeForEncoderd("image", mean, std)({"image": torch.zeros(2, 4, 4), "id": "a"})
    with pytest.raises(ValueError, match="positive"):
        NormalizeForEncoderd("image", [0.5], [0.0])
