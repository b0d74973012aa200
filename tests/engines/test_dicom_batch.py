"""A folder of studies becomes DICOM results and a table; what fails is listed, what is done is not done again."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_medclip.data import ArchiveError, make_phantom
from monai_medclip.engines import BatchRequest, BundleModel, run_dicom_batch
from monai_medclip.engines.dicom_ledger import Ledger
from monai_medclip.writers import FolderStore

from ..data.stub_archive import Answer, identifiers, stub_archive
from ..transforms.make_dicom import ramp, write_dicom
from .served import untrained_run

pytest.importorskip("highdicom", reason="DICOM results need the highdicom extra")

PROMPTS = ("nodule", "left pleural effusion")
REPORT, CAPTURE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
PATIENT = "Confidential^Jane"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    make_phantom(folder, patients=3, image_size=64, progress=False)
    return folder / "images"


@pytest.fixture
def studies(films: Path, tmp_path: Path) -> Path:
    """Three radiographs, a result of ours, a CT slice, a damaged file and a film without pixels."""
    folder = tmp_path / "studies"
    shutil.copytree(films, folder)
    write_dicom(folder / "capture.dcm", ramp(4, 4), modality="OT", SOPClassUID=CAPTURE, BodyPartExamined="CHEST")
    write_dicom(folder / "ct.dcm", ramp(4, 4), modality="CT")
    (folder / "damaged.dcm").write_bytes(b"not DICOM")
    blind = pydicom.dcmread(next(folder.rglob("*000.dcm")))
    blind.SOPInstanceUID = blind.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    blind.PatientName = PATIENT
    del blind.PixelData
    blind.save_as(folder / "blind.dcm")
    return folder


def ask(run: Path, studies: Path | str, output: Path, **options: Any) -> Any:
    request = BatchRequest(run, str(studies), output, prompts=PROMPTS, kinds=("capture", "report"))
    return run_dicom_batch(request._replace(**options), progress=False)


def table(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def objects(output: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted((output / "dicom").rglob("*.dcm"))]


@pytest.fixture(scope="module")
def whole(run: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "out"
    summary = ask(run, films, output)
    assert (summary.done, summary.failed, summary.skipped, summary.resumed) == (3, 0, 0, 0)
    return output


def test_every_radiograph_gets_its_objects_and_its_lines(whole: Path, run: Path, films: Path) -> None:
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, films.rglob("*.dcm"))}
    rows = table(whole)
    model = BundleModel.open(run)
    assert {row["sop_uid"] for row in rows} == set(sources)
    assert len(rows) == 3 * (len(model.findings) + 1)  # of two prompts, one is no finding
    assert {row["status"] for row in rows} == {"done"}
    assert {(row["model_version"], row["notice"][:17]) for row in rows} == {(model.version, "Research use only")}
    for row in rows:
        report = pydicom.dcmread(whole / "dicom" / row["report"])
        assert report.SOPClassUID == REPORT
        assert report.StudyInstanceUID == sources[row["sop_uid"]].StudyInstanceUID == row["study_uid"]
        assert report.PatientID == sources[row["sop_uid"]].PatientID
        assert bool(row["objects"]) == bool(row["prompt"])
        if row["objects"]:
            capture = pydicom.dcmread(whole / "dicom" / row["objects"])
            assert row["prompt"] in capture.SeriesDescription
    assert len(objects(whole)) == 3 * (len(PROMPTS) + 1)
    assert not (whole / "unfinished").exists()


def test_scores_are_the_models(whole: Path, run: Path, films: Path) -> None:
    model = BundleModel.open(run)
    for file in films.rglob("*.dcm"):
        uid = pydicom.dcmread(file).SOPInstanceUID
        rows = [row for row in table(whole) if row["sop_uid"] == uid]
        assert {Path(row["file"]) for row in rows} == {file}
        for row in rows:
            (score,) = model.scores(model.study(file), [row["prompt"] or row["finding"]])
            np.testing.assert_allclose(float(row["logit"]), score.logit, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(float(row["probability"]), score.probability, rtol=1e-4)


def test_failures_and_skipped_objects_are_listed_and_the_rest_is_done(run: Path, studies: Path, tmp_path: Path) -> None:
    summary = ask(run, studies, tmp_path / "out")
    assert (summary.done, summary.failed, summary.skipped) == (3, 2, 2)
    rows = {Path(row["file"]).name: row for row in table(tmp_path / "out")}
    assert rows["blind.dcm"]["reason"] == "the DICOM file has no pixel data"
    assert rows["damaged.dcm"]["reason"] == "unusable header: not a DICOM file: no DICM prefix"
    assert {rows[name]["status"] for name in ("blind.dcm", "damaged.dcm")} == {"failed"}
    assert all(rows[name]["remedy"] for name in ("blind.dcm", "damaged.dcm"))
    assert rows["ct.dcm"]["reason"] == "Modality CT: this bundle reads CR, DX, RG"
    assert "is a result" in rows["capture.dcm"]["reason"]
    assert {rows[name]["status"] for name in ("ct.dcm", "capture.dcm")} == {"skipped"}
    assert str(summary) == f"3 done, 2 failed, 2 skipped: see {tmp_path / 'out' / 'results.csv'}"


def test_no_patient_reaches_the_log(
    run: Path,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    film = pydicom.dcmread(next(films.rglob("*.dcm")))
    film.PatientName = PATIENT
    film["PatientBirthDate"] = pydicom.DataElement(
        "PatientBirthDate", "DA", f"born {PATIENT}", validation_mode=pydicom.config.IGNORE
    )  # pydicom warns of it with its value
    (tmp_path / PATIENT).mkdir()
    film.save_as(tmp_path / PATIENT / "film.dcm")
    recwarn.clear()
    with caplog.at_level(logging.INFO):
        summary = ask(run, tmp_path / PATIENT, tmp_path / "out")
    printed = capfd.readouterr()
    assert (summary.done, PATIENT in table(tmp_path / "out")[0]["file"]) == (1, True)
    warned = " ".join(str(one.message) for one in recwarn)
    assert PATIENT not in caplog.text + printed.out + printed.err + warned + str(summary)


def test_no_patient_of_an_archive_reaches_the_log_either(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder, monkeypatch: Any
) -> None:
    session = pytest.importorskip("monai_medclip.data.dicom_session", reason="an archive needs the dicomweb extra")
    monkeypatch.setattr(session, "_BACKOFF_MS", 1)
    listed = identifiers(StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1", Modality="PT")
    listed["00100030"] = {"vr": "DA", "Value": [f"born {PATIENT}"]}
    query = {"Modality": "PT", "PatientID": PATIENT}
    with caplog.at_level(logging.INFO):
        with stub_archive([Answer(body=[listed]), Answer()]) as stub:
            assert ask(run, stub.url, tmp_path / "out", query=query).skipped == 1
        with pytest.raises(ArchiveError, match="does not answer") as caught:  # it is gone; the query is in its address
            ask(run, stub.url, tmp_path / "out", query=query)
    warned = " ".join(str(one.message) for one in recwarn)
    assert "Confidential" not in caplog.text + warned + str(caught.value)  # the rest is encoded in an address


def test_a_finished_batch_is_not_asked_again(
    whole: Path, run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.dcm")}
    with pytest.raises(ValueError, match="add --resume"):
        ask(run, films, tmp_path / "out")
    monkeypatch.setattr(BundleModel, "study", lambda *_: pytest.fail("asked again"))
    summary = ask(run, films, tmp_path / "out", resume=True)
    assert (summary.done, summary.resumed) == (3, 3)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert table(tmp_path / "out") == table(whole)


def test_a_failure_is_tried_again_on_resuming(run: Path, studies: Path, films: Path, tmp_path: Path) -> None:
    ask(run, studies, tmp_path / "out")
    good = pydicom.dcmread(next(films.rglob("*001.dcm")))
    good.SOPInstanceUID = good.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    good.save_as(studies / "blind.dcm")
    (studies / "damaged.dcm").unlink()
    summary = ask(run, studies, tmp_path / "out", resume=True)
    assert (summary.done, summary.failed, summary.resumed) == (4, 0, 3)
    assert {row["status"] for row in table(tmp_path / "out")} == {"done", "skipped"}


def test_a_kill_between_storing_and_telling_stores_nothing_twice(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    end = Ledger.end
    monkeypatch.setattr(Ledger, "end", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(run, films, tmp_path / "out")
    monkeypatch.setattr(Ledger, "end", end)
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.dcm")}
    assert len(stored) == len(PROMPTS) + 1
    assert table(tmp_path / "out") == []
    summary = ask(run, films, tmp_path / "out", resume=True)
    assert (summary.done, summary.resumed) == (3, 0)
    assert {file: file.stat().st_mtime_ns for file in stored} == stored
    assert len(objects(tmp_path / "out")) == 3 * (len(PROMPTS) + 1)


def test_a_batch_stops_when_the_archive_stays_silent(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any, **__: Any) -> None:
        raise ArchiveError("the archive does not answer", "Wait.")

    monkeypatch.setattr(FolderStore, "store", silent)
    with pytest.raises(ArchiveError, match="does not answer"):
        ask(run, films, tmp_path / "out")
    assert [row["status"] for row in table(tmp_path / "out")] == ["failed"] * 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "guessing"}, "unknown method 'guessing'"),
        ({"kinds": ("picture",)}, "name one or more of parametric_map"),
        ({"query": {"Modality": "DX"}}, "a query .Modality. is for an archive"),
        ({"prompts": ("x" * 301,)}, "a prompt of 301 characters"),
    ],
)
def test_a_request_that_cannot_be_met_ends_the_batch(
    run: Path, films: Path, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        ask(run, films, tmp_path / "out", **options)
    assert ask(run, films, tmp_path / "out", prompts=(), kinds=("report",)).done == 3  # and leaves nothing behind


def test_a_bundle_without_probabilities_tells_logits(films: Path, tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run", rule="positive")
    ask(run, films, tmp_path / "out", prompts=("nodule",), kinds=("report",))
    rows = table(tmp_path / "out")
    assert {row["probability"] for row in rows} == {""}
    assert all(row["logit"] for row in rows)
    report = pydicom.dcmread(next((tmp_path / "out").rglob("*.dcm")))
    assert "logit=" in report.SeriesDescription
    assert "p=" not in report.SeriesDescription


def test_ct_stacks_of_one_series_are_asked_one_by_one(tmp_path: Path) -> None:
    tiny = untrained_run(tmp_path / "run", "ct", volume_size=[16, 16, 16], voxel_mm=[20.0, 20.0, 20.0])
    make_phantom(tmp_path / "ct", patients=1, image_size=32, modality="CT", slices=24, progress=False)
    for file in list((tmp_path / "ct").rglob("*.dcm")):  # the same slices again with another kernel
        header = pydicom.dcmread(file)
        header.ConvolutionKernel = "B70f"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{header.SOPInstanceUID[:-4]}.7"
        header.save_as(file.with_name(f"sharp_{file.name}"))
    summary = ask(tiny, tmp_path / "ct", tmp_path / "out", prompts=("nodule",))
    assert (summary.done, summary.failed) == (2, 0)
    uids = sorted({row["stack_uid"] for row in table(tmp_path / "out")})
    assert [uid.rpartition("_")[2] for uid in uids] == ["1", "2"]
    assert len(objects(tmp_path / "out")) == 4
