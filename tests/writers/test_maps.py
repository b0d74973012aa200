"""A marked voxel comes back to its place in the scanner, whatever the pipeline did to its image."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flipd,
    LoadImaged,
    Orientationd,
    RandAffined,
    Resized,
    Rotate90d,
    Spacingd,
    SpatialPadd,
)

from monai_medclip.data.phantom_dicom import write_ct_series
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.transforms import ChestXrayTransform, DisplayOrderd, FitImaged, LoadCTd, TakeSliced
from monai_medclip.writers.maps import scanner_maps, write_maps, write_scanner_maps

SHAPE = (30, 24, 18)
MARKED = (slice(17, 21), slice(6, 10), slice(11, 15))  # 4 x 4 x 4 voxels around (18.5, 7.5, 12.5)
CENTER = (18.5, 7.5, 12.5)

STEPS = {
    "nothing": [],
    "crop": [CenterSpatialCropd("image", (24, 20, 16))],
    "resize": [Resized("image", (40, 36, 27), mode="trilinear")],
    "fit": [FitImaged("image", (32, 32, 32))],
    "pad": [SpatialPadd("image", (40, 33, 20))],
    "flip": [Flipd("image", (0, 2))],
    "turn": [Rotate90d("image", k=1, spatial_axes=(0, 1))],
    "spacing": [Spacingd("image", (1.0, 1.3, 2.0), mode="bilinear")],
    "orientation": [Orientationd("image", "RAS", labels=None)],
    "display": [DisplayOrderd("image", spatial_dims=3)],
    "all": [
        CenterSpatialCropd("image", (26, 22, 17)),
        Spacingd("image", (1.1, 1.1, 1.7), mode="bilinear"),
        Flipd("image", 1),
        SpatialPadd("image", (36, 34, 28)),
        FitImaged("image", (40, 40, 40)),
        DisplayOrderd("image", spatial_dims=3),
    ],
}


def straight() -> np.ndarray:
    """An affine with unequal spacing and an offset; x runs to the patient's left, as DICOM has it."""
    return np.array([[-1.2, 0, 0, 40], [0, -1.2, 0, 31], [0, 0, 2.0, -55], [0, 0, 0, 1]])


def oblique() -> np.ndarray:
    """The same, turned by 20 degrees about x and 10 about z."""
    a, b = np.deg2rad([20, 10])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = straight()
    affine[:3, :3] = about_z @ about_x @ affine[:3, :3]
    return affine


def sheared() -> np.ndarray:
    """The oblique one of a gantry tilted by 18 degrees: slices lie askew over one another."""
    affine = oblique()
    affine[:3, 2] += 0.65 * affine[:3, 1] / 1.2
    return affine


def loaded(folder, affine: np.ndarray, steps: list) -> tuple[Compose, MetaTensor]:
    """A pipeline that reads a volume with the marked voxels from a file, and its output."""
    values = np.zeros(SHAPE, np.float32)
    values[MARKED] = 1
    nib.save(nib.Nifti1Image(values, affine), folder / "volume.nii.gz")
    pipeline = Compose([LoadImaged("image", ensure_channel_first=True), *steps])
    return pipeline, pipeline({"image": str(folder / "volume.nii.gz")})["image"]


def center_mm(file) -> np.ndarray:
    """Center of the heat in a NIfTI file, in scanner coordinates."""
    image = nib.load(file)
    heat = image.get_fdata()
    indices = np.indices(heat.shape).reshape(3, -1)
    return nib.affines.apply_affine(image.affine, indices @ heat.ravel() / heat.sum())


NO_SHEAR = {"spacing", "orientation", "all"}  # MONAI's own resampling gives a grid without shear; ours keeps it


