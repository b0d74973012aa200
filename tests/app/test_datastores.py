"""Datastores behind the server: every id is checked, and a series is read whole and from one place."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")

from monailabel.datastore.dicom import DICOMWebDatastore

from monai_medclip.app.datastores import guarded
from monai_medclip.app.limits import Refused


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


class Stock(DICOMWebDatastore):
    """What MONAI Label 0.8.5 does with a series, without an archive."""

    def __init__(self, folder: Path, *, fails: bool = False) -> None:
        self._datastore = SimpleNamespace(image_path=lambda: str(folder))
        self.folder, self.fails, self.fetched = folder, fails, 0

    def get_image_uri(self, image_id: str) -> str:
        series, made = self.folder / image_id, self.folder / f"{image_id}.nii.gz"
        if not series.exists():
            series.mkdir()
            (series / "1.dcm").touch()
            time.sleep(0.05)
            if self.fails:
                raise ConnectionError("the archive went away")
            (series / "2.dcm").touch()
            self.fetched += 1
        if not made.exists():
            temporary = self.folder.parent / "tmpabcdefgh.nii.gz"
            temporary.write_text("made")
            made.write_text("made")
            return str(temporary)  # the first time, as stock does
        return str(made)


def test_the_first_answer_is_the_cached_file_too_and_nothing_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    store = guarded(Stock(tmp_path / "cache"))
    expected = str(tmp_path / "cache" / "1.2.nii.gz")
    assert [store.get_image_uri("1.2"), store.get_image_uri("1.2")] == [expected, expected]
    assert not (tmp_path / "tmpabcdefgh.nii.gz").exists()


def test_several_threads_fetch_a_series_once_and_see_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    store, seen = guarded(Stock(tmp_path / "cache")), []

    def ask() -> None:
        store.get_image_uri("1.2")
        seen.append(len(list((tmp_path / "cache" / "1.2").iterdir())))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store.fetched, seen) == (1, [2] * 4)


def test_half_a_series_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    store = guarded(Stock(tmp_path / "cache", fails=True))
    with pytest.raises(ConnectionError):
        store.get_image_uri("1.2")
    assert not (tmp_path / "cache" / "1.2").exists()
