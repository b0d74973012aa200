"""Feature vectors out of NumPy files: the right row, the right length, or an error that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_medclip.transforms import BadInputError, LoadFeaturesd


@pytest.fixture
def path(tmp_path: Path) -> Path:
    array = np.arange(12, dtype=np.float64).reshape(3, 4)
    array[2, 1] = np.nan
    np.save(tmp_path / "all.npy", array)
    np.save(tmp_path / "one.npy", array[1])
    np.save(tmp_path / "one_row.npy", array[1:2])
    return tmp_path


@pytest.mark.parametrize(("name", "row"), [("all", 1), ("all", "1"), ("one", None), ("one", ""), ("one_row", None)])
def test_the_vector_of_the_item(path: Path, name: str, row: Any) -> None:
    item = LoadFeaturesd(width=4)({"id": "a", "features": str(path / f"{name}.npy"), "features_row": row})
    assert item["features"].dtype == torch.float32
    assert item["features"].tolist() == [4, 5, 6, 7]
    assert item["id"] == "a"


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("absent", 0, r"absent\.npy: the features cannot be read"),
        ("all", None, r"all\.npy: an array of shape \(3, 4\) has no vector for row None"),
        ("all", 3, "has no vector for row 3"),
        ("one", 0, "has no vector for row 0"),
        ("all", 2, "row 2 holds NaN"),
    ],
)
def test_bad_input_names_the_file(path: Path, name: str, row: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        LoadFeaturesd()({"features": str(path / f"{name}.npy"), "features_row": row})


def test_a_network_of_another_width_is_no_match(path: Path) -> None:
    with pytest.raises(BadInputError, match="has 4 features, the network takes 1024"):
        LoadFeaturesd(width=1024)({"features": str(path / "one.npy")})