@pytest.mark.parametrize(
    ("name", "affine"),
    [
        (name, made)
        for name in STEPS
        for made in (straight, oblique, sheared)
        if made is not sheared or name not in NO_SHEAR
    ],
)
def test_a_marked_voxel_returns_to_its_place_in_the_scanner(tmp_path, name, affine):
    pipeline, image = loaded(tmp_path, affine(), STEPS[name])
    heatmap = MetaTensor(image.as_tensor().repeat(2, 1, 1, 1) * torch.tensor([1.0, 3.0])[:, None, None, None])
    heatmap = heatmap.copy_meta_from(image)

    maps = scanner_maps(heatmap, pipeline)
    files = write_maps(tmp_path / "maps", maps, ["nodule", "mass"], method="Chefer")

    native = nib.load(tmp_path / "volume.nii.gz")
    for file in files.nifti:
        written = nib.load(file)
        assert written.shape == native.shape == SHAPE
        np.testing.assert_allclose(written.affine, native.affine, atol=1e-4)
        found, wanted = center_mm(file), nib.affines.apply_affine(affine(), CENTER)
        assert np.linalg.norm(found - wanted) < 0.6  # mm, half of the smallest side of a voxel
    first, second = (nib.load(file).get_fdata() for file in files.nifti)
    np.testing.assert_allclose(second, 3 * first, atol=1e-4)  # raw: no map was scaled
    inside = first[MARKED].mean()
    assert inside > 0.6
    np.testing.assert_allclose(np.load(files.npy)[0], first, atol=1e-6)


def test_a_film_goes_back_to_columns_and_rows_as_one_slice(tmp_path):
    film = np.zeros((60, 40), np.float32)  # x, y
    film[:10, :6], film[30:, 20:] = 1, 0.3
    affine = np.diag([-0.4, -0.7, 1, 1])
    nib.save(nib.Nifti1Image(film, affine), tmp_path / "film.nii.gz")
    pipeline = ChestXrayTransform(image_size=(32, 32))
    image = pipeline({"image": str(tmp_path / "film.nii.gz")})["image"]
    heat = torch.zeros(1, 32, 32)
    heat[:, 5:9, :4] = 1  # 60 columns became 32 and 40 rows became 21, below 5 rows of padding
    heatmap = MetaTensor(heat).copy_meta_from(image)
    files = write_maps(tmp_path, scanner_maps(heatmap, pipeline), ["nodule"], method="Chefer")
    written = nib.load(files.nifti[0])
    assert written.shape == (60, 40, 1)
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    back = written.get_fdata()[..., 0]
    assert back[:6, :6].mean() > 0.9
    assert back[12:].max() == back[:, 12:].max() == 0
    assert np.load(files.npy).shape == (1, 60, 40)


def test_a_slice_map_becomes_one_slice_of_its_volume(tmp_path):
    pipeline, image = loaded(tmp_path, oblique(), [DisplayOrderd("image", spatial_dims=3), TakeSliced("image", 12)])
    maps = scanner_maps(MetaTensor(torch.ones(1, *image.shape[1:])).copy_meta_from(image), pipeline)
    assert maps.shape == (1, *SHAPE)
    assert torch.equal(maps.sum(dim=(0, 1, 2)).nonzero(), torch.tensor([[12]]))
    np.testing.assert_allclose(maps.affine, oblique(), atol=1e-6)


def test_a_batch_made_by_an_evaluator_is_taken_apart_first(tmp_path):
    pipeline, image = loaded(tmp_path, straight(), STEPS["all"])
    batch = list_data_collate([{"image": image}, {"image": image}])
    heatmap = MetaTensor(batch["image"].as_tensor().clone()).copy_meta_from(batch["image"])
    heatmap.is_batch = True
    with pytest.raises(ValueError, match="decollate_batch"):
        scanner_maps(heatmap, pipeline)
    assert [scanner_maps(one, pipeline).shape for one in decollate_batch(heatmap)] == [(1, *SHAPE)] * 2


def test_itks_left_posterior_affine_is_written_in_ras(tmp_path):
    lps = np.diag([-1.0, -1, 1, 1]) @ straight()
    maps = MetaTensor(torch.ones(1, *SHAPE), affine=lps, meta={"space": "LPS"})
    files = write_maps(tmp_path, maps, ["nodule"], method="Chefer")
    np.testing.assert_allclose(nib.load(files.nifti[0]).affine, straight())


def test_inverting_leaves_the_heatmap_as_it_was(tmp_path):
    pipeline, image = loaded(tmp_path, straight(), STEPS["all"])
    before, operations = image.as_tensor().clone(), len(image.applied_operations)
    scanner_maps(image, pipeline)
    assert torch.equal(image.as_tensor(), before)
    assert len(image.applied_operations) == operations


