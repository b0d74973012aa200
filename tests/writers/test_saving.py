"""A file is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medclip.writers.saving import write_whole


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "map.npy"
    assert write_whole(path, b"one") == path
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_former_file(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "map.npy", b"former")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]
