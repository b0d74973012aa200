"""Patient and study are the source's, whatever its header looks like, and none of it reaches a log."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec

import pydicom
import pytest

from monai_medclip.writers import DICOM_KINDS, dicom_results, dicom_source, write_dicom_results
from monai_medclip.writers.dicom_parts import highdicom

from .dicom_sources import PATIENT, SAYS, own_map, write_ct, write_film

needs_highdicom = pytest.mark.skipif(find_spec("highdicom") is None, reason="highdicom is not installed")
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime")


def test_without_highdicom_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r'pip install "monai-medclip\[highdicom\]"'):
        highdicom()


@needs_highdicom
@pytest.mark.parametrize(
    "oddity",
    [
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "山田^太郎"},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Bär"},  # no caret: highdicom would warn and print it
        {"PatientID": "", "PatientName": ""},
        {"StudyDate": "", "StudyTime": "", "PatientBirthDate": "", "StudyID": "", "AccessionNumber": ""},
        {"PatientSex": "U"},  # not a value of the standard
        {"PatientBirthDate": "1940"},  # not a date of the standard
    ],
)
def test_identity_is_copied_as_it_is(tmp_path, oddity):
    path = write_film(tmp_path, **oddity)
    files = write_dicom_results(tmp_path / "out", path, own_map(path), SAYS, kinds=DICOM_KINDS)
    assert len(files) == 4
    for file in files:
        read = pydicom.dcmread(file)
        for tag in IDENTITY:
            assert str(read[tag].value or "") == {**PATIENT, **oddity}[tag], (file.name, tag)


@needs_highdicom
def test_attributes_that_the_source_lacks_are_empty(tmp_path):
    path = write_film(tmp_path)
    bare = pydicom.dcmread(path)
    for tag in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        delattr(bare, tag)
    bare.save_as(path)
    for dataset in dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS):
        assert [dataset[tag].value or "" for tag in ("PatientName", "PatientID", "StudyDate", "StudyID")] == [""] * 4


@needs_highdicom
def test_a_trial_and_its_de_identification_go_along(tmp_path):
    trial = {"ClinicalTrialSubjectID": "S-12", "ClinicalTrialProtocolID": "T-1", "PatientIdentityRemoved": "YES"}
    path = write_film(tmp_path, **trial)
    for dataset in dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS):
        assert {tag: dataset[tag].value for tag in trial} == trial
        assert dataset.DeidentificationMethod == "not stated in the source image"


@needs_highdicom
def test_no_patient_data_reaches_logs_warnings_or_the_screen(tmp_path, caplog, capfd, recwarn):
    planted = {"PatientName": "Planted", "PatientID": "PLANTED-ID", "PatientBirthDate": "PLANTED"}
    path = write_ct(tmp_path / "ct", **planted)
    recwarn.clear()  # pydicom's, from writing such a birth date
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        dicom_results(path, own_map(path), SAYS, kinds=DICOM_KINDS)
    said = caplog.text + "".join(capfd.readouterr()) + "".join(str(one.message) for one in recwarn)
    assert "planted" not in said.lower()


@needs_highdicom
def test_references_name_each_source_once(tmp_path):
    path = write_ct(tmp_path / "ct")
    wanted = [one.SOPInstanceUID for one in dicom_source(path).headers]
    for dataset in dicom_results(path, own_map(path), SAYS, kinds=("parametric_map", "segmentation", "capture")):
        assert [one.ReferencedSOPInstanceUID for one in dataset.SourceImageSequence] == wanted
        (series,) = dataset.ReferencedSeriesSequence
        assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == wanted


@needs_highdicom
def test_whoever_changes_one_object_changes_no_other(tmp_path):
    path = write_film(tmp_path)
    source = dicom_source(path)
    first, second = dicom_results(source, own_map(path), SAYS, kinds=("parametric_map", "report"))
    first.PatientName, first.PatientID = "Nobody", ""
    assert {str(one.PatientName) for one in (second, source.headers[0])} == {PATIENT["PatientName"]}
