"""Features on disk: vectors stand beside whose they are, a killed run goes on, and what changed is made anew."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_medclip.data import feature_items, read_manifest
from monai_medclip.engines import FeatureExtractor, feature_table
from monai_medclip.transforms import BadInputError, LoadFeaturesd

Item = dict[str, Any]


class Moments(nn.Module):
    """Mean, lowest and highest value of an image, times a weight; dropout, so that train and eval mode differ."""

    width = 3

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.dropout = nn.Dropout(0.5)
        self.seen = 0
        self.dies_at: int | None = None

    def forward(self, image: Tensor) -> Tensor:
        self.seen += len(image)
        if self.dies_at is not None and self.seen > self.dies_at:
            raise KeyboardInterrupt
        flat = image.flatten(1)
        return self.dropout(torch.stack([flat.mean(1), flat.amin(1), flat.amax(1)], dim=1) * self.weight)


def load(item: Item) -> Item:
    image = np.load(item["image"])
    if image.std() == 0:
        raise BadInputError(item["image"], "the image is constant", "Export it again.")
    return {**item, "image": torch.from_numpy(image)[None]}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_table, "BLOCK", 4)


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, list[Item]]:
    """Ten images with masks: seven to train on, one to validate on, two to test on."""
    rows = []
    (tmp_path / "images").mkdir()
    (tmp_path / "mask.nii").touch()
    for number in range(10):
        np.save(tmp_path / "images" / f"{number}.npy", np.random.default_rng(number).random((6, 5), dtype=np.float32))
        split = "train" if number < 7 else "val" if number < 8 else "test"
        row = {
            "id": f"case{number}",
            "file": f"images/{number}.npy",
            "patient_id": number // 2 if number < 6 else number,
        }
        row |= {"split": split, "labels": "nodule;mass", "text": f"Nodule, {number} mm.", "origin": "here"}
        rows.append({**row, "meta": json.dumps({"diameter_mm": number}), "masks": json.dumps({"nodule": "mask.nii"})})
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    items = read_manifest(tmp_path / "manifest.csv", findings=["nodule"])
    items[0]["center_mm"] = np.array([1.0, 2.0, 3.0])
    return {side: [item for item in items if item["split"] == side] for side in ("train", "val", "test")}


def extractor(encoder: nn.Module, transform: Callable[..., Any] = load, **options: Any) -> FeatureExtractor:
    return FeatureExtractor(encoder, transform, batch_size=3, progress=False, **options)


def expected(splits: dict[str, list[Item]]) -> np.ndarray:
    images = [np.load(item["image"]) for part in splits.values() for item in part]
    return np.array([[image.mean(), image.min(), image.max()] for image in images])


def test_training_reads_back_every_items_own_vector(splits: dict[str, list[Item]], tmp_path: Path) -> None:
    encoder = Moments().train()
    table = extractor(encoder).write(splits, tmp_path / "features")
    assert table == (tmp_path / "features/features.csv", tmp_path / "features/features.npy", 10, 0)
    assert encoder.training
    assert {file.name for file in table.manifest.parent.iterdir()} == {"features.csv", "features.npy", "features.json"}
    items = feature_items(read_manifest(table.manifest, findings=["nodule"]))
    vectors = np.stack([LoadFeaturesd(width=3)(item)["features"] for item in items])
    np.testing.assert_allclose(vectors, expected(splits), rtol=1e-6)
    before = [item for part in splits.values() for item in part]
    for name in ("id", "patient_id", "split", "labels", "label", "text", "positives", "origin"):
        assert [item[name] for item in items] == [item[name] for item in before]
    assert [Path(item["pixels"]).resolve() for item in items] == [Path(item["image"]) for item in before]
    assert Path(items[3]["masks"]["nodule"]).resolve() == tmp_path / "mask.nii"
    assert items[0]["meta"] == {"diameter_mm": 0, "center_mm": [1.0, 2.0, 3.0]}


def test_a_killed_run_goes_on_and_a_finished_one_is_not_repeated(splits: dict[str, list[Item]], tmp_path: Path) -> None:
    encoder = Moments()
    encoder.dies_at = 7  # in the second block of four
    with pytest.raises(KeyboardInterrupt):
        extractor(encoder).write(splits, tmp_path)
    assert not (tmp_path / "features.csv").exists()
    encoder.dies_at, encoder.seen = None, 0
    table = extractor(encoder).write(splits, tmp_path)
    assert encoder.seen == 1 + 6  # the first, to see whether it comes out the same, and those that were missing
    np.testing.assert_allclose(np.load(table.array), expected(splits), rtol=1e-6)
    encoder.seen = 0
    splits["val"][0]["text"] = "Another text."
    assert extractor(encoder).write(splits, tmp_path) == table
    assert encoder.seen == 1
    assert [item["text"] for item in read_manifest(table.manifest)][7] == "Another text."


def test_another_preprocessing_other_weights_and_another_file_are_computed_anew(
    splits: dict[str, list[Item]], tmp_path: Path
) -> None:
    extractor(Moments()).write(splits, tmp_path)
    extractor(Moments(2.0)).write(splits, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), 2 * expected(splits), rtol=1e-6)
    extractor(Moments(2.0), lambda item: {"image": load(item)["image"] - 1}).write(splits, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), 2 * expected(splits) - 2, rtol=1e-5)
    np.save(splits["test"][1]["image"], np.eye(6, 5, dtype=np.float32))
    extractor(Moments(2.0)).write(splits, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy")[-1], [1 / 3, 0, 2], rtol=1e-6)


def test_a_part_made_with_another_preprocessing_is_thrown_away(splits: dict[str, list[Item]], tmp_path: Path) -> None:
    encoder = Moments()
    encoder.dies_at = 7
    with pytest.raises(KeyboardInterrupt):
        extractor(encoder, lambda item: {"image": load(item)["image"] + 1}).write(splits, tmp_path)
    encoder.dies_at = None
    extractor(encoder).write(splits, tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected(splits), rtol=1e-6)


def test_bad_images_stop_the_run_or_are_listed(splits: dict[str, list[Item]], tmp_path: Path) -> None:
    np.save(splits["train"][5]["image"], np.ones((6, 5), np.float32))
    with pytest.raises(BadInputError, match=r"5\.npy: the image is constant"):
        extractor(Moments()).write(splits, tmp_path)
    table = extractor(Moments(), on_error="skip").write(splits, tmp_path)
    assert (table.items, table.rejected) == (9, 1)
    np.testing.assert_allclose(np.load(table.array), np.delete(expected(splits), 5, axis=0), rtol=1e-6)
    with (tmp_path / "rejected.csv").open() as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ["case5"]
    for part in splits.values():
        for item in part:
            np.save(item["image"], np.ones((6, 5), np.float32))
    with pytest.raises(ValueError, match="All 10 items were rejected"):
        extractor(Moments(), on_error="skip").write(splits, tmp_path)


def test_what_no_network_can_say_is_not_written(splits: dict[str, list[Item]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"features of 4 items are not finite, first \['case0'"):
        extractor(Moments(float("nan"))).write(splits, tmp_path)
    with pytest.raises(ValueError, match="no split has an item"):
        extractor(Moments()).write({"train": []}, tmp_path)
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        extractor(Moments(), on_error="ignore")
