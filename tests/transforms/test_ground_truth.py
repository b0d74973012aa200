"""Masks and boxes land where the image they belong to landed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_medclip.transforms import DisplayOrderd, FitImaged, LoadRadiographd, LoadTruthd, bad_input_cause

from .make_dicom import write_dicom


def pipeline(names: tuple[str, ...] = ("nodule", "mass"), how: str = "pad") -> Compose:
    return Compose(
        [
            LoadRadiographd(keys="image"),
            FitImaged(keys="image", spatial_size=(64, 48), how=how),
            DisplayOrderd(keys="image"),
            LoadTruthd(keys="image", names=names, spatial_size=(64, 48), how=how),
        ]
    )


def write_pair(folder: Path, shape: tuple[int, int] = (60, 100)) -> dict[str, Any]:
    """A film whose nodule is the only bright thing, its mask, and a box around it."""
    mask = np.zeros(shape, np.uint8)
    mask[10:22, 70:90] = 255
    background = np.random.default_rng(0).integers(0, 40, shape, np.uint8)
    Image.fromarray(np.maximum(mask, background)).save(folder / "film.png")
    Image.fromarray(mask).convert("1").save(folder / "mask.png")
    return {"image": str(folder / "film.png"), "masks": {"nodule": str(folder / "mask.png")}, "boxes": []}


@pytest.mark.parametrize("how", ["pad", "stretch"])
def test_the_mask_covers_what_is_bright_in_the_prepared_image(tmp_path: Path, how: str) -> None:
    item = pipeline(how=how)(write_pair(tmp_path))
    assert item["truth"].shape == (2, 48, 64)
    bright = item["image"][0] > 0.5
    truth = item["truth"][0] > 0
    assert float((bright & truth).sum() / (bright | truth).sum()) > 0.8
    assert not item["truth"][1].any()


def test_a_box_serves_where_there_is_no_mask_and_equals_a_rectangular_one(tmp_path: Path) -> None:
    item = write_pair(tmp_path)
    masked = pipeline()(item)["truth"]
    boxed = {**item, "masks": {}, "boxes": [{"label": "nodule", "box": [70, 10, 90, 22]}]}
    torch.testing.assert_close(pipeline()(boxed)["truth"], masked)
    both = {**item, "boxes": [{"label": "nodule", "box": [0, 0, 100, 60]}]}
    torch.testing.assert_close(pipeline()(both)["truth"], masked)


def test_labels_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    assert not pipeline(("effusion",))(write_pair(tmp_path))["truth"].any()


def test_a_film_that_lies_on_its_side_takes_its_mask_along(tmp_path: Path) -> None:
    """Columns run to the feet and rows to the right: the picture is turned, and so is the mask."""
    mask = np.zeros((40, 60), np.uint16)
    mask[4:12, 40:55] = 1
    noise = np.random.default_rng(0).integers(0, 400, mask.shape).astype(np.uint16)
    write_dicom(tmp_path / "film.dcm", noise + 3000 * mask, PatientOrientation=["F", "R"])
    Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / "mask.png")
    item = pipeline()({"image": str(tmp_path / "film.dcm"), "masks": {"mass": str(tmp_path / "mask.png")}})
    bright, truth = item["image"][0] > 0.5, item["truth"][1] > 0
    assert float((bright & truth).sum() / (bright | truth).sum()) > 0.8


def test_a_mask_of_another_size_names_both_and_the_remedy(tmp_path: Path) -> None:
    item = write_pair(tmp_path)
    Image.new("1", (10, 10)).save(tmp_path / "mask.png")
    with pytest.raises(RuntimeError) as caught:
        pipeline()(item)
    cause = bad_input_cause(caught.value)
    assert cause is not None
    assert re.search(r"mask.png.*\(10, 10\).*film.png.*\(100, 60\)", str(cause))