def test_every_file_says_what_it_is(tmp_path):
    maps = MetaTensor(torch.rand(2, *SHAPE), affine=straight())
    files = write_maps(tmp_path, maps, ["pleural effusion / left", "Übersicht"], method="Grad-ECLIP", units="logit")
    assert [file.name for file in files.nifti] == [
        "heatmap_01_pleural-effusion-left.nii.gz",
        "heatmap_02_ubersicht.nii.gz",
    ]
    image = nib.load(files.nifti[0])
    assert image.header["descrip"].item().decode() == RESEARCH_USE
    assert json.loads(image.header.extensions[0].get_content())["prompt"] == "pleural effusion / left"
    assert image.header.get_xyzt_units()[0] == "mm"
    sidecar = json.loads(files.sidecar.read_text())
    assert sidecar["intended_use"] == RESEARCH_USE
    assert (sidecar["units"], sidecar["scaling"], sidecar["method"]) == ("logit", "raw", "Grad-ECLIP")
    assert sidecar["axes"] == ["prompt", "x", "y", "z"]
    np.testing.assert_allclose(sidecar["affine_ras_mm"], straight())


def test_equal_maps_make_equal_files(tmp_path):
    maps = MetaTensor(torch.rand(1, *SHAPE), affine=straight())
    first, second = (
        write_maps(tmp_path / name, maps, ["nodule"], method="Chefer").nifti[0].read_bytes() for name in "ab"
    )
    assert first == second


def test_a_lost_history_is_an_error(tmp_path):
    pipeline, image = loaded(tmp_path, straight(), STEPS["all"])
    with pytest.raises(TypeError, match="HeatmapInferer"):
        scanner_maps(image.as_tensor(), pipeline)
    forgotten = MetaTensor(image.as_tensor(), meta=image.meta)
    with pytest.raises(ValueError, match=r"came back as \(40, 40, 40\), the image was read as \(30, 24, 18\)"):
        scanner_maps(forgotten, pipeline)
    moved = MetaTensor(torch.zeros(1, *SHAPE), meta={**image.meta, "affine": torch.eye(4)})
    with pytest.raises(ValueError, match="the image lies at"):
        scanner_maps(moved, pipeline)
    with pytest.raises(ValueError, match="lost its image's history"):
        scanner_maps(MetaTensor(image.as_tensor()), pipeline)
    with pytest.raises(RuntimeError):  # MONAI's own: this pipeline did not make the image
        scanner_maps(image, Compose(STEPS["flip"]))
    with pytest.raises(ValueError, match="2 prompts"):
        write_maps(tmp_path, image, ["nodule", "mass"], method="Chefer")


def test_random_augmentation_is_undone_too(tmp_path):
    turn = RandAffined("image", prob=1.0, rotate_range=0.2, translate_range=2, padding_mode="zeros")
    turn.set_random_state(3)
    pipeline, image = loaded(tmp_path, straight(), [turn, DisplayOrderd("image", spatial_dims=3)])
    files = write_maps(tmp_path, scanner_maps(image, pipeline), ["nodule"], method="Chefer")
    assert np.linalg.norm(center_mm(files.nifti[0]) - nib.affines.apply_affine(straight(), CENTER)) < 0.5


SLICES, ROWS, COLUMNS = 14, 20, 26
SPACING_MM, ORIGIN_MM = (2.5, 1.5, 1.25), (-17.0, 12.0, 140.0)  # slices, rows, columns; x, y, z in DICOM's LPS
LESION = (4, 13, 18)  # the first voxel of 2 x 3 x 3: slice from the head, row, column
ORIENTATIONS = {  # cosines of a row and of a column, and the step from slice to slice in mm, head first
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, -2.5)),
    "tilted gantry": ((1, 0, 0), (0, np.cos(0.35), np.sin(0.35)), (0, 0, -2.5)),
    "tilted the other way": ((1, 0, 0), (0, np.cos(0.35), -np.sin(0.35)), (0, 0, -2.5)),
    "oblique": ((np.cos(0.2), np.sin(0.2), 0), (-np.sin(0.2), np.cos(0.2), 0), (0, 0, -2.5)),
    "prone, feet first": ((-1, 0, 0), (0, -1, 0), (0, 0, 2.5)),
}


