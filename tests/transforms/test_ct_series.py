"""Several stacks in one folder are told apart; one is chosen by rule, or the message lists them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from monai_medclip.transforms import (
    BadInputError,
    LoadCTd,
    check_ct_series,
    choose_ct_stack,
    find_ct_stacks,
    kernel_kind,
)

from .make_ct import AXIAL, write_series
from .make_dicom import write_dicom


@pytest.fixture
def study(tmp_path):
    """A soft and a lung series of one scan, subfolders, and what else comes along."""
    soft = {"SeriesInstanceUID": "1.2.30", "ConvolutionKernel": "B30f", "SliceThickness": 2.5}
    write_series(tmp_path / "a", SeriesDescription="mediastinum", **soft)
    lung = {"SeriesInstanceUID": "1.2.70", "ConvolutionKernel": ["Bl57d", "3"], "SliceThickness": 1.0}
    write_series(tmp_path / "b", (0, 1, 2, 3, 4), **lung)
    write_series(tmp_path / "b", (0,), name="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **lung)
    pixels = np.zeros((4, 4), np.int16)
    write_dicom(tmp_path / "b" / "seg.dcm", pixels, modality="SEG", SeriesInstanceUID="1.2.9")
    capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "SeriesInstanceUID": "1.2.8"}
    write_dicom(tmp_path / "b" / "dose.dcm", pixels, modality="CT", **capture)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "a" / "._0.dcm").write_text("what macOS leaves beside a file")
    return tmp_path


def test_stacks_are_found_in_subfolders_and_the_rest_is_counted(study, caplog):
    with caplog.at_level(logging.WARNING):
        soft, lung = find_ct_stacks(study)
    assert (soft.uid, soft.kernel, soft.slices, soft.thickness_mm) == ("1.2.30", "B30f", 4, 2.5)
    assert (lung.uid, lung.kernel, lung.slices, lung.description) == ("1.2.70", "Bl57d\\3", 5, "")
    np.testing.assert_allclose(soft.spacing_mm, (0.25, 0.5, 2.5))
    assert [name.rpartition("/")[2] for name in lung.files] == [f"{n}.dcm" for n in range(5)]
    assert "1 Modality SEG, 1 Secondary Capture Image Storage, 1 localizer" in caplog.text


@pytest.mark.parametrize(
    ("series", "slices"),
    [
        ("1.2.30", 4),
        ("soft", 4),
        ("lung", 5),
        ("most slices", 5),
        ("thinnest", 5),
        (["thinnest", "1.2.70"], 5),
        ("chosen", 4),
    ],
)
def test_one_stack_is_chosen(study, series, slices):
    volume = LoadCTd("image", series=series)({"image": str(study), "chosen": "1.2.30"})["image"]
    assert volume.shape[-1] == slices
    assert volume.meta["series_uid"] == {4: "1.2.30", 5: "1.2.70"}[slices]


@pytest.mark.parametrize("series", [None, "1.2.4", ["soft", "lung"]])
def test_a_choice_that_leaves_none_or_two_lists_the_stacks(study, series):
    with pytest.raises(BadInputError) as caught:
        LoadCTd("image", series=series)({"image": str(study)})
    assert "1.2.30 (mediastinum, kernel B30f, 4 slices 2.5 mm thick)" in caught.value.reason
    assert "1.2.70 (no description, kernel Bl57d\\3, 5 slices 1 mm thick)" in caught.value.reason
    assert "series=" in caught.value.remedy


def test_a_key_that_is_not_there_is_named(study):
    with pytest.raises(ValueError, match=r"series 'uid' is no rule .*no key of"):
        LoadCTd("image", series="uid")({"image": str(study)})


def test_two_kernels_in_one_series_are_two_stacks(tmp_path):
    """Some exporters write both under one SeriesInstanceUID; their slices lie at the same places."""
    write_series(tmp_path, name="s", ConvolutionKernel="STANDARD")
    write_series(tmp_path, name="l", ConvolutionKernel="LUNG")
    lung, standard = find_ct_stacks(tmp_path)
    assert [(one.uid, one.kernel, one.slices) for one in (lung, standard)] == [
        ("1.2.3_1", "LUNG", 4),
        ("1.2.3_2", "STANDARD", 4),
    ]
    assert LoadCTd("image", series="1.2.3_2")({"image": str(tmp_path)})["image"].meta["series_uid"] == "1.2.3_2"
    with pytest.raises(BadInputError, match=r"'1\.2\.3' fits 2"):
        choose_ct_stack([lung, standard], ["1.2.3"], tmp_path)


@pytest.mark.parametrize("change", [{"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, {"PixelSpacing": [0.6, 0.25]}])
def test_another_orientation_or_grid_is_another_stack(tmp_path, change):
    write_series(tmp_path)
    write_series(tmp_path, [(x, 0, 0) for x in range(5)], name="other", **change)
    assert sorted(stack.slices for stack in find_ct_stacks(tmp_path)) == [4, 5]


def test_rounded_direction_cosines_are_no_other_orientation(tmp_path):
    for number, z in enumerate((0, 2.5, 5)):
        cosines = [1, 1e-5 * number, 0, 0, 1, 0]
        write_series(tmp_path, (z,), name=str(number), ImageOrientationPatient=cosines)
    assert [stack.slices for stack in find_ct_stacks(tmp_path)] == [3]


@pytest.mark.parametrize("tag", ["TemporalPositionIdentifier", "AcquisitionNumber"])
def test_phases_that_visit_the_same_places_are_stacks(tmp_path, tag):
    for phase in (1, 2):
        write_series(tmp_path, name=f"phase{phase}-", **{tag: phase})
    assert [(stack.uid, stack.slices) for stack in find_ct_stacks(tmp_path)] == [("1.2.3_1", 4), ("1.2.3_2", 4)]


def test_acquisitions_one_above_the_other_are_one_volume(tmp_path):
    write_series(tmp_path, (0, 2.5, 5), name="low", AcquisitionNumber=1)
    write_series(tmp_path, (7.5, 10), name="high", AcquisitionNumber=2)
    (stack,) = find_ct_stacks(tmp_path)
    check_ct_series(stack, tmp_path)
    assert stack.slices == 5


def test_copies_are_read_once_and_other_doubles_are_refused(tmp_path, caplog):
    folder = tmp_path / "ct"
    write_series(folder)
    (folder / "copy.dcm").write_bytes((folder / "2.dcm").read_bytes())
    assert LoadCTd("image")({"image": str(folder)})["image"].shape[-1] == 4
    assert "1 copy of another file" in caplog.text
    write_series(folder, (5.0,), name="again")
    with pytest.raises(BadInputError, match=r"2\.50 mm apart, but once 0\.00 mm"):
        LoadCTd("image")({"image": str(folder)})


def test_a_field_of_view_that_moves_is_refused(tmp_path):
    path = write_series(tmp_path / "ct", [(0, 0, 0), (0, 0, 2), (9, 0, 4), (0, 0, 6)])
    with pytest.raises(BadInputError, match=r"slice 3 lies 9\.00 mm beside the line"):
        LoadCTd("image")({"image": path})


def test_a_scan_that_visits_one_place_twice_without_saying_why_is_refused(tmp_path):
    path = write_series(tmp_path / "ct", (5.0, 5.0, 5.0))
    with pytest.raises(BadInputError, match=r"but once 0\.00 mm"):
        LoadCTd("image")({"image": path})


@pytest.mark.parametrize("kind", ["ED", "US"])
def test_other_quantities_are_refused(tmp_path, kind):
    path = write_series(tmp_path / "ct", RescaleType=kind)
    with pytest.raises(BadInputError, match=f"Rescale Type is {kind}, not HU"):
        LoadCTd("image")({"image": path})
    assert LoadCTd("image", check_units=False)({"image": path})["image"].shape[-1] == 4
    assert LoadCTd("image")({"image": write_series(tmp_path / "hu", RescaleType="HU")})["image"].shape[-1] == 4


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"PixelSpacing": [0, 0]}, "PixelSpacing is 0.0 and 0.0 mm"),
        ({"ImageOrientationPatient": AXIAL[:3]}, "ImageOrientationPatient has 3 values, not 6"),
        ({"ConcatenationUID": "1.2.5", "InConcatenationTotalNumber": 3}, "one of 3 parts of a concatenation"),
    ],
)
def test_a_header_that_cannot_be_used_is_named(tmp_path, damage, reason):
    path = write_series(tmp_path / "ct", (0,), **damage)
    with pytest.raises(BadInputError, match=reason) as caught:
        LoadCTd("image")({"image": path})
    assert caught.value.file.endswith("0.dcm")


def test_a_file_under_a_wrong_name_is_named(tmp_path):
    (tmp_path / "slice.dcm").write_text("text")
    with pytest.raises(BadInputError, match=r"slice\.dcm.*no DICM prefix"):
        find_ct_stacks(tmp_path)


SOFT = ["B30f", "B31f", "B40s", "I31f\\3", "Br36d", "Qr40", "STANDARD", "soft", "FC03", "FC08", "FC18", "A", "B", "C"]
LUNG = ["B50f", "B70f", "B80s", "I70f", "Bl57d", "Bl64", "LUNG", "BONE", "BONEPLUS", "FC30", "FC50", "FC51", "L"]
NEITHER = ["", "B45f", "B46f", "DETAIL", "CHEST", "D", "FC23", "FC81", "H30s", "unknown", "YA"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [*((one, "soft") for one in SOFT), *((one, "lung") for one in LUNG), *((one, "") for one in NEITHER)],
)
def test_kernels_are_for_soft_tissue_or_lung_or_unknown(kernel, kind):
    assert kernel_kind(kernel) == kind
