"""The searchable gallery: filled once, added to without duplicates, and never left with what has changed since."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_medclip.engines import Gallery, build_gallery
from monai_medclip.index import EmbeddingIndex

from .store_cases import case, clip, counted, forwards, store


def cases(folder: Path, name: str, count: int) -> list[dict[str, Any]]:
    """Each with a sentence of its own, one that all share, and one that cleaning leaves nothing of."""
    words = ("nodule", "mass", "spot", "lump")
    return [case(folder, f"{name}{n}", f"{words[n]} {name}", f"{words[n]} {name}. Clear. XXXX.") for n in range(count)]


def records(index: EmbeddingIndex) -> list[dict[str, Any]]:
    return index.records(range(len(index)))


@pytest.fixture
def items(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return {"train": cases(tmp_path, "heart", 3), "val": cases(tmp_path, "lungs", 2), "test": []}


def ids(gallery: Gallery) -> list[str]:
    return [record["id"] for record in records(gallery.images)]


def test_images_and_sentences_are_findable_by_what_they_say(tmp_path: Path, items: dict) -> None:
    found = build_gallery(store(tmp_path, items), tmp_path / "index")
    assert ids(found) == ["heart0", "heart1", "heart2"]
    nearest = found.images.search(counted("mass heart")[None], 1)
    assert (nearest.rows.tolist(), nearest.scores[0, 0].item()) == ([[1]], pytest.approx(1, abs=1e-5))
    texts = [record["text"] for record in records(found.sentences)]
    assert texts == ["nodule heart.", "Clear.", "mass heart.", "Clear.", "spot heart.", "Clear."]  # no XXXX
    assert torch.allclose(found.sentences.vectors([2])[0], counted("mass heart"), atol=1e-5)
    assert records(found.sentences)[2]["patient_id"] == "pheart1"


def test_another_split_is_added_and_nothing_is_embedded_twice(tmp_path: Path, items: dict) -> None:
    build_gallery(store(tmp_path, items), tmp_path / "index")
    asked = store(tmp_path, items)
    asked["train"], asked["val"]
    texts = forwards(asked.clip.text_encoder)
    found = build_gallery(asked, tmp_path / "index", ["train", "val"])
    assert ids(found) == ["heart0", "heart1", "heart2", "lungs0", "lungs1"]
    assert len(found.sentences) == 10
    assert sum(texts) <= 2 + 3  # the stores' own checks, and "nodule lungs", "mass lungs" and "clear"
    again = build_gallery(store(tmp_path, items), tmp_path / "index")  # asks for less: what is there stays
    assert len(again.images) == 5


def test_another_network_has_a_gallery_of_its_own(tmp_path: Path, items: dict) -> None:
    network = clip()
    network.image_projection.weight.data.neg_()
    one = build_gallery(store(tmp_path, items), tmp_path / "index")
    other = build_gallery(store(tmp_path, items, network), tmp_path / "index")
    assert one.images.folder != other.images.folder
    assert torch.allclose(other.images.vectors([0]), -one.images.vectors([0]))


@pytest.mark.parametrize("changed", ["image", "label", "preprocessing", "sentence"])
def test_what_has_changed_since_is_made_anew(
    tmp_path: Path, items: dict, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    build_gallery(store(tmp_path, items), tmp_path / "index")
    if changed == "image":
        case(tmp_path, "heart1", "normal", "")
    if changed == "label":
        items["train"][1]["labels"] = ["mass"]
    if changed == "sentence":
        items["train"][1]["text"] = "Normal. Clear."
    with caplog.at_level(logging.WARNING):
        asked = store(tmp_path, items, shift=int(changed == "preprocessing"))
        found = build_gallery(asked, tmp_path / "index")
    assert "holds what has changed since: it is made anew" in caplog.text
    assert ids(found) == ["heart0", "heart1", "heart2"]
    assert torch.allclose(found.images.vectors([0, 1, 2]), asked["train"].image)
    if changed == "label":
        assert records(found.images)[1]["labels"] == ["mass"]
    if changed == "sentence":
        assert "Normal." in [record["text"] for record in records(found.sentences)]
        assert "mass heart." not in [record["text"] for record in records(found.sentences)]


def test_a_gallery_that_was_killed_while_it_was_made_is_made(tmp_path: Path, items: dict) -> None:
    asked = store(tmp_path, items)
    left = tmp_path / "index" / asked.model / "images"
    left.mkdir(parents=True)
    (left / "float32.bin").touch()
    assert len(build_gallery(asked, tmp_path / "index").images) == 3
