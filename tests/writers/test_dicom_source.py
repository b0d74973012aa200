"""What results refer to: films, classic and multi-frame CT, with their slices in order and their text as Unicode."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.transforms import BadInputError, LoadCTd
from monai_medclip.writers import dicom_source
from monai_medclip.writers.maps import ras_affine

from ..transforms.make_ct import write_series
from ..transforms.make_dicom import write_dicom
from .dicom_sources import (
    FRAME_OF_REFERENCE,
    ORIENTATIONS,
    PATIENT,
    SERIES,
    own_map,
    places,
    write_ct,
    write_film,
    write_multiframe,
)


def test_a_film_has_a_nominal_grid(tmp_path):
    path = write_film(tmp_path)
    source = dicom_source(path)
    assert (source.grid, source.shape, source.stack) == ((32, 24, 1), (32, 24), None)
    np.testing.assert_array_equal(source.affine, np.diag([-0.25, -0.5, 1, 1]))
    assert source.slices[0].frame is None
    assert source.slice_spacing_mm is None


def test_films_without_a_frame_of_reference_do_not_share_one(tmp_path):
    paths = [write_film(tmp_path / name) for name in "ab"]
    first, second, again = (dicom_source(path).frame_of_reference_uid for path in (*paths, paths[0]))
    assert first == again != second
    assert dicom_source(write_film(tmp_path, FrameOfReferenceUID="1.2.5")).frame_of_reference_uid == "1.2.5"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slices_are_those_that_the_reader_stacks(tmp_path, orientation):
    path = write_ct(tmp_path / "ct", orientation)
    source = dicom_source(path)
    np.testing.assert_allclose([one.position_mm for one in source.slices], places(orientation), atol=1e-6)
    np.testing.assert_allclose(source.affine, ras_affine(own_map(path)))
    assert (source.grid, source.shape) == ((8, 6, 4), (8, 6, 4))
    assert source.slice_spacing_mm == pytest.approx(2.5)
    assert source.frame_of_reference_uid == FRAME_OF_REFERENCE
    numbers = [int(source.headers[one.header].InstanceNumber) for one in source.slices]
    assert numbers == [4, 3, 2, 1]
    assert "PixelData" not in source.headers[0]


def test_frames_count_from_one(tmp_path):
    source = dicom_source(write_multiframe(tmp_path / "ct.dcm"))
    assert len(source.headers) == 1
    assert [one.frame for one in source.slices] == [2, 4, 1, 3]
    np.testing.assert_allclose([one.position_mm for one in source.slices], places("axial"))


def test_slices_without_a_place_lie_where_the_reader_puts_them(tmp_path):
    path = write_ct(tmp_path / "ct", ImagePositionPatient=None, FrameOfReferenceUID="")
    source = dicom_source(path)
    np.testing.assert_allclose(source.affine, ras_affine(LoadCTd("image", check_units=False)({"image": path})["image"]))
    np.testing.assert_allclose([one.position_mm for one in source.slices], [(0, 0, 2.5 * k) for k in range(4)])
    assert source.frame_of_reference_uid


def test_thickness_is_the_distance_of_slices_where_the_header_has_none(tmp_path):
    assert dicom_source(write_ct(tmp_path / "ct", SliceThickness=None)).thickness_mm == pytest.approx(2.5)


def test_one_of_several_series_is_named(tmp_path):
    write_ct(tmp_path / "a")
    write_ct(tmp_path / "b", SeriesInstanceUID=f"{SERIES}.9")
    with pytest.raises(BadInputError, match="2 CT stacks"):
        dicom_source(tmp_path)
    assert dicom_source(tmp_path, series=[f"{SERIES}.9"]).headers[0].SeriesInstanceUID == f"{SERIES}.9"


@pytest.mark.parametrize(
    ("charset", "name"), [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "山田^太郎"), ("ISO_IR 144", "Иванов^Иван")]
)
def test_names_are_unicode_whatever_the_source_is_written_in(tmp_path, charset, name):
    header = dicom_source(write_film(tmp_path, SpecificCharacterSet=charset, PatientName=name)).headers[0]
    assert str(header.PatientName) == name


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_what_cannot_be_referred_to_is_refused(tmp_path, tag):
    with pytest.raises(BadInputError, match=f"the header has no {tag}"):
        dicom_source(write_film(tmp_path, **{tag: ""}))


def test_what_is_no_chest_image_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        dicom_source(tmp_path / "none.dcm")
    ultrasound = write_dicom(
        tmp_path / "us.dcm", np.zeros((4, 4), np.uint16), modality="US", **PATIENT, SeriesInstanceUID=SERIES
    )
    with pytest.raises(BadInputError, match="Modality is 'US'"):
        dicom_source(ultrasound)


def test_a_series_with_a_gap_is_refused(tmp_path):
    folder = write_series(tmp_path / "gap", (0, 1, 3, 4), **PATIENT, FrameOfReferenceUID="1.2.5")
    with pytest.raises(BadInputError, match="missing or doubled"):
        dicom_source(folder)
