"""Radiograph DICOM: known stored values in, known picture out, through pydicom and ITK alike."""

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import LoadImaged

from monai_medclip.transforms import (
    BadInputError,
    DisplayOrderd,
    ITKRadiographReader,
    LoadRadiographd,
    RadiographReader,
)
from monai_medclip.transforms.dicom import pixel_spacing, read_dicom

from .make_dicom import lut_item, ramp, write_dicom

HIGHEST = 4095  # of 12 bits


def picture(path: str, reader: str = "pydicom", **options) -> np.ndarray:
    """The pixels (rows, columns) as a reader gives them, in the film's own row and column order."""
    if reader == "itk":
        pytest.importorskip("itk")
    instance = {"pydicom": RadiographReader, "itk": ITKRadiographReader}[reader](**options)
    pixels, _ = instance.get_data(instance.read(path))
    return pixels.T


@pytest.fixture(params=["pydicom", "itk"])
def reader(request) -> str:
    return request.param


def test_stored_values_become_zero_to_one(tmp_path, reader):
    path = write_dicom(tmp_path / "film.dcm", ramp())
    np.testing.assert_allclose(picture(path, reader), ramp() / HIGHEST, atol=1e-6)


def test_monochrome1_is_inverted_so_that_bone_is_bright(tmp_path, reader):
    path = write_dicom(tmp_path / "film.dcm", ramp(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(picture(path, reader), 1 - ramp() / HIGHEST, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_comes_before_the_window(tmp_path, reader, photometric):
    # value = 2 * stored - 1000; the window 1000..3000 (PS3.3 LINEAR_EXACT) thus spans stored 1000..2000
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "RescaleType": "US"}
    window = {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}
    path = write_dicom(tmp_path / "film.dcm", ramp(), PhotometricInterpretation=photometric, **tags, **window)
    expected = np.clip((ramp() - 1000.0) / 1000, 0, 1)
    expected = 1 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_allclose(picture(path, reader), expected, atol=1e-5)
    unwindowed = ramp() / HIGHEST if photometric == "MONOCHROME2" else 1 - ramp() / HIGHEST
    np.testing.assert_allclose(picture(path, reader, voi=False), unwindowed, atol=1e-5)


def test_the_standards_linear_window_takes_half_a_step_off(tmp_path):
    # PS3.3 C.11.2.1.2.1 with c = 2048, w = 4096 is the identity of 12 bits
    path = write_dicom(tmp_path / "film.dcm", ramp(), WindowCenter=[2048, 5], WindowWidth=[4096, 10])
    np.testing.assert_allclose(picture(path), ramp() / HIGHEST, atol=1e-6)


def test_sigmoid_window_is_one_half_at_its_center(tmp_path):
    path = write_dicom(tmp_path / "f.dcm", ramp(), WindowCenter=1200, WindowWidth=400, VOILUTFunction="SIGMOID")
    assert picture(path).flat[1200] == pytest.approx(0.5)
    assert picture(path).flat[1300] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)  # 4 * 100 / 400 = 1


def test_invalid_window_is_not_applied(tmp_path):
    path = write_dicom(tmp_path / "film.dcm", ramp(), WindowCenter=10, WindowWidth=0)
    np.testing.assert_allclose(picture(path), ramp() / HIGHEST, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 12])
def test_voi_lut_wins_over_the_window_and_clamps_at_its_ends(tmp_path, reader, bits):
    entries = np.linspace(0, 2**bits - 1, 1000).astype(int)  # for stored values 500..1499
    path = write_dicom(
        tmp_path / "film.dcm", ramp(), VOILUTSequence=[lut_item(500, entries, bits)], WindowCenter=9, WindowWidth=9
    )
    expected = entries[np.clip(ramp().astype(int) - 500, 0, 999)] / (2**bits - 1)
    np.testing.assert_allclose(picture(path, reader), expected, atol=1e-6)


def test_modality_lut_is_applied(tmp_path):
    entries = np.arange(2400)[::-1] + 1600
    path = write_dicom(tmp_path / "film.dcm", ramp(), ModalityLUTSequence=[lut_item(0, entries, 12)])
    np.testing.assert_allclose(picture(path), entries.reshape(40, 60) / HIGHEST, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_pixel_padding_is_background_and_does_not_set_the_contrast(tmp_path, reader, photometric):
    stored = ramp() + 500
    stored[:, :10] = 4000  # padding far brighter than the film
    stored[:, 50:] = 3990
    padding = {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 3990}
    path = write_dicom(tmp_path / "film.dcm", stored, PhotometricInterpretation=photometric, **padding)
    assert (picture(path, reader)[:, :10] == 0).all()
    load = LoadRadiographd("image", reader=reader, percentiles=(0, 100))
    film = load({"image": path})["image"][0].T.numpy()
    assert (film[:, :10] == 0).all()
    assert (film[:, 50:] == 0).all()
    inside = film[:, 10:50]
    assert inside.min() == 0
    assert inside.max() == 1  # the film alone spans 0..1


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1, "ImagerPixelSpacing")),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.18, 0.09]}, (0.18, 0.09, "PixelSpacing")),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1, "ImagerPixelSpacing")),
        ({}, (1.0, 1.0, "")),
    ],
)
def test_spacing_reaches_the_affine(tmp_path, reader, tags, expected):
    path = write_dicom(tmp_path / "film.dcm", ramp(), **tags)
    assert pixel_spacing(read_dicom(path)) == pytest.approx(expected)
    if reader == "itk":
        pytest.importorskip("itk")
    image = LoadRadiographd("image", reader=reader)({"image": path})["image"]
    row_mm, column_mm, source = expected
    np.testing.assert_allclose(image.affine.numpy(), np.diag([-column_mm, -row_mm, 1, 1]), atol=1e-12)
    assert image.meta["spacing_source"] == source


