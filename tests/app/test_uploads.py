"""Dropped studies: kept apart from each other, bounded in number, size and time."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import pytest

from monai_medclip.app.dropped_files import DroppedFile
from monai_medclip.app.limits import Limits, Refused
from monai_medclip.app.uploads import Place, Uploads

from .served import radiograph

LIMITS = Limits(upload_bytes=1 << 20, seconds=1)


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    return radiograph(tmp_path / "film").read_bytes()


def files(*contents: bytes) -> list[DroppedFile]:
    return [DroppedFile(f"slice {number}.dcm", BytesIO(content)) for number, content in enumerate(contents)]


def test_one_file_is_a_file_and_slices_are_a_folder(film: bytes) -> None:
    uploads = Uploads()
    one, many = uploads.place(uploads.add(files(film), LIMITS)), uploads.place(uploads.add(files(film, film), LIMITS))
    assert one is not None
    assert many is not None
    assert one.path.read_bytes() == film
    assert [path.read_bytes() for path in sorted(many.path.iterdir())] == [film, film]


def test_ids_cannot_be_guessed_and_the_folder_is_private(film: bytes) -> None:
    uploads = Uploads()
    keys = [uploads.add(files(film), LIMITS) for _ in range(3)]
    assert all(len(key.removeprefix("upload-")) == 32 for key in keys)
    assert len(set(keys)) == 3
    place = uploads.place(keys[0])
    assert place is not None
    assert place.path.parents[1].stat().st_mode & 0o077 == 0
    assert uploads.place("upload-" + "0" * 32) is None


def test_the_oldest_go_when_there_are_too_many(film: bytes) -> None:
    uploads = Uploads(studies=2)
    keys = [uploads.add(files(film), LIMITS) for _ in range(3)]
    assert [uploads.place(key) is not None for key in keys] == [False, True, True]
    assert len(uploads) == 2


def test_the_oldest_go_when_they_are_too_large(film: bytes) -> None:
    tight = LIMITS._replace(upload_bytes=len(film))  # four of them in all
    uploads = Uploads()
    keys = [uploads.add(files(film), tight) for _ in range(6)]
    assert [uploads.place(key) is not None for key in keys] == [False, False, True, True, True, True]


def test_studies_are_forgotten_after_a_while_and_their_files_deleted(film: bytes) -> None:
    uploads = Uploads(seconds=0.05)
    key = uploads.add(files(film), LIMITS)
    place = uploads.place(key)
    assert place is not None
    deadline = time.monotonic() + 5
    while place.path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert uploads.place(key) is None
    assert not place.path.parent.exists()


def test_nothing_stays_of_what_is_refused(film: bytes) -> None:
    uploads = Uploads()
    kept = uploads.place(uploads.add(files(film), LIMITS))
    assert kept is not None
    with pytest.raises(Refused):
        uploads.add([DroppedFile("letter.txt", BytesIO(b"hello"))], LIMITS)
    assert len(uploads) == 1
    assert list(kept.path.parents[1].iterdir()) == [kept.path.parent]


def test_words_about_a_study_name_files_as_their_sender_does() -> None:
    place = Place(Path("/srv/x/up"), {Path("/srv/x/up"): "the upload", Path("/srv/x/up/00001.dcm"): "IM 1"})
    said = place.cleaned("/srv/x/up/00001.dcm: damaged (OSError: '/srv/other/file.so'), 1/2 of /srv/x/up. See n/a.")
    assert said == "IM 1: damaged (OSError: 'file.so'), 1/2 of the upload. See n/a."
