"""CT: Hounsfield units in, windows and slices out; what is not one gapless CT series is refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged

from monai_medclip.transforms import (
    BadInputError,
    DisplayOrderd,
    LoadCTd,
    LoadRadiographd,
    TakeSliced,
    WindowHUd,
    check_hounsfield,
)

from .make_dicom import write_dicom

ROWS, COLUMNS = 6, 8


def write_series(folder, positions_mm=(0.0, 2.5, 5.0, 7.5), **tags):
    """A series whose stored value is 24 + 100 * slice + row, for HU 1024 lower; numbered from head to feet."""
    folder.mkdir(exist_ok=True)
    for number, z in enumerate(positions_mm):
        stored = np.full((ROWS, COLUMNS), 24 + 100 * number, np.int16) + np.arange(ROWS, dtype=np.int16)[:, None]
        header = {
            "ImagePositionPatient": [-10, -20, z],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [0.5, 0.25],
            "InstanceNumber": len(positions_mm) - number,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "SeriesInstanceUID": "1.2.3",
        }
        write_dicom(folder / f"{number}.dcm", stored, modality="CT", **{**header, **tags})
    return str(folder)


def test_series_comes_in_hounsfield_units_feet_first(tmp_path):
    load = LoadCTd("image")
    pipeline = Compose([load, DisplayOrderd("image", spatial_dims=3)])
    item = {"image": write_series(tmp_path / "ct")}
    volume = pipeline(item)["image"]
    assert volume.shape == (1, 4, ROWS, COLUMNS)
    np.testing.assert_array_equal(volume[0, :, 0, 0].numpy(), [-1000, -900, -800, -700])
    np.testing.assert_array_equal(volume[0, 0, :, 3].numpy(), -1000 + np.arange(ROWS))
    # RAS: the first voxel lies at LPS (-10, -20, 0); slices, rows, columns run to S, P, L
    np.testing.assert_allclose(volume.affine.numpy()[:3], [[0, 0, -0.25, 10], [0, -0.5, 0, 20], [2.5, 0, 0, 0]])
    back = Invertd("image", transform=pipeline, orig_keys="image")({"image": volume})["image"]
    assert torch.equal(back.as_tensor(), load(item)["image"].as_tensor())


def test_real_series_equals_itks(shared_data):
    pytest.importorskip("itk")
    item = {"image": str(shared_data / "dicom_series_lidc0001")}
    ours = LoadCTd("image")(item)["image"]
    itks = LoadImaged("image", reader="ITKReader", ensure_channel_first=True)(item)["image"]
    assert torch.equal(ours.as_tensor(), itks.as_tensor().clamp(min=-1024))
    torch.testing.assert_close(ours.affine, itks.affine)


@pytest.mark.parametrize("name", ["ct_chest_slice_128", "ct_chest_slice_lungmask0"])
def test_a_single_slice_is_a_volume_of_one(shared_data, name):
    volume = LoadCTd("image")({"image": str(shared_data / "dicom" / f"{name}.dcm")})["image"]
    assert volume.ndim == 4
    assert volume.shape[-1] == 1
    image = TakeSliced("image")(DisplayOrderd("image", spatial_dims=3)({"image": volume}))["image"]
    assert image.ndim == 3


def test_modalities_do_not_mix(shared_data):
    with pytest.raises(BadInputError, match="Modality is CR, not CT"):
        LoadCTd("image")({"image": str(shared_data / "dicom" / "cxr_pa_RG1_uncompressed.dcm")})
    with pytest.raises(BadInputError, match="Modality is 'CT', not a radiograph"):
        LoadRadiographd("image")({"image": str(shared_data / "dicom" / "ct_chest_slice_128.dcm")})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions_mm": (0, 2.5, 7.5, 10)}, "2.50 mm apart, but once 5.00 mm"),
        ({"positions_mm": (0, 2.5, 2.5, 5)}, "but once 0.00 mm"),
        ({"Modality": "MR"}, "Modality is MR"),
        ({"RescaleIntercept": 0}, "not a chest CT in HU"),
    ],
)
def test_what_is_not_one_gapless_ct_is_refused(tmp_path, change, reason):
    path = write_series(tmp_path / "ct", **change)
    with pytest.raises(BadInputError) as caught:
        LoadCTd("image")({"image": path})
    assert caught.value.file == path
    assert reason in caught.value.reason
    assert caught.value.remedy


def test_two_series_in_one_folder_are_refused(tmp_path):
    folder = tmp_path / "ct"
    write_series(folder)
    (folder / "0.dcm").unlink()
    write_dicom(folder / "other.dcm", np.zeros((4, 4), np.int16), modality="CT", SeriesInstanceUID="9.9")
    with pytest.raises(BadInputError, match="2 series with 2 slice sizes"):
        LoadCTd("image")({"image": str(folder)})


@pytest.mark.parametrize("kind", ["missing", "empty folder", "NaN", "flat", "truncated"])
def test_bad_ct_is_named_with_a_remedy(tmp_path, kind):
    volume = np.linspace(-1000, 400, 64).reshape(4, 4, 4).astype(np.float32)
    path = tmp_path / "ct.nii.gz"
    if kind == "NaN":
        volume[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(volume[0] if kind == "flat" else volume, np.eye(4)), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    if kind == "missing":
        path = tmp_path / "none.nii.gz"
    if kind == "empty folder":
        path = tmp_path / "empty"
        path.mkdir()
    with pytest.raises(BadInputError) as caught:
        LoadCTd("image")({"image": str(path)})
    assert caught.value.file == str(path)
    assert caught.value.remedy


WRONG_UNITS = {
    "from 0 to 1": lambda hu: (hu + 1024) / 4095,
    "as stored, air at 24": lambda hu: hu + 1024,
    "as stored, padded with -2000": lambda hu: np.where(np.arange(hu.size).reshape(hu.shape) % 9, hu + 1024, -2000),
    "intercept applied twice": lambda hu: hu - 1024,
    "standard scores": lambda hu: (hu - hu.mean()) / hu.std(),
    "bytes": lambda hu: np.clip((hu + 1000) / 1400, 0, 1) * 255,
}


@pytest.mark.parametrize("units", WRONG_UNITS)
@pytest.mark.parametrize("name", ["ct_volumes/lidc0001_ct", "ct_lidc_voi/image/LIDC-IDRI-0003_R_2"])
def test_real_volumes_pass_in_hounsfield_units_and_in_no_others(shared_data, name, units):
    hu = np.asarray(nib.load(shared_data / f"{name}.nii.gz").dataobj, np.float32)[..., ::4]
    check_hounsfield(hu, name)
    check_hounsfield(np.where(hu < -1000, -3024, hu), name)  # padding is no tissue
    check_hounsfield(np.where(hu > 200, hu + 300, hu), name)  # contrast medium
    with pytest.raises(BadInputError, match=r"not a chest CT in HU|are no padding"):
        check_hounsfield(WRONG_UNITS[units](hu), name)


def test_windows_become_channels():
    hu = MetaTensor(torch.tensor([-2000.0, -1000, -300, 40, 400, 3000]).view(1, 1, 6))
    out = WindowHUd("image", ["lung", "mediastinum", (0, 80)])({"image": hu})["image"]
    assert out.shape == (3, 1, 6)
    np.testing.assert_allclose(out[0, 0].numpy(), [0, 0, 0.5, 1040 / 1400, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(out[1, 0].numpy(), [0, 0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(out[2, 0].numpy(), [0, 0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("windows", [["liver"], [], [(400, -1000)]])
def test_unknown_windows_are_refused(windows):
    with pytest.raises(ValueError, match="windows"):
        WindowHUd("image", windows)


def test_neighboring_slices_become_channels_and_a_map_finds_its_slice_again():
    affine = np.array([[0, 0, -2.0, 1], [0, -3, 0, 2], [4, 0, 0, 3], [0, 0, 0, 1]])
    volume = MetaTensor(torch.arange(5.0).view(1, 5, 1, 1).expand(1, 5, 3, 4).contiguous(), affine=affine)
    take = TakeSliced("image", "slice", offsets=(-1, 0, 1))
    image = take({"image": volume, "slice": 4})["image"]
    assert image.shape == (3, 3, 4)
    assert image[:, 0, 0].tolist() == [3, 4, 4]  # beyond the last slice it is repeated
    np.testing.assert_allclose(image.affine.numpy()[:3, 3], [1, 2, 19])  # 4 slices of 4 mm up
    heatmap = MetaTensor(torch.ones(2, 3, 4)).copy_meta_from(image)
    back = take.inverse({"image": heatmap})["image"]
    assert back.shape == (2, 5, 3, 4)
    assert back.sum((0, 2, 3)).tolist() == [0, 0, 0, 0, 24]
    np.testing.assert_allclose(back.affine.numpy(), affine)
    assert TakeSliced("image")({"image": volume})["image"][0, 0, 0] == 2  # the middle by default
    with pytest.raises(ValueError, match="no slice 7"):
        TakeSliced("image", 7)({"image": volume})
