"""No request names a file that it has no business with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from monai_medclip.app.ids import check_archive, check_id, guarded, is_upload
from monai_medclip.app.limits import Refused

BAD = ["", ".", "..", "../secret", "/etc/passwd", "a/b", "a\\b", "a\0b", "x" * 257, "a\nb"]


@pytest.mark.parametrize("identity", BAD)
def test_ways_out_of_a_folder_are_refused(identity: str) -> None:
    with pytest.raises(Refused, match="refused"):
        check_id(identity)


@pytest.mark.parametrize("identity", ["case 1", "1.2.840.113", "Größe", "a..b"])
def test_plain_names_pass(identity: str) -> None:
    assert check_id(identity) == identity


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x", "\\\\host\\x", "a\\..\\x"])
def test_archives_that_write_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="archive"):
        check_archive(["good.dcm", name])


def test_uploads_are_sessions_and_what_the_server_named_itself(tmp_path: Path) -> None:
    session = tmp_path / "sessions" / "1" / "image.nii.gz"
    session.parent.mkdir(parents=True)
    session.touch()
    assert is_upload(str(session), tmp_path / "sessions")
    assert is_upload(f"{tempfile.gettempdir()}/tmpab12_xyz.nii.gz", tmp_path)
    assert not is_upload(str(tmp_path / "sessions" / ".." / "secret"), tmp_path / "sessions")
    assert not is_upload("/etc/passwd", tmp_path / "sessions")
    link = tmp_path / "sessions" / "link"
    link.symlink_to("/etc/passwd")
    assert not is_upload(str(link), tmp_path / "sessions")


def test_every_id_of_a_datastore_is_checked_first() -> None:
    class Datastore:
        def get_image_uri(self, image_id: str) -> str:
            return f"images/{image_id}"

        def add_image(self, image_id: str, image_filename: str, image_info: object) -> str:
            return image_id

        def remove_image(self, image_id: str) -> None: ...

        def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
            return f"labels/{label_tag}/{label_id}"

        def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: object) -> str:
            return image_id

        def remove_label(self, label_id: str, label_tag: str) -> None: ...

    store = guarded(Datastore())
    assert store.get_image_uri("a") == "images/a"
    assert store.get_label_uri("a", "final") == "labels/final/a"
    assert store.add_image("", "file", {}) == ""
    asked = [
        lambda bad: store.get_image_uri(bad),
        lambda bad: store.add_image(bad, "file", {}),
        lambda bad: store.remove_image(bad),
        lambda bad: store.get_label_uri(bad, "final"),
        lambda bad: store.get_label_uri("a", bad),
        lambda bad: store.save_label(bad, "file", "final", {}),
        lambda bad: store.save_label("a", "file", bad, {}),
        lambda bad: store.remove_label(bad, "final"),
        lambda bad: store.remove_label("a", bad),
    ]
    for ask in asked:
        with pytest.raises(Refused):
            ask("../secret")
