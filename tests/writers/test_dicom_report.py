"""The report says each probability with its prompt, model and method, and refers to images and heatmaps."""

from __future__ import annotations

from collections.abc import Iterator

import pydicom
import pytest
from pydicom.dataset import Dataset

from monai_medclip.writers import DICOM_KINDS, Statement, dicom_results, dicom_source, write_dicom_results

from .dicom_sources import PATIENT, SAYS, TWO, own_map, write_source

pytest.importorskip("highdicom")


def items(dataset: Dataset) -> Iterator[Dataset]:
    """All content items below one."""
    for item in dataset.get("ContentSequence") or ():
        yield item
        yield from items(item)


def meaning(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def named(dataset: Dataset, name: str) -> list[Dataset]:
    return [item for item in items(dataset) if "ConceptNameCodeSequence" in item and meaning(item) == name]


def number(group: Dataset, name: str) -> float:
    (item,) = named(group, name)
    return float(item.MeasuredValueSequence[0].NumericValue)


@pytest.fixture
def written(tmp_path):
    """A report of two prompts and a finding, read back, beside the objects that it goes with."""
    path = write_source(tmp_path, "oblique")
    maps = own_map(path).repeat(2, 1, 1, 1)
    *others, report = write_dicom_results(tmp_path / "out", path, maps, TWO, kinds=DICOM_KINDS)
    return pydicom.dcmread(report), [pydicom.dcmread(one) for one in others], dicom_source(path)


def test_each_prompt_and_finding_has_its_numbers(written):
    report, _, _ = written
    groups = named(report, "Measurement Group")
    assert [number(group, "Probability") for group in groups] == [0.83, 0.27, 0.45]
    assert [number(group, "Score as log odds") for group in groups] == [1.6, -1.0, -0.2]
    findings = [named(group, "Finding")[0].ConceptCodeSequence[0].CodeMeaning for group in groups]
    assert findings == ["left pleural effusion", "nodule", "cardiomegaly"]
    texts = [named(group, "Tracking Identifier")[0].TextValue for group in groups]
    assert texts == ["prompt 1: left pleural effusion", "prompt 2: nodule", "finding 1: cardiomegaly"]


def test_each_group_names_model_version_family_prompt_and_method(written):
    group = named(written[0], "Measurement Group")[0]
    assert named(group, "Algorithm Name")[0].TextValue == "phantom CLIP"
    assert named(group, "Algorithm Version")[0].TextValue == "0123456789ab"
    assert named(group, "Algorithm Family")[0].ConceptCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    parameters = [one.TextValue for one in named(group, "Algorithm Parameters")]
    assert "prompt: left pleural effusion" in parameters
    assert "explanation method: recommended" in parameters
    assert any("Research use only" in one for one in parameters)


def test_it_refers_to_the_images_and_to_what_was_written_of_each_prompt(written):
    report, others, source = written
    headers = [one.SOPInstanceUID for one in source.headers]
    (library,) = named(report, "Image Library Group")
    in_library = [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in named(library, "Source")]
    assert in_library == headers
    groups = named(report, "Measurement Group")
    kinds = ("Saliency", "Illustration of Finding")
    shown = [
        [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for kind in kinds for one in named(group, kind)]
        for group in groups
    ]
    uids = [one.SOPInstanceUID for one in others]
    assert shown == [uids[:3], uids[3:], []]
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert evidence == {*headers, *uids}


def test_it_is_of_the_patient_and_says_that_nobody_verified_it(written):
    report = written[0]
    assert str(report.PatientName) == PATIENT["PatientName"]
    assert report.AccessionNumber == PATIENT["AccessionNumber"]
    assert (report.Modality, report.CompletionFlag, report.VerificationFlag) == ("SR", "COMPLETE", "UNVERIFIED")
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.SeriesDescription == "MedCLIP report: left pleural effusion p=0.83, nodule p=0.27,..."


def test_findings_alone_make_a_report_without_maps(tmp_path):
    path = write_source(tmp_path, "film")
    (report,) = dicom_results(path, None, SAYS._replace(answers=()), kinds=("report",))
    (group,) = named(report, "Measurement Group")
    assert number(group, "Probability") == 0.45


def test_a_long_prompt_is_whole_in_its_text_and_cut_in_its_code(tmp_path):
    path = write_source(tmp_path, "film")
    long = "Verdichtung im linken Unterlappen, die größer ist als bei der Voruntersuchung im März"
    says = SAYS._replace(answers=(Statement(long, 0.0, 0.5),), findings=())
    (file,) = write_dicom_results(tmp_path / "out", path, None, says, kinds=("report",))
    (group,) = named(pydicom.dcmread(file), "Measurement Group")
    assert named(group, "Tracking Identifier")[0].TextValue == f"prompt 1: {long}"
    code = named(group, "Finding")[0].ConceptCodeSequence[0]
    assert len(code.CodeMeaning) == 64
    assert len(code.CodeValue) == 16