def write_series(folder: Path, orientation: str) -> np.ndarray:
    """A DICOM series of air with one lesion of soft tissue; the lesion's center in RAS mm, from the tags by hand."""
    row, column, step = (np.array(vector, float) for vector in ORIENTATIONS[orientation])
    values = np.full((SLICES, ROWS, COLUMNS), -1000, np.float32)
    values[tuple(slice(first, first + size) for first, size in zip(LESION, (2, 3, 3), strict=True))] = 40
    about = {"patient_id": "p", "sex": "F", "spacing_mm": SPACING_MM, "origin_mm": ORIGIN_MM, "study": ("tilt",)}
    write_ct_series(folder, values, **about)
    for number, file in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(file)
        header.ImageOrientationPatient = [f"{cosine:.9f}" for cosine in (*row, *column)]
        header.ImagePositionPatient = [f"{place:.6f}" for place in ORIGIN_MM + number * step]
        header.save_as(file)
    slice_, down, across = np.add(LESION, (0.5, 1, 1))
    lps = ORIGIN_MM + slice_ * step + down * SPACING_MM[1] * column + across * SPACING_MM[2] * row
    return lps * (-1, -1, 1)


@pytest.mark.parametrize(  # in mm: exactly, or resampled to within half of the smallest side of a voxel
    ("size", "within"), [((SLICES, ROWS, COLUMNS), 0.001), ((16, 32, 32), 0.6)], ids=["as it is", "fitted"]
)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_heat_of_a_dicom_series_lies_where_its_tags_say(tmp_path, orientation, size, within):
    wanted = write_series(tmp_path / "series", orientation)
    steps = [DisplayOrderd("image", spatial_dims=3), FitImaged("image", size, pad_value=-1024.0)]
    pipeline = Compose([LoadCTd("image"), *steps])
    image = pipeline({"image": str(tmp_path / "series")})["image"]
    assert image.shape == (1, *size)
    heatmap = MetaTensor((image.as_tensor() + 1000).clamp(min=0).repeat(2, 1, 1, 1)).copy_meta_from(image)
    files = write_scanner_maps(tmp_path / "maps", heatmap, pipeline, ["nodule", "mass"], method="Chefer")
    native = LoadCTd("image")({"image": str(tmp_path / "series")})["image"]
    for file in files.nifti:
        written = nib.load(file)
        assert written.shape == tuple(native.shape[1:])
        np.testing.assert_allclose(written.affine, native.affine, atol=1e-3)
        assert np.linalg.norm(center_mm(file) - wanted) < within
        peak = np.unravel_index(written.get_fdata().argmax(), written.shape)
        assert float(native[(0, *peak)]) == 40


def test_a_file_of_a_tilted_gantry_has_no_quaternion_that_would_place_it_elsewhere(tmp_path):
    for affine, code in ((straight(), 1), (oblique(), 1), (sheared(), 0)):
        maps = MetaTensor(torch.rand(1, *SHAPE), affine=affine)
        written = nib.load(write_maps(tmp_path, maps, ["nodule"], method="Chefer").nifti[0])
        assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, code)
        np.testing.assert_allclose(written.get_sform(), affine, atol=1e-4)
        if code:
            np.testing.assert_allclose(written.get_qform(), affine, atol=1e-4)


def test_prompt_by_prompt_the_files_are_the_same(tmp_path):
    pipeline, image = loaded(tmp_path, oblique(), STEPS["fit"] + STEPS["display"])
    heatmap = MetaTensor(image.as_tensor() * torch.tensor([1.0, 3.0])[:, None, None, None]).copy_meta_from(image)
    whole = write_maps(tmp_path / "a", scanner_maps(heatmap, pipeline), ["nodule", "mass"], method="Chefer")
    single = write_scanner_maps(tmp_path / "b", heatmap, pipeline, ["nodule", "mass"], method="Chefer")
    for one, other in zip((*whole.nifti, whole.npy, whole.sidecar), (*single.nifti, single.npy, single.sidecar)):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()
    assert np.load(single.npy).shape == (2, *SHAPE)
    with pytest.raises(ValueError, match="2 maps for 1 prompts"):
        write_scanner_maps(tmp_path / "c", heatmap, pipeline, ["nodule"], method="Chefer")
