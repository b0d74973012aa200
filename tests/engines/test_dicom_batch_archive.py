"""A real archive (Orthanc): studies found, read and answered, results stored, found and read back; a kill survived."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_medclip.data import Archive, DicomCases, archive_cases, case_folder, make_phantom
from monai_medclip.engines import BatchRequest, BatchSummary, run_dicom_batch
from monai_medclip.writers import ArchiveStore

from .served import untrained_run

if shutil.which("Orthanc") is None:
    pytest.skip("no archive to test with: install orthanc and orthanc-dicomweb", allow_module_level=True)
for needed in ("highdicom", "dicomweb_client", "requests_toolbelt"):
    pytest.importorskip(needed, reason="needs the dicomweb extra, and requests-toolbelt")

from ..e2e.servers import DICOMWEB_PLUGIN, orthanc  # noqa: E402 (it needs requests)

if not DICOMWEB_PLUGIN.is_file():
    pytest.skip("Orthanc has no DICOMweb: install orthanc-dicomweb", allow_module_level=True)

FILMS = 5
PROMPTS, KINDS = ("nodule",), ("parametric_map", "capture", "report")
SLOW_BATCH = """
import sys, time
from monai_medclip.engines import BatchRequest, run_dicom_batch
from monai_medclip.writers import ArchiveStore

store = ArchiveStore.store

def slowly(self, objects, *, again=False):
    places = store(self, objects, again=again)
    time.sleep(1)  # stored, and not yet told
    return places

ArchiveStore.store = slowly
bundle, url, output = sys.argv[1:]
run_dicom_batch(BatchRequest(bundle, url, output, prompts=("nodule",), stow=url), progress=False)
"""


class Shelf:
    """Orthanc with five radiographs and a CT, and how often it was given each object."""

    def __init__(self, found: Any, films: Path) -> None:
        self.found, self.films, self.url = found, films, found.dicomweb
        self.archive = Archive(self.url, {})

    def given(self) -> Counter[str]:
        """Orthanc's numbers of the objects, once for each time that one was given."""
        import requests

        changes = requests.get(f"{self.found.rest}/changes", params={"limit": 10_000}, timeout=10).json()["Changes"]
        return Counter(change["ID"] for change in changes if change["ChangeType"] == "NewInstance")

    def results(self, sop_class: str) -> list[pydicom.Dataset]:
        series = [one for modality in ("OT", "SR") for one in self.archive.series({"Modality": modality})]
        found = [
            self.archive.fetch(one.StudyInstanceUID, one.SeriesInstanceUID, listed.SOPInstanceUID)
            for one in series
            for listed in self.archive.instances(one.StudyInstanceUID, one.SeriesInstanceUID)
        ]
        return [one for one in found if one.SOPClassUID == sop_class]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_phantom(folder / "dx", patients=FILMS, image_size=64, progress=False)
    make_phantom(folder / "ct", patients=1, image_size=32, modality="CT", slices=24, progress=False)
    return folder


@pytest.fixture
def shelf(images: Path, tmp_path: Path) -> Iterator[Shelf]:
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with orthanc(folder) as found:
        shelf = Shelf(found, images / "dx" / "images")
        ArchiveStore(shelf.archive).store([pydicom.dcmread(file) for file in sorted(images.rglob("*.dcm"))])
        yield shelf


def ask(run: Path, shelf: Shelf, output: Path, **options: Any) -> BatchSummary:
    request = BatchRequest(run, shelf.url, output, prompts=PROMPTS, kinds=KINDS, stow=shelf.url)
    return run_dicom_batch(request._replace(**options), progress=False)


def table(output: Path) -> list[dict[str, str]]:
    with (output / "results.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def cases(shelf: Shelf, **query: str) -> DicomCases:
    return archive_cases(shelf.archive, query, volumes=query.get("Modality") == "CT", progress=False)


def test_what_was_stored_is_found_by_query_and_read_back_equal(shelf: Shelf, tmp_path: Path) -> None:
    sources = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, shelf.films.rglob("*.dcm"))}
    found = cases(shelf).cases
    assert {case.key for case in found} == set(sources)
    for number, case in enumerate(found):
        with case_folder(case, tmp_path / str(number), shelf.archive) as (file,):
            back = pydicom.dcmread(file)
            assert back == sources[case.key]
            assert (back.pixel_array == sources[case.key].pixel_array).all()
    (ct,) = cases(shelf, Modality="CT").cases
    assert len(ct.instances) == 24
    one = sources[found[0].key]
    assert [case.key for case in cases(shelf, PatientID=one.PatientID, StudyDate="20200101-20201231").cases] == [
        one.SOPInstanceUID
    ]
    assert cases(shelf, StudyDate="20210101-").cases == ()
    assert shelf.archive.holds(one)
    one.SOPInstanceUID = "1.2.3"
    assert not shelf.archive.holds(one)


def test_a_batch_stores_results_of_every_study_in_it(run: Path, shelf: Shelf, tmp_path: Path) -> None:
    summary = ask(run, shelf, tmp_path / "out")
    assert (summary.done, summary.failed) == (FILMS, 0)
    sources = {one.StudyInstanceUID: one for one in map(pydicom.dcmread, shelf.films.rglob("*.dcm"))}
    for sop_class in ("1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.33"):
        stored = shelf.results(sop_class)
        assert {one.StudyInstanceUID for one in stored} == set(sources)
        assert [one.PatientID for one in stored] == [sources[one.StudyInstanceUID].PatientID for one in stored]
    asked = [row for row in table(tmp_path / "out") if row["prompt"]]
    reports = {one.SOPInstanceUID for one in shelf.results("1.2.840.10008.5.1.4.1.1.88.33")}
    assert {row["report"] for row in asked} == reports
    assert {len(row["objects"].split()) for row in asked} == {2}
    assert {row["file"] for row in asked} == {""}
    assert not (tmp_path / "out" / "dicom").exists()
    own = ask(run, shelf, tmp_path / "again", query={"Modality": "OT"})  # maps and captures that are there now
    assert (own.done, own.failed, own.skipped) == (0, 0, 2 * FILMS)


def test_a_batch_that_is_killed_goes_on_and_nothing_is_stored_twice(run: Path, shelf: Shelf, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = shelf.given()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SLOW_BATCH, str(run), shelf.url, str(output)]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 120
        ledger = output / "ledger.jsonl"
        while not ledger.exists() or ledger.read_text().count('"begun"') < 3:
            assert process.poll() is None, "the batch ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ledger.read_text().count('"ended"') == 2
    assert (output / "unfinished").exists()  # of the case at hand, in the output folder and nowhere else
    summary = ask(run, shelf, output, resume=True)
    assert (summary.done, summary.failed, summary.resumed) == (FILMS, 0, 2)
    given = shelf.given() - before
    assert set(given.values()) == {1}
    assert len(given) == 3 * FILMS
    asked = [row["sop_uid"] for row in table(output) if row["prompt"]]
    assert len(asked) == len(set(asked)) == FILMS
    assert not (output / "unfinished").exists()
