"""A folder of CT studies becomes items, one per volume, which LoadCTd reads; what is left out is listed."""

from __future__ import annotations

import logging

import pytest

from monai_medclip.data import read_ct_folder, read_rejected, split_by_patient
from monai_medclip.transforms import LoadCTd

from ..transforms.make_ct import group, ramp, write_enhanced, write_series


@pytest.fixture
def root(tmp_path):
    """Two patients; one has two kernels in one folder, and a damaged file."""
    one = {"PatientID": "p1", "StudyInstanceUID": "1.1", "Manufacturer": "ACME"}
    write_series(tmp_path / "one", SeriesInstanceUID="1.1.30", ConvolutionKernel="B30f", SliceThickness=2.5, **one)
    write_series(tmp_path / "one", name="l", SeriesInstanceUID="1.1.70", ConvolutionKernel="B70f", **one)
    two = {"StudyInstanceUID": "2.1", "SeriesInstanceUID": "2.1.30", "SeriesDescription": "chest"}
    write_series(tmp_path / "two", **two)
    write_series(tmp_path / "two", (0, 1), name="short", **{**two, "SeriesInstanceUID": "2.1.31"})
    (tmp_path / "two" / "cut.dcm").write_bytes(b"cut")
    return tmp_path


def test_each_stack_is_an_item(root, caplog):
    with caplog.at_level(logging.INFO):
        items = read_ct_folder(root, min_slices=3, rejected=root / "rejected.csv", progress=False)
    assert [item["id"] for item in items] == ["1.1.30", "1.1.70", "2.1.30"]
    assert [item["patient_id"] for item in items] == ["p1", "p1", "2.1"]  # without PatientID the study stands in
    assert [item["study_id"] for item in items] == ["1.1", "1.1", "2.1"]
    assert items[0]["image"] == str(root / "one")
    expected = {"kernel": "B30f", "thickness_mm": 2.5, "spacing_mm": [0.25, 0.5, 2.5], "slices": 4, "description": ""}
    assert items[0]["meta"] == {**expected, "manufacturer": "ACME"}
    assert items[2]["meta"]["description"] == "chest"
    refused = {one.id: one.reason for one in read_rejected(root / "rejected.csv")}
    assert refused["2.1.31"] == "too few slices: 2, less than 3"
    assert "no DICM prefix" in refused[""]
    assert "3 CT stacks; left out: 1 too few slices, 1 unusable header" in caplog.text


def test_the_items_are_read_by_their_series_and_split_by_patient(root):
    items = read_ct_folder(root / "one", progress=False)
    load = LoadCTd("image", series="series_uid")
    assert [load(item)["image"].meta["series_uid"] for item in items] == ["1.1.30", "1.1.70"]
    assert len({item["split"] for item in split_by_patient(items, {"train": 0.5, "test": 0.5})}) == 1


def test_a_folder_without_ct_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_ct_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="no CT stack of 1 slices or more"):
        read_ct_folder(tmp_path, progress=False)
    with pytest.raises(ValueError, match="min_slices=0"):
        read_ct_folder(tmp_path, min_slices=0)


def test_a_multi_frame_object_is_its_file(tmp_path):
    places = [group(PlanePosition={"ImagePositionPatient": [0, 0, 3 * k]}) for k in range(4)]
    path = write_enhanced(tmp_path / "ct.dcm", ramp(), places, group(PixelMeasures={"PixelSpacing": [0.5, 0.25]}))
    (item,) = read_ct_folder(tmp_path, progress=False)
    assert item["image"] == path
    assert item["meta"]["spacing_mm"] == [0.25, 0.5, 3.0]


def test_the_real_series_is_one_item(shared_data):
    (item,) = read_ct_folder(shared_data / "dicom_series_lidc0001", progress=False)
    assert item["meta"]["slices"] == 24
    assert item["meta"]["spacing_mm"] == pytest.approx([0.703125, 0.703125, 2.5])
