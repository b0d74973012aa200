"""Results are stored once, whole, where they should; and what an archive refuses is told with its reason."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from monai_medclip.data import Archive, ArchiveError
from monai_medclip.writers import ArchiveStore, FolderStore, RefusedError

from ..data.stub_archive import Answer, identifiers, refusal, stub_archive, taken
from ..transforms.make_dicom import ramp, write_dicom

OBJECT = {"StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1", "SOPInstanceUID": "1.1.1.1"}
JSON_WITH_CHARSET = "application/dicom+json; charset=utf-8"


@pytest.fixture
def film(tmp_path: Path) -> Dataset:
    return pydicom.dcmread(write_dicom(tmp_path / "film.dcm", ramp(4, 6), **OBJECT))


def test_a_folder_holds_what_was_stored(tmp_path: Path, film: Dataset) -> None:
    store = FolderStore(tmp_path / "out")
    assert store.store([film]) == ["1.1/1.1.1.1.dcm"]
    back = pydicom.dcmread(tmp_path / "out" / "1.1" / "1.1.1.1.dcm")
    assert back == film
    assert (back.pixel_array == ramp(4, 6)).all()
    assert len(list(tmp_path.rglob("out/1.1/*"))) == 1


def test_a_second_attempt_leaves_what_is_there_and_a_new_one_replaces_it(tmp_path: Path, film: Dataset) -> None:
    store = FolderStore(tmp_path / "out")
    store.store([film])
    film.SeriesDescription = "changed"
    file = tmp_path / "out" / "1.1" / "1.1.1.1.dcm"
    assert store.store([film], again=True) == ["1.1/1.1.1.1.dcm"]
    assert "SeriesDescription" not in pydicom.dcmread(file)
    store.store([film])
    assert pydicom.dcmread(file).SeriesDescription == "changed"


def test_a_uid_that_is_a_path_is_refused(tmp_path: Path, film: Dataset) -> None:
    film["StudyInstanceUID"] = pydicom.DataElement("StudyInstanceUID", "LO", "../../up")
    with pytest.raises(RefusedError, match="digits and dots"):
        FolderStore(tmp_path / "out").store([film])
    assert not (tmp_path / "up").exists()


@pytest.fixture
def _client(monkeypatch: pytest.MonkeyPatch) -> None:
    session = pytest.importorskip("monai_medclip.data.dicom_session", reason="an archive needs the dicomweb extra")
    monkeypatch.setattr(session, "_BACKOFF_MS", 1)


@pytest.mark.usefixtures("_client")
def test_an_archive_is_sent_the_object_and_its_uid_comes_back(film: Dataset) -> None:
    with stub_archive([Answer(body=taken("1.1.1.1"), kind=JSON_WITH_CHARSET)]) as stub:
        assert ArchiveStore(Archive(stub.url, {})).store([film]) == ["1.1.1.1"]
    (asked,) = stub.asked
    assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
    assert ramp(4, 6).tobytes() in asked.body


@pytest.mark.usefixtures("_client")
@pytest.mark.parametrize("kind", ["application/dicom+json", JSON_WITH_CHARSET])
@pytest.mark.parametrize("status", [202, 409])
def test_a_refused_object_is_told_with_its_reason_and_ends_the_storing(film: Dataset, status: int, kind: str) -> None:
    with stub_archive([Answer(status, refusal("1.1.1.1", 0x0122), kind)]) as stub:
        with pytest.raises(RefusedError, match="does not take this kind of object") as caught:
            ArchiveStore(Archive(stub.url, {})).store([film, film])
        assert len(stub.asked) == 1
    assert "(0x0122)" in caught.value.reason
    assert "Computed Radiography Image" in caught.value.reason
    assert "--kinds" in caught.value.remedy


@pytest.mark.usefixtures("_client")
def test_a_refusal_without_words_is_one_too(film: Dataset) -> None:
    with (
        stub_archive([Answer(403, b"no", "text/plain")]) as stub,
        pytest.raises(RefusedError, match=r"HTTP status 403\. Set MEDCLIP"),
    ):
        ArchiveStore(Archive(stub.url, {})).store([film])


@pytest.mark.usefixtures("_client")
def test_an_archive_that_does_not_answer_is_no_refusal(film: Dataset) -> None:
    with stub_archive([Answer(503)]) as stub, pytest.raises(ArchiveError, match="503 after 4 attempts"):
        ArchiveStore(Archive(stub.url, {})).store([film])


@pytest.mark.usefixtures("_client")
@pytest.mark.parametrize("found", [True, False])
def test_an_archive_that_says_nothing_is_searched(film: Dataset, found: bool) -> None:
    listed = Answer(body=[identifiers(**OBJECT)]) if found else Answer(404)
    with stub_archive([Answer(200, b"", ""), listed, Answer()]) as stub:
        store = ArchiveStore(Archive(stub.url, {}))
        if found:
            assert store.store([film]) == ["1.1.1.1"]
        else:
            with pytest.raises(RefusedError, match="does not list it"):
                store.store([film])
    assert "SOPInstanceUID=1.1.1.1" in stub.asked[1].path


@pytest.mark.usefixtures("_client")
def test_a_second_attempt_sends_only_what_is_missing(film: Dataset) -> None:
    with stub_archive([Answer(body=[identifiers(**OBJECT)]), Answer()]) as stub:
        ArchiveStore(Archive(stub.url, {})).store([film], again=True)
    assert {one.method for one in stub.asked} == {"GET"}
    with stub_archive([Answer(), Answer(body=taken("1.1.1.1"))]) as stub:
        ArchiveStore(Archive(stub.url, {})).store([film], again=True)
    assert [one.method for one in stub.asked] == ["GET", "POST"]
