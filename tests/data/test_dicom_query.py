"""Which images a folder and an archive have to ask about, and what is said of the rest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from monai_medclip.data import Archive, ArchiveError, DicomCases, archive_cases, folder_cases, parse_query

from ..transforms.make_ct import write_series
from ..transforms.make_dicom import ramp, write_dicom
from .stub_archive import Answer, identifiers, stub_archive

CAPTURE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.66.4"
PARAMETRIC_MAP, REPORT = "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.88.33"
DX, CT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2"


def film(path: Path, sop_uid: str, **tags: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "SOPInstanceUID": sop_uid, **tags}
    return Path(write_dicom(path, ramp(4, 4), **header))


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Two radiographs, one of them a capture, a CT of four slices, and what an archive exports beside them."""
    root = tmp_path / "studies"
    film(root / "a" / "film.dcm", "1.1.1.1")
    film(root / "a" / "published", "1.1.1.2", SOPClassUID=CAPTURE, modality="CR")
    write_series(root / "ct", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3")
    for number, (sop_class, modality) in enumerate(
        [(CAPTURE, "OT"), (SEGMENTATION, "SEG"), (PARAMETRIC_MAP, "OT"), (PARAMETRIC_MAP, "DX"), (REPORT, "SR")]
    ):
        film(root / "b" / f"result{number}.dcm", f"1.1.2.{number}", SOPClassUID=sop_class, modality=modality)
    return root


def reasons(found: DicomCases) -> list[str]:
    return [one.reason for one in found.left_out]


def test_every_radiograph_is_a_case_and_results_are_not(studies: Path) -> None:
    found = folder_cases(studies, volumes=False, progress=False)
    assert [(case.key, case.study_uid, case.series_uid) for case in found.cases] == [
        ("1.1.1.1", "1.1", "1.1.1"),
        ("1.1.1.2", "1.1", "1.1.1"),
    ]
    assert [case.file for case in found.cases] == [str(studies / "a" / "film.dcm"), str(studies / "a" / "published")]
    assert not any(one.remedy for one in found.left_out)
    assert reasons(found)[:5] == [
        "Secondary Capture Image Storage is a result, not an image of the patient",
        "Segmentation Storage is a result, not an image of the patient",
        "Parametric Map Storage is a result, not an image of the patient",
        "Parametric Map Storage is a result, not an image of the patient",
        "Comprehensive SR Storage is a result, not an image of the patient",
    ]
    assert reasons(found)[5:] == ["Modality CT: this bundle reads CR, DX, RG"] * 4


def test_a_ct_series_is_one_case_wherever_its_slices_lie(studies: Path) -> None:
    moved = next((studies / "ct").iterdir())
    (studies / "elsewhere").mkdir()
    shutil.move(moved, studies / "elsewhere" / moved.name)
    (case,) = folder_cases(studies, volumes=True, progress=False).cases
    assert (case.key, case.study_uid, len(case.instances)) == ("1.2.3", "1.2", 4)


def test_copies_are_skipped_and_damaged_files_fail(studies: Path) -> None:
    shutil.copy(studies / "a" / "film.dcm", studies / "a" / "copy.dcm")
    (studies / "a" / "damaged.dcm").write_bytes(b"no DICOM at all")
    (studies / "a" / "notes.txt").write_text("no DICOM")
    (studies / "a" / ".hidden.dcm").write_bytes(b"")
    found = folder_cases(studies / "a", volumes=False, progress=False)
    assert [case.key for case in found.cases] == ["1.1.1.1", "1.1.1.2"]
    damaged, copy = sorted(found.left_out, key=lambda one: one.reason, reverse=True)
    assert (damaged.reason, bool(damaged.remedy)) == ("unusable header: not a DICOM file: no DICM prefix", True)
    assert (copy.reason.split(":")[0], copy.remedy) == ("copy of another file", "")


def test_headers_without_uids_are_cases_by_their_files(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        film(tmp_path / name, "", StudyInstanceUID="", SeriesInstanceUID="")
    assert [case.key for case in folder_cases(tmp_path, volumes=False, progress=False).cases] == [
        str(tmp_path / "a.dcm"),
        str(tmp_path / "b.dcm"),
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        folder_cases(tmp_path / "nowhere", volumes=False)


def test_an_archive_is_asked_for_the_bundles_modalities_and_results_are_left_out() -> None:
    pytest.importorskip("dicomweb_client", reason="an archive needs the dicomweb extra")
    film_series = identifiers(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", Modality="DX")
    objects = [
        identifiers(SOPClassUID=DX, SOPInstanceUID="1.1.1.1"),
        identifiers(SOPClassUID=PARAMETRIC_MAP, SOPInstanceUID="1.1.1.2"),
    ]
    answers = [Answer(), Answer(body=[film_series]), Answer(), Answer(), Answer(body=objects), Answer()]
    with stub_archive(answers) as stub:  # no CR; one DX series, no more of them; no RG; two objects, no more
        found = archive_cases(Archive(stub.url, {}), {"StudyDate": "20200101-20201231"}, volumes=False, progress=False)
    asked = [one.path for one in stub.asked]
    assert all("StudyDate=20200101-20201231" in path for path in asked[:4])
    assert [path.partition("Modality=")[2][:2] for path in asked[:4]] == ["CR", "DX", "DX", "RG"]
    assert asked[4].startswith("/dicom-web/studies/1.1/series/1.1.1/instances?")
    assert [(case.key, case.file) for case in found.cases] == [("1.1.1.1", "")]
    assert reasons(found) == ["Parametric Map Storage is a result, not an image of the patient"]


def test_a_series_of_another_modality_is_skipped_unasked_and_one_without_list_fails() -> None:
    pytest.importorskip("dicomweb_client", reason="an archive needs the dicomweb extra")
    series = [
        identifiers(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", Modality="PT"),
        identifiers(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2", Modality="CT"),
    ]
    with stub_archive([Answer(body=series), Answer(), Answer(500)]) as stub:
        found = archive_cases(Archive(stub.url, {}), {"Modality": "*"}, volumes=True, progress=False)
    assert (found.cases, len(stub.asked)) == ((), 3)
    skipped, failed = found.left_out
    assert (skipped.reason, skipped.remedy) == ("Modality PT: this bundle reads CT", "")
    assert (failed.reason, bool(failed.remedy)) == ("the archive refused to list objects: HTTP status 500", True)


def test_an_archive_that_is_gone_ends_the_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = pytest.importorskip("monai_medclip.data.dicom_session", reason="an archive needs the dicomweb extra")
    monkeypatch.setattr(session, "_BACKOFF_MS", 1)
    with stub_archive([Answer()]) as stub:
        url = stub.url
    with pytest.raises(ArchiveError, match="does not answer"):
        archive_cases(Archive(url, {}), {}, volumes=True, progress=False)


def test_a_query_is_read_by_keyword() -> None:
    assert parse_query(["Modality=DX", "StudyDate=20200101-", "PatientID=A=1"]) == {
        "Modality": "DX",
        "StudyDate": "20200101-",
        "PatientID": "A=1",
    }


@pytest.mark.parametrize("words", [["Modality"], ["Modality="], ["Colour=red"], ["PatientID=1", "PatientID=2"]])
def test_what_is_no_query_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=words[0].split("=")[0]):
        parse_query(words)
