"""Manifest rows whose file is a NumPy array become items with features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_medclip.data import feature_items


def item(path: Path, row: Any = None) -> dict[str, Any]:
    return {"id": f"{path.name}[{row}]", "image": str(path), "text": "Normal.", "features_row": row}


def test_one_vector_per_file_or_several_in_one(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "all.npy", vectors)
    np.save(tmp_path / "first.npy", vectors[0])
    np.save(tmp_path / "first_row.npy", vectors[:1])
    rows = [item(tmp_path / "all.npy", "0"), item(tmp_path / "all.npy", 1), item(tmp_path / "first.npy", "")]
    found = feature_items([*rows, item(tmp_path / "first_row.npy")])
    assert [one["features_row"] for one in found] == [0, 1, None, None]
    assert [one["features"] for one in found[:2]] == [str(tmp_path / "all.npy")] * 2
    digests = [one["features_sha256"] for one in found]
    assert digests[0] == digests[2] == digests[3] != digests[1]
    assert all("image" not in one and one["text"] == "Normal." for one in found)


@pytest.mark.parametrize(
    ("array", "row", "message"),
    [
        (np.zeros((2, 3)), None, "add a column features_row"),
        (np.zeros((2, 3)), 2, "features_row is 2"),
        (np.zeros((2, 3)), -1, "features_row is -1"),
        (np.zeros(3), 0, "features_row is 0"),
        (np.zeros((2, 3, 4)), 0, "features are floats"),
        (np.zeros((2, 3), np.int64), 0, "int64"),
    ],
)
def test_what_fits_no_item_names_file_or_item(tmp_path: Path, array: np.ndarray, row: Any, message: str) -> None:
    np.save(tmp_path / "f.npy", array)
    with pytest.raises(ValueError, match=f"(?i){message}"):
        feature_items([item(tmp_path / "f.npy", row)])


def test_a_file_that_is_no_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.npy").write_text("1 2 3")
    with pytest.raises(ValueError, match=r"f\.npy is no NumPy array"):
        feature_items([item(tmp_path / "f.npy")])
