"""Items become three sides, in order; what leaks is refused, or dropped from the lesser side and listed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import LeakError, feature_items, partition, read_rejected, read_split_manifest


def make_items(folder: Path, splits: list[str]) -> list[dict[str, Any]]:
    items = []
    for number, split in enumerate(splits):
        path = folder / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 48), dtype=np.uint8)).save(path)
        item = {"id": f"i{number}", "patient_id": f"p{number}", "image": str(path), "text": "Normal.", "split": split}
        items.append(item)
    return items


def ids(side: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in side]


def test_sides_keep_the_order_and_are_written_with_hashes(tmp_path: Path) -> None:
    items = make_items(tmp_path, ["test", "train", "val", "train"])
    sides = partition(items, folder=tmp_path / "run")
    assert [ids(side) for side in sides] == [["i1", "i3"], ["i2"], ["i0"]]
    rows = read_split_manifest(tmp_path / "run" / "splits.json")
    assert [(row.id, row.split) for row in rows] == [("i0", "test"), ("i1", "train"), ("i2", "val"), ("i3", "train")]
    assert not (tmp_path / "run" / "leaks.csv").exists()


def test_an_unknown_side_names_the_item_and_the_remedy(tmp_path: Path) -> None:
    items = make_items(tmp_path, ["train", "holdout"])
    with pytest.raises(ValueError, match=r"i1: its split is 'holdout' \(1 items are like it\)"):
        partition(items)


def test_parts_are_used_only_where_no_item_names_its_split(tmp_path: Path) -> None:
    parts = {"train": 0.5, "val": 0.25, "test": 0.25}
    sides = partition(make_items(tmp_path, [""] * 8), parts=parts, seed=1)
    assert [len(side) for side in sides] == [4, 2, 2]
    assert [ids(side) for side in partition(make_items(tmp_path, [""] * 8), parts=parts, seed=1)] == list(
        map(ids, sides)
    )
    named = make_items(tmp_path, ["train", "val", "test"])
    assert [ids(side) for side in partition(named, parts=parts)] == [["i0"], ["i1"], ["i2"]]
    with pytest.raises(ValueError, match="its split is ''"):
        partition(make_items(tmp_path, ["train", ""]), parts=parts)


def test_a_copied_image_raises_or_leaves_the_lesser_side(tmp_path: Path) -> None:
    items = make_items(tmp_path, ["train", "val", "test", "train", "val"])
    shutil.copy(items[2]["image"], items[0]["image"])  # train = test
    shutil.copy(items[2]["image"], items[1]["image"])  # val = test = train
    with pytest.raises(LeakError, match="'i0'"):
        partition(items)
    sides = partition(items, folder=tmp_path / "run", on_leak="drop")
    assert [ids(side) for side in sides] == [["i3"], ["i4"], ["i2"]]
    assert {one.id for one in read_rejected(tmp_path / "run" / "leaks.csv")} == {"i0", "i1"}
    assert [row.id for row in read_split_manifest(tmp_path / "run" / "splits.json")] == ["i2", "i3", "i4"]


def test_a_patient_on_two_sides_is_never_dropped_silently(tmp_path: Path) -> None:
    items = make_items(tmp_path, ["train", "test"])
    items[1]["patient_id"] = "p0"
    with pytest.raises(LeakError, match="patient"):
        partition(items, folder=tmp_path, on_leak="drop")


def test_dropping_needs_a_list_and_a_known_word(tmp_path: Path) -> None:
    items = make_items(tmp_path, ["train", "test"])
    shutil.copy(items[0]["image"], items[1]["image"])
    with pytest.raises(ValueError, match="needs a folder"):
        partition(items, on_leak="drop")
    with pytest.raises(ValueError, match="on_leak='ignore'"):
        partition(items, on_leak="ignore")


def test_equal_feature_vectors_on_two_sides_leak_as_equal_images_do(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(3, 4))
    array[2] = array[0]
    np.save(tmp_path / "features.npy", array)
    rows = [
        {"id": f"i{row}", "patient_id": f"p{row}", "image": str(tmp_path / "features.npy"), "features_row": str(row)}
        for row in range(3)
    ]
    items = [{**row, "split": side} for row, side in zip(feature_items(rows), ("train", "val", "test"), strict=True)]
    with pytest.raises(LeakError, match="identical features: 'i0'") as caught:
        partition(items)
    assert len(caught.value.leaks) == 1
    sides = partition(items, folder=tmp_path, on_leak="drop")
    assert [ids(side) for side in sides] == [[], ["i1"], ["i2"]]
    assert read_split_manifest(tmp_path / "splits.json")[0].image_sha256 == items[1]["features_sha256"]
