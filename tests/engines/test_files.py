import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_medclip.engines.files import RESEARCH_USE, atomic_write, write_csv, write_json


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.txt"
    with atomic_write(path) as file:
        file.write_text("first")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write_text("half of the sec")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        interrupted()
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["result.txt"]


def test_json_says_what_it_is_for_and_holds_only_what_json_knows(tmp_path: Path) -> None:
    content = {
        "a": float("nan"),
        "b": np.float32(0.5),
        "c": torch.tensor([1, 2]),
        "d": {"e": (Path("x"), float("inf"))},
    }
    read = json.loads(write_json(tmp_path / "a.json", content).read_text(), parse_constant=pytest.fail)
    assert next(iter(read)) == "intended_use"
    assert read == {"intended_use": RESEARCH_USE, "a": None, "b": 0.5, "c": [1, 2], "d": {"e": ["x", None]}}


def test_csv_reads_back_equal(tmp_path: Path) -> None:
    rows = [{"id": 'a, "b"', "score": 0.1 + 0.2}, {"id": "c", "score": 1e-300, "late": 1}]
    with write_csv(tmp_path / "a.csv", rows).open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["id", "score", "late", "notice"]
    assert [(row["id"], float(row["score"])) for row in read] == [(row["id"], row["score"]) for row in rows]
    assert {row["notice"] for row in read} == {RESEARCH_USE}
