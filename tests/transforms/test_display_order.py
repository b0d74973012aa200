"""A non-square image with a marked corner comes out (C, rows, columns) from every reader, and goes back."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd, LoadImaged, Resized
from PIL import Image

from monai_medclip.transforms import DisplayOrderd, patient_orientation

ROWS, COLUMNS = 40, 60


def marked() -> np.ndarray:
    """A film (40, 60) whose upper left corner (the patient's upper right) holds a bright 5 x 8 patch."""
    film = np.zeros((ROWS, COLUMNS), np.uint8)
    film[:5, :8] = 200
    return film


def as_file(folder: Path, kind: str) -> str:
    film = marked()
    if kind in ("png", "jpg"):
        Image.fromarray(film).save(folder / f"film.{kind}", quality=95)
    else:
        affines = {"identity": np.eye(4), "lps": np.diag([-0.5, -0.5, 1, 1])}
        array = film.T[:, :, None] if kind == "lps" else film.T  # (x, y, 1), as ITK writes it, or (x, y)
        nib.save(nib.Nifti1Image(array.astype(np.float32), affines[kind]), folder / f"film.{kind}.nii.gz")
    return str(next(folder.glob("film.*")))


@pytest.mark.parametrize(
    ("kind", "reader"),
    [
        ("png", None),
        ("png", "ITKReader"),
        ("jpg", None),
        ("identity", None),
        ("identity", "ITKReader"),
        ("lps", None),
        ("lps", "ITKReader"),
    ],
)
def test_every_reader_gives_rows_then_columns_and_goes_back(tmp_path, kind, reader):
    if reader == "ITKReader":
        pytest.importorskip("itk")
    load = LoadImaged("image", reader=reader, ensure_channel_first=True)
    item = {"image": as_file(tmp_path, kind)}
    native = load(item)["image"]
    pipeline = Compose([load, DisplayOrderd("image")])
    shown = pipeline(item)

    assert native.shape[1:3] == (COLUMNS, ROWS)  # what MONAI's readers do
    assert shown["image"].shape == (1, ROWS, COLUMNS)
    np.testing.assert_allclose(shown["image"][0].numpy(), marked(), atol=6)  # 6: JPEG rings
    assert shown["image"].applied_operations[-1]["class"] == "DisplayOrderd"

    back = Invertd("image", transform=pipeline, orig_keys="image")(shown)["image"]
    assert back.shape == native.shape
    assert torch.equal(back.as_tensor(), native.as_tensor())
    torch.testing.assert_close(back.affine, native.affine)
    assert back.applied_operations == []


@pytest.mark.parametrize(
    "orientation",
    ["L\\F", "R\\F", "L\\H", "R\\H", "F\\L", "F\\R", "H\\L", "H\\R"],
)
def test_patient_orientation_puts_every_stored_film_upright(orientation):
    columns_toward, rows_toward = orientation.split("\\")
    stored = marked().astype(np.float32)
    lying = columns_toward in "FH"
    if lying:
        stored = stored.T  # now its columns run along the body
    if "H" in (columns_toward, rows_toward):
        stored = np.flip(stored, 1 if lying else 0)
    if "R" in (columns_toward, rows_toward):
        stored = np.flip(stored, 0 if lying else 1)
    image = MetaTensor(
        np.ascontiguousarray(stored.T[None]), affine=np.diag([-2.0, -3, 1, 1]), meta={"0020|0020": orientation}
    )
    order = DisplayOrderd("image")
    shown = order({"image": image})
    np.testing.assert_array_equal(shown["image"][0].numpy(), marked())
    back = order.inverse(shown)["image"]
    assert torch.equal(back.as_tensor(), image.as_tensor())
    torch.testing.assert_close(back.affine, image.affine)


def test_lateral_film_keeps_its_columns():
    image = MetaTensor(torch.from_numpy(marked().T[None].copy()), meta={"PatientOrientation": "P\\F"})
    np.testing.assert_array_equal(DisplayOrderd("image")({"image": image})["image"][0].numpy(), marked())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("L\\F", ("L", "F")),
        ("LF\\FP", ("L", "F")),
        ({"vr": "CS", "Value": ["R", "F"]}, ("R", "F")),
        ("", None),
        ("L", None),
        ("L\\R", None),
        ("X\\F", None),
    ],
)
def test_patient_orientation_is_read_or_unknown(value, expected):
    assert patient_orientation({"00200020": value}) == expected


def test_coronal_nifti_film_is_shown_upright():
    # x runs to the patient's right and y to the head, as in a coronal NIfTI in RAS: both need a flip
    affine = np.array([[0.5, 0, 0, 0], [0, 0, 1, 0], [0, 0.5, 0, 0], [0, 0, 0, 1.0]])
    stored = marked()[::-1, ::-1].T[None, :, :, None].copy()
    shown = DisplayOrderd("image")({"image": MetaTensor(stored, affine=affine)})["image"]
    np.testing.assert_array_equal(shown[0].numpy(), marked())


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "RAI", "SPL", "PIR"])
def test_ct_is_shown_feet_first_from_the_front_with_the_patients_right_on_the_left(axcodes):
    # Value = S + 10 * P + 100 * L of each voxel, in a (z, y, x) = (3, 4, 5) volume already in display order.
    s, p, left = np.meshgrid(np.arange(3), np.arange(4), np.arange(5), indexing="ij")
    display = nib.Nifti1Image(
        (s + 10 * p + 100 * left).astype(np.float32),
        np.array([[0, 0, -2.0, 7], [0, -3, 0, 8], [4, 0, 0, 9], [0, 0, 0, 1]]),
    )
    wanted = nib.orientations.axcodes2ornt(axcodes)
    stored = display.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(display.affine), wanted))
    image = MetaTensor(stored.get_fdata()[None], affine=stored.affine)
    order = DisplayOrderd("image", spatial_dims=3)
    shown = order({"image": image})
    np.testing.assert_array_equal(shown["image"][0].numpy(), display.get_fdata())
    np.testing.assert_allclose(shown["image"].affine.numpy(), display.affine)
    back = order.inverse(shown)["image"]
    assert torch.equal(back.as_tensor(), image.as_tensor())
    torch.testing.assert_close(back.affine, image.affine)


def test_a_batched_heatmap_born_with_the_images_history_returns_to_the_native_grid(tmp_path):
    pipeline = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Resized("image", spatial_size=30, size_mode="longest"),
            DisplayOrderd("image"),
        ]
    )
    item = {"image": as_file(tmp_path, "png")}
    batch = list_data_collate([pipeline(item), pipeline(item)])
    heatmap = MetaTensor(batch["image"].as_tensor().repeat(1, 3, 1, 1)).copy_meta_from(batch["image"])  # (2, 3, 20, 30)
    heatmap.is_batch = True
    batch["heatmap"] = heatmap
    invert = Invertd("heatmap", transform=pipeline, orig_keys="image", nearest_interp=False)
    for decollated in decollate_batch(batch):
        back = invert(decollated)["heatmap"]
        assert back.shape == (3, COLUMNS, ROWS)
        assert back[:, :5, :3].mean() > 100 > 10 > back[:, 20:, 10:].mean()  # the marked corner, in (x, y)


def test_wrong_number_of_axes_names_the_remedy():
    with pytest.raises(ValueError, match="spatial_dims=3"):
        DisplayOrderd("image")({"image": MetaTensor(torch.zeros(1, 4, 5, 6))})
    with pytest.raises(ValueError, match="2 \\(films\\) and 3"):
        DisplayOrderd("image", spatial_dims=4)
