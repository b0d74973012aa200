"""The archive's door: what is tried again, what is told, and that credentials and patients stay out of it."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from monai_medclip.data import Archive, ArchiveError, is_archive

from .stub_archive import Answer, identifiers, stub_archive, taken

session = pytest.importorskip("monai_medclip.data.dicom_session", reason="an archive needs the dicomweb extra")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_BACKOFF_MS", 1)


def series(uid: str) -> dict[str, Any]:
    return identifiers(StudyInstanceUID="1.1", SeriesInstanceUID=uid)


def test_a_busy_archive_is_asked_again_and_then_it_is_told() -> None:
    with stub_archive([Answer(503), Answer(503), Answer(body=[series("1.2")]), Answer()]) as stub:
        assert [one.SeriesInstanceUID for one in Archive(stub.url, {}).series({})] == ["1.2"]
    with stub_archive([Answer(503)]) as stub:
        with pytest.raises(ArchiveError, match="HTTP status 503 after 4 attempts") as caught:
            Archive(stub.url, {}).series({})
        assert (len(stub.asked), caught.value.status) == (4, 0)


def test_a_refusal_is_not_asked_again_and_names_the_remedy() -> None:
    with stub_archive([Answer(401)]) as stub:
        with pytest.raises(ArchiveError, match=r"HTTP status 401\. Set MEDCLIP_DICOMWEB_USERNAME") as caught:
            Archive(stub.url, {}).series({"PatientID": "secret-17"})
        assert (len(stub.asked), caught.value.status) == (1, 401)
        assert "secret-17" in stub.asked[0].path
        assert "secret-17" not in str(caught.value)


@pytest.mark.parametrize("answer", [Answer(body=b"<html>", kind="text/html"), Answer(body=[1]), Answer(body=b"[{")])
def test_an_answer_that_is_no_dicom_is_told(answer: Answer) -> None:
    with stub_archive([answer]) as stub, pytest.raises(ArchiveError, match="no DICOM"):
        Archive(stub.url, {}).series({})


def test_all_pages_are_read_of_archives_that_give_few_and_of_those_that_ignore_the_offset() -> None:
    pages = [Answer(body=[series("1.1"), series("1.2")]), Answer(body=[series("1.3")]), Answer()]
    with stub_archive(pages) as stub:
        assert len(Archive(stub.url, {}).series({})) == 3
        assert [one.path.partition("offset=")[2].partition("&")[0] for one in stub.asked] == ["0", "2", "3"]
    with stub_archive([Answer(body=[series("1.1"), series("1.2")])]) as stub:
        assert len(Archive(stub.url, {}).series({})) == 2


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({session.USERNAME: "ann", session.PASSWORD: "pw"}, f"Basic {base64.b64encode(b'ann:pw').decode()}"),
        ({session.TOKEN: "abc"}, "Bearer abc"),
    ],
)
def test_credentials_come_from_the_environment(environment: dict[str, str], header: str | None) -> None:
    with stub_archive([Answer()]) as stub:
        Archive(stub.url, environment).series({})
    assert stub.asked[0].headers.get("Authorization") == header


@pytest.mark.parametrize(
    "environment",
    [
        {session.USERNAME: "ann"},
        {session.PASSWORD: "pw"},
        {session.USERNAME: "ann", session.PASSWORD: "pw", session.TOKEN: "abc"},
    ],
)
def test_half_or_double_credentials_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="none of the three"):
        Archive("http://127.0.0.1:9/", environment)


@pytest.mark.parametrize("url", ["ftp://archive/x", "https://", "https://ann:pw@archive/dicom-web"])
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="archive's address") as caught:
        Archive(url, {})
    assert "pw@" not in str(caught.value)


def test_credentials_in_the_clear_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Archive("http://archive.example/dicom-web", {session.TOKEN: "abc"})
        assert "in the clear" in caplog.text
        caplog.clear()
        Archive("https://archive.example/dicom-web", {session.TOKEN: "abc"})
    assert "abc" not in caplog.text
    assert not caplog.records


def test_every_request_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def send(self: Any, request: Any, **options: Any) -> Any:
        limits.append(options["timeout"])
        raise OSError

    monkeypatch.setattr(session.HTTPAdapter, "send", send)
    with pytest.raises(ArchiveError, match="does not answer"):
        Archive("https://archive.example/dicom-web", {}).series({})
    assert limits == [(session._CONNECT_S, session._READ_S)] * 4


def test_large_objects_are_sent_whole_on_every_attempt() -> None:
    """In chunks, the client's second attempt would send an empty body."""
    one = Dataset.from_json(identifiers(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SOPInstanceUID="1.2.3"))
    one.add_new("PixelData", "OB", bytes(2_000_000))
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    if int(pydicom.__version__.split(".")[0]) < 3:
        one.is_little_endian, one.is_implicit_VR = True, False
    with stub_archive([Answer(503), Answer(body=taken("1.2.3"))]) as stub:
        answer = Archive(stub.url, {}).store(one)
    assert answer.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    first, second = stub.asked
    assert len(first.body) > 2_000_000
    assert first.body == second.body


def test_addresses_are_told_from_folders() -> None:
    assert is_archive("HTTPS://archive/dicom-web")
    assert not is_archive("studies/http")