def test_color_capture_becomes_its_luminance(tmp_path):
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[..., 1] = 100
    path = write_dicom(tmp_path / "film.dcm", stored, modality="OT", StudyDescription="Chest PA")
    np.testing.assert_allclose(picture(path), np.rint(58.7) / 255, atol=1e-6)


def test_rg1_comes_out_the_same_way_round_with_either_reader(shared_data):
    pytest.importorskip("itk")
    pytest.importorskip("openjpeg")
    films = {}
    for name in ("J2KI", "uncompressed"):
        for reader in ("pydicom", "itk"):
            item = {"image": str(shared_data / "dicom" / f"cxr_pa_RG1_{name}.dcm")}
            films[name, reader] = DisplayOrderd("image")(LoadRadiographd("image", reader=reader)(item))["image"]
    first = films["J2KI", "pydicom"]
    assert first.shape == (1, 1955, 1841)
    for film in films.values():
        np.testing.assert_allclose(film.numpy(), first.numpy(), atol=1e-6)
        np.testing.assert_allclose(film.affine.numpy(), first.affine.numpy())
    # Bone is bright: the spine (middle columns) is brighter than the lung beside it.
    assert first[0, 500:1000, 880:960].mean() > first[0, 500:1000, 400:560].mean() + 0.2
    # Stock ITK inverts MONOCHROME1, stock pydicom does not: both must correlate with ours as they should.
    ours = first[0].numpy()[::8, ::8].ravel()
    for stock, sign in (("ITKReader", 1), ("PydicomReader", -1)):
        item = {"image": str(shared_data / "dicom" / "cxr_pa_RG1_uncompressed.dcm")}
        loaded = LoadImaged("image", reader=stock, ensure_channel_first=True)(item)
        stored = DisplayOrderd("image")(loaded)["image"][0].numpy()[::8, ::8].ravel()
        assert np.corrcoef(ours, stored)[0, 1] * sign > 0.95


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ({"modality": "CT"}, "Modality is 'CT'", "LoadCTd"),
        ({"modality": "MG"}, "Modality is 'MG'", "add 'MG'"),
        ({"modality": "OT", "StudyDescription": "KNEE"}, "Modality is 'OT'", "add 'OT'"),
        ({"NumberOfFrames": 2}, "2 frames", "one frame per file"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "color palette", "MONOCHROME2"),
    ],
)
def test_what_is_not_one_radiograph_is_refused(tmp_path, reader, change, reason, remedy):
    if reader == "itk":
        pytest.importorskip("itk")
    path = write_dicom(tmp_path / "film.dcm", ramp(), **change)
    with pytest.raises(BadInputError) as caught:
        LoadRadiographd("image", reader=reader)({"image": path})
    assert caught.value.file == path
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy
    assert path in str(caught.value)


def damaged(folder, kind):
    path = folder / "film.dcm"
    if kind == "missing":
        return str(path)
    write_dicom(path, ramp())
    if kind == "no pixels":
        dataset = read_dicom(path)
        del dataset.PixelData
        dataset.save_as(path)
    if kind == "cut in the pixels":
        path.write_bytes(path.read_bytes()[:-2000])
    if kind == "cut in the header":
        path.write_bytes(path.read_bytes()[:300])
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "text":
        path.write_text("not a DICOM file at all" * 20)
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "no pixels", "cut in the pixels", "cut in the header", "empty", "text"])
def test_damaged_files_are_named_with_a_remedy(tmp_path, reader, kind):
    if reader == "itk":
        pytest.importorskip("itk")
    path = damaged(tmp_path, kind)
    with pytest.raises(BadInputError) as caught:
        LoadRadiographd("image", reader=reader)({"image": path})
    assert caught.value.file == path
    assert caught.value.reason
    assert caught.value.remedy


def test_truncated_jpeg2000_is_refused(tmp_path, shared_data):
    pytest.importorskip("openjpeg")
    whole = (shared_data / "dicom" / "cxr_pa_RG1_J2KI.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match=r"cut\.dcm"):
        LoadRadiographd("image")({"image": str(path)})
