"""Masks and boxes land where the image they belong to landed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, SpatialCropd
from PIL import Image
from scipy.ndimage import binary_dilation

from monai_medclip.transforms import (
    BadInputError,
    DisplayOrderd,
    FitImaged,
    LoadCTd,
    LoadRadiographd,
    LoadTruthd,
    bad_input_cause,
)

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


CT_SHAPE = (30, 24, 18)  # x, y, z


def scanner() -> np.ndarray:
    """Oblique and sheared, as of a tilted gantry; voxels of 1.5 x 1.5 x 2 mm, x to the left."""
    turn = np.deg2rad(12)
    affine = np.diag([-1.5, -1.5, 2.0, 1.0])
    affine[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]] @ affine[:3, :3]
    affine[:3, 2] += [0, 0.5, 0]
    affine[:3, 3] = [20, 15, -300]
    return affine


def write_ct(folder: Path, mask: np.ndarray) -> str:
    """Air, and soft tissue where the mask is."""
    nib.save(nib.Nifti1Image(np.where(mask > 0, 40, -900).astype(np.int16), scanner()), folder / "ct.nii.gz")
    return str(folder / "ct.nii.gz")


def write_mask(folder: Path, mask: np.ndarray, affine: np.ndarray | None) -> dict[str, str]:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / "mask.nii.gz")
    return {"nodule": str(folder / "mask.nii.gz")}


def truth_of(item: dict[str, Any], *steps: Any) -> np.ndarray:
    pipeline = Compose([LoadCTd(keys="image"), *steps, LoadTruthd(keys="image", names=("mass", "nodule"))])
    truth = pipeline(item)["truth"]
    assert not truth[0].any()
    return truth[1].numpy()


def block(first: tuple[int, ...], size: int = 3, value: int = 1) -> np.ndarray:
    mask = np.zeros(CT_SHAPE, np.uint8)
    mask[tuple(slice(start, start + size) for start in first)] = value
    return mask


def test_lesions_of_a_volume_stay_on_their_voxels_exactly(tmp_path: Path) -> None:
    mask = block((3, 4, 5)) | block((20, 15, 9), size=4)
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, scanner())}
    np.testing.assert_array_equal(truth_of(item), block((3, 4, 5)) + block((20, 15, 9), size=4, value=2))
    shown = truth_of(item, DisplayOrderd(keys="image", spatial_dims=3))
    assert shown.shape == CT_SHAPE[::-1]
    image = Compose([LoadCTd(keys="image"), DisplayOrderd(keys="image", spatial_dims=3)])(item)["image"][0]
    np.testing.assert_array_equal(shown > 0, image.numpy() > 0)


def test_a_mask_on_another_grid_of_the_same_space_lies_in_the_same_place(tmp_path: Path) -> None:
    mask = block((18, 5, 6), size=6)
    finer = np.repeat(np.repeat(mask[::-1], 2, axis=0), 3, axis=2)[4:]  # x runs the other way, and begins later
    to_native = np.array([[-0.5, 0, 0, 29.25 - 2], [0, 1, 0, 0], [0, 0, 1 / 3, -1 / 3], [0, 0, 0, 1]])
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, finer, scanner() @ to_native)}
    np.testing.assert_array_equal(truth_of(item), mask)
    steps = (DisplayOrderd(keys="image", spatial_dims=3), FitImaged(keys="image", spatial_size=(36, 48, 60)))
    image = Compose([LoadCTd(keys="image"), *steps])(item)["image"][0].numpy() > -430  # twice as fine
    truth = truth_of(item, *steps) > 0
    assert (image & truth).sum() / (image | truth).sum() > 0.8


def test_a_lesion_between_the_centers_of_coarse_voxels_does_not_vanish(tmp_path: Path) -> None:
    mask = block((1, 1, 1), size=1) | block((20, 13, 10), size=1) | block((14, 4, 4), size=6)
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, scanner())}
    truth = truth_of(item, FitImaged(keys="image", spatial_size=(5, 4, 3)))  # six native voxels along each side
    assert sorted(np.unique(truth)) == [0, 1, 2, 3]  # though two of them are no larger than 1 in 216 of a voxel
    assert truth[0, 0, 0] == 1
    assert truth[3, 2, 1] == 3


def test_numbers_of_a_mask_are_lesions_even_where_they_touch(tmp_path: Path) -> None:
    mask = block((3, 4, 5), value=7) + block((6, 4, 5), value=4)
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, scanner())}
    np.testing.assert_array_equal(truth_of(item), block((3, 4, 5), value=1) + block((6, 4, 5), value=2))


def test_what_a_crop_leaves_out_is_gone_and_the_rest_keeps_its_number(tmp_path: Path) -> None:
    mask = block((3, 4, 5)) | block((20, 15, 9))
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, scanner())}
    truth = truth_of(item, SpatialCropd(keys="image", roi_start=(10, 10, 0), roi_end=(30, 24, 18)))
    np.testing.assert_array_equal(truth, block((20, 15, 9), value=2)[10:, 10:])


def test_a_mask_without_a_place_lies_on_its_images_own_grid_or_is_refused(tmp_path: Path) -> None:
    mask = block((3, 4, 5))
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, None)}
    np.testing.assert_array_equal(truth_of(item), mask)
    write_mask(tmp_path, mask[1:], None)
    with pytest.raises(RuntimeError) as caught:
        truth_of(item)
    assert re.search(r"mask.nii.gz.*\(29, 24, 18\).*ct.nii.gz has \(30, 24, 18\)", str(bad_input_cause(caught.value)))


def test_an_empty_mask_of_a_volume_marks_nothing(tmp_path: Path) -> None:
    item = {"image": write_ct(tmp_path, block((3, 4, 5))), "masks": write_mask(tmp_path, np.zeros(CT_SHAPE), scanner())}
    assert not truth_of(item).any()


def test_masks_of_volumes_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    mask = block((3, 4, 5))
    item = {"image": write_ct(tmp_path, mask), "masks": write_mask(tmp_path, mask, np.eye(4))}
    causes = {r"lie around \[4.0, 5.0, 6.0\] mm, and the image .*ct.nii.gz from .*RAS": item}
    Image.new("L", (30, 24)).save(tmp_path / "mask.png")
    causes["mask.png: the mask cannot be read"] = {**item, "masks": {"nodule": str(tmp_path / "mask.png")}}
    nib.save(nib.Nifti1Image(mask[..., None], scanner()), tmp_path / "four.nii.gz")
    causes[r"shape \(30, 24, 18, 1\), and a volume"] = {**item, "masks": {"nodule": str(tmp_path / "four.nii.gz")}}
    causes["has a box of 'nodule'"] = {**item, "masks": {}, "boxes": [{"label": "nodule", "box": [0, 0, 2, 2]}]}
    for cause, bad in causes.items():
        with pytest.raises(RuntimeError) as caught:
            truth_of(bad)
        assert isinstance(bad_input_cause(caught.value), BadInputError)
        assert re.search(cause, str(bad_input_cause(caught.value)))


def test_a_film_needs_the_size_that_it_was_fitted_to(tmp_path: Path) -> None:
    item = LoadRadiographd(keys="image")(write_pair(tmp_path))
    with pytest.raises(ValueError, match=r"film.png is no volume: give the spatial_size"):
        LoadTruthd(keys="image", names=("nodule",))(item)


def test_a_real_nodule_is_denser_than_the_lung_around_it(shared_data: Path) -> None:
    """A DICOM series and a mask in NIfTI: the same space, other axes."""
    mask = shared_data / "ct_volumes" / "lidc0001_series_nodule.nii.gz"
    item = {"image": str(shared_data / "dicom_series_lidc0001"), "masks": {"nodule": str(mask)}}
    steps = (
        DisplayOrderd(keys="image", spatial_dims=3),
        FitImaged(keys="image", spatial_size=(24, 128, 128), how="stretch"),
    )
    for added in ((), steps):
        truth = truth_of(item, *added) > 0
        volume = Compose([LoadCTd(keys="image"), *added])(item)["image"][0].numpy()
        ring = binary_dilation(truth, iterations=6) & ~binary_dilation(truth, iterations=2)
        assert truth.max(initial=0) == 1
        assert volume[truth].mean() > volume[ring].mean() + 400  # HU
