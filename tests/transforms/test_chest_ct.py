"""CT: Hounsfield units in, windows and slices out; what is not one gapless CT series is refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged
from pydicom.uid import ImplicitVRLittleEndian

from monai_medclip.transforms import (
    BadInputError,
    DisplayOrderd,
    LoadCTd,
    LoadRadiographd,
    TakeSliced,
    WindowHUd,
    check_hounsfield,
)

from .make_ct import (
    AXIAL,
    COLUMNS,
    LEGACY_ENHANCED_CT,
    ROWS,
    group,
    ramp,
    write_enhanced,
    write_series,
)
from .make_dicom import write_dicom


def test_series_comes_in_hounsfield_units_feet_first(tmp_path):
    load = LoadCTd("image")
    pipeline = Compose([load, DisplayOrderd("image", spatial_dims=3)])
    item = {"image": write_series(tmp_path / "ct")}
    volume = pipeline(item)["image"]
    assert volume.shape == (1, 4, ROWS, COLUMNS)
    np.testing.assert_array_equal(volume[0, :, 0, 0].numpy(), [-1000, -900, -800, -700])
    np.testing.assert_array_equal(volume[0, 0, :, 3].numpy(), -997 + 10 * np.arange(ROWS))
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
    with pytest.raises(BadInputError, match=r"no CT slice \(Modality CR\).*LoadRadiographd"):
        LoadCTd("image")({"image": str(shared_data / "dicom" / "cxr_pa_RG1_uncompressed.dcm")})
    with pytest.raises(BadInputError, match="Modality is 'CT', not a radiograph"):
        LoadRadiographd("image")({"image": str(shared_data / "dicom" / "ct_chest_slice_128.dcm")})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions_mm": (0, 2.5, 7.5, 10)}, "2.50 mm apart, but once 5.00 mm"),
        ({"positions_mm": (0, 2.5, 2.5, 5)}, "but once 0.00 mm"),
        ({"Modality": "MR"}, "found: 4 Modality MR"),
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


ORIENTATIONS = {  # LPS: along a row, along a column; from one slice to the next
    "head first": (AXIAL, (0, 0, 2)),
    "feet first": ([-1, 0, 0, 0, 1, 0], (0, 0, 2)),
    "decubitus": ([0, 1, 0, -1, 0, 0], (0, 0, 2)),
    "gantry tilted by 15 degrees": ([1, 0, 0, 0, np.cos(np.pi / 12), np.sin(np.pi / 12)], (0, 0, 2)),
    "sagittal": ([0, 1, 0, 0, 0, -1], (-2, 0, 0)),
    "oblique": ([0.8, 0.6, 0, -0.36, 0.48, 0.8], (0.48 * 2, -0.64 * 2, 0.6 * 2)),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_lies_where_its_slice_says(tmp_path, orientation):
    cosines, step = ORIENTATIONS[orientation]
    places = [np.array([-10, -20, 30]) + k * np.array(step) for k in (2, 0, 3, 1)]  # files in no order
    path = write_series(tmp_path / "ct", places, ImageOrientationPatient=[round(one, 12) for one in cosines])
    volume = LoadCTd("image")({"image": path})["image"]
    for place, stored in zip(places, ramp(), strict=True):
        for row, column in [(0, 0), (ROWS - 1, 2)]:
            lps = place + column * 0.25 * np.array(cosines[:3]) + row * 0.5 * np.array(cosines[3:])
            voxel = np.linalg.solve(volume.affine.numpy(), [-lps[0], -lps[1], lps[2], 1])[:3]
            np.testing.assert_allclose(voxel, np.round(voxel), atol=1e-6)
            assert volume[(0, *np.round(voxel).astype(int))] == stored[row, column] - 1024


def plane(k, **more):
    return {"PlanePosition": {"ImagePositionPatient": [-10, -20, 2.5 * k]}, **more}


GRID = {"PixelMeasures": {"PixelSpacing": [0.5, 0.25], "SliceThickness": 2.5}}
TILTED = {"PlaneOrientation": {"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6]}}
HU = {"PixelValueTransformation": {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}}


@pytest.mark.parametrize("layout", ["shared", "per frame", "legacy"])
def test_a_multi_frame_object_equals_its_slices(tmp_path, layout):
    header = {"ImageOrientationPatient": [1, 0, 0, 0, 0.8, 0.6], "ConvolutionKernel": "FC08", "PixelPaddingValue": 25}
    slices = LoadCTd("image", series="soft")({"image": write_series(tmp_path / "slices", SliceThickness=2.5, **header)})
    kernel = {"CTReconstruction": {"ConvolutionKernel": "FC08"}}
    if layout == "per frame":
        frames, shared = [group(**plane(k, **TILTED, **HU)) for k in range(4)], group(**GRID, **kernel)
    else:
        frames, shared = [group(**plane(k)) for k in range(4)], group(**GRID, **TILTED, **HU, **kernel)
    if layout == "legacy":
        shared = group(**GRID, **TILTED, **HU, UnassignedSharedConvertedAttributes=kernel["CTReconstruction"])
    order = [2, 0, 3, 1]
    options = {"sop_class": LEGACY_ENHANCED_CT} if layout == "legacy" else {}
    path = tmp_path / "enhanced.dcm"
    write_enhanced(path, ramp()[order], [frames[k] for k in order], shared, PixelPaddingValue=25, **options)
    ours = LoadCTd("image", series="soft")({"image": str(path)})["image"]
    assert torch.equal(ours.as_tensor(), slices["image"].as_tensor())
    assert torch.equal(ours.affine, slices["image"].affine)
    assert ours[0, 1, 0, 0] == -1024  # the padding


def test_frames_of_several_stacks_and_times_are_parted_and_rescaled_each(tmp_path):
    frames = [
        group(
            **plane(k, PixelValueTransformation={"RescaleSlope": 1 + stack, "RescaleIntercept": -1024 - 24 * stack}),
            FrameContent={"StackID": str(stack), "InStackPositionNumber": k + 1, "TemporalPositionIndex": time},
        )
        for stack, time in [(0, 1), (0, 2), (1, 1)]
        for k in range(4)
    ]
    axial = {"PlaneOrientation": {"ImageOrientationPatient": AXIAL}}
    stored = np.concatenate([ramp(), ramp() + 1, ramp()])
    item = {"image": write_enhanced(tmp_path / "ct.dcm", stored, frames, group(**GRID, **axial))}
    first, second, third = (
        LoadCTd("image", series=f"1.2.3_{n}")(item)["image"].as_tensor().permute(0, 3, 2, 1)[0].numpy()
        for n in (1, 2, 3)
    )
    np.testing.assert_array_equal(first, ramp() - 1024)
    np.testing.assert_array_equal(second, ramp() - 1023)
    np.testing.assert_array_equal(third, np.maximum(2.0 * ramp() - 1048, -1024))
    with pytest.raises(BadInputError, match="there are 3 CT stacks"):
        LoadCTd("image")(item)


def test_frames_without_functional_groups_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", ramp(), [group(**plane(0))], group(**GRID, **HU))
    with pytest.raises(BadInputError, match="4 frames, but functional groups for 1"):
        LoadCTd("image")({"image": path})


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    write_series(tmp_path, (0, 1))
    write_series(tmp_path, (2, 3), name="b", RescaleSlope=0.5, RescaleIntercept=-1000)
    volume = LoadCTd("image")({"image": str(tmp_path)})["image"][0]
    np.testing.assert_array_equal(volume[3, 2].numpy(), [23 - 1000, 123 - 1000, 23.5 - 1000 + 0.0, 73.5 - 1000])


PADDINGS = {  # stored values of padding; the header's tags; signed
    "signed": ([-2000], {"PixelPaddingValue": -2000}, True),
    "signed, written as unsigned": ([-2000], {"PixelPaddingValue": 63536}, True),
    "unsigned": ([4095], {"PixelPaddingValue": 4095}, False),
    "a range": ([30, 35, 40], {"PixelPaddingValue": 30, "PixelPaddingRangeLimit": 40}, True),
    "a range downward": ([30, 35, 40], {"PixelPaddingValue": 40, "PixelPaddingRangeLimit": 30}, False),
    "water": ([0], {"PixelPaddingValue": 0}, True),
}


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("kind", PADDINGS)
def test_padding_becomes_air_whatever_it_is_stored_as(tmp_path, kind, implicit):
    padding, tags, signed = PADDINGS[kind]
    intercept = 0 if kind == "water" else -1024
    stored = np.where(np.arange(48).reshape(6, 8) < 24, 44, 1064) - (1024 if kind == "water" else 0)
    stored[0, : len(padding)] = padding
    tags = {"RescaleSlope": 1, "RescaleIntercept": intercept, **tags}
    path = tmp_path / "0.dcm"
    write_dicom(path, stored.astype(np.int16 if signed else np.uint16), modality="CT", PixelRepresentation=int(signed))
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        header.add_new(name, "DS" if "Rescale" in name else "SS" if value < 0 else "US", value)
    if implicit:  # the VR of padding is then not in the file: it follows from Pixel Representation
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    header.is_little_endian, header.is_implicit_VR = True, implicit  # pydicom 2 asks for both
    header.save_as(path)
    volume = LoadCTd("image")({"image": str(path)})["image"][0, :, :, 0].T.numpy()
    expected = np.where(np.arange(48).reshape(6, 8) < 24, -980, 40)
    expected[0, : len(padding)] = -1024
    np.testing.assert_array_equal(volume, expected)


def test_padding_does_not_hide_wrong_units(tmp_path):
    """A file of stored values, air at 24, whose rescale was lost; its padding is no sign of air."""
    path = write_series(tmp_path / "ct", RescaleIntercept=0, PixelPaddingValue=24)
    with pytest.raises(BadInputError, match="not a chest CT in HU"):
        LoadCTd("image")({"image": path})


FIRST_RELEASE = {"in_hounsfield": 0, "rescale_slope": 1.0, "rescale_intercept": -1024.0, "spacing_mm": [0.5, 0.7, 2.0]}


def test_the_first_release_of_ct_rate_becomes_hounsfield_units_in_memory(tmp_path):
    stored = ramp().transpose(2, 1, 0)
    empty, fixed = tmp_path / "empty.nii.gz", tmp_path / "fixed.nii.gz"
    nib.save(nib.Nifti1Image(stored, np.eye(4)), empty)
    nib.save(nib.Nifti1Image(stored - 1024, np.diag([-0.5, -0.7, 2, 1])), fixed)
    load = LoadCTd("image")
    raw = load({"image": str(empty), "meta": FIRST_RELEASE})["image"]
    np.testing.assert_array_equal(raw[0].numpy(), stored - 1024)
    np.testing.assert_allclose(raw.affine.numpy(), np.diag([-0.5, -0.7, 2, 1]))
    rewritten = load({"image": str(fixed), "meta": FIRST_RELEASE})["image"]  # never twice
    second = load({"image": str(fixed), "meta": {**FIRST_RELEASE, "in_hounsfield": 1}})["image"]
    assert torch.equal(raw.as_tensor(), second.as_tensor())
    assert torch.equal(raw.as_tensor(), rewritten.as_tensor())
    torch.testing.assert_close(raw.affine, second.affine)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"in_hounsfield": 1}, "not a chest CT in HU"),
        ({"in_hounsfield": "maybe"}, "meta.in_hounsfield is 'maybe'"),
        ({"spacing_mm": None}, "rescale or spacing cannot be used"),
        ({"rescale_intercept": -3072}, "far below air"),
    ],
)
def test_a_wrong_account_of_stored_values_is_refused(tmp_path, change, reason):
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(ramp().transpose(2, 1, 0), np.eye(4)), path)
    with pytest.raises(BadInputError, match=reason):
        LoadCTd("image")({"image": str(path), "meta": {**FIRST_RELEASE, **change}})


def test_a_series_in_run_length_code_equals_another_program_s_file_of_the_scan(shared_data):
    """RLE slices against a NIfTI that another program wrote: the same HU at the same places."""
    series = LoadCTd("image")({"image": str(shared_data / "dicom_series_lidc0001")})["image"]
    whole = nib.load(shared_data / "ct_volumes" / "lidc0001_ct.nii.gz")
    first = np.linalg.solve(whole.affine, series.affine.numpy() @ [0.5, 0.5, 0, 1])  # it has half the resolution
    np.testing.assert_allclose(first, [0, 0, 78, 1], atol=1e-4)
    blocks = torch.nn.functional.avg_pool3d(series.as_tensor(), (2, 2, 1))[0].numpy()
    theirs = np.asarray(whole.dataobj)[..., 78 : 78 + blocks.shape[2]]
    np.testing.assert_allclose(np.maximum(theirs, -1024), blocks, atol=0.5)  # it is rounded to integers


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
    lung, mediastinum, bone = WindowHUd("image", ["lung", "mediastinum", "bone"])({"image": hu})["image"][:, 0].numpy()
    np.testing.assert_allclose(lung, out[0, 0].numpy())
    np.testing.assert_allclose(mediastinum, out[1, 0].numpy())
    np.testing.assert_allclose(bone, [0, 0, 200 / 1800, 0.3, 0.5, 1], rtol=1e-6)


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
