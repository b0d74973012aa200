"""Planted copies are found and counted, by rule and by split, and nothing else is."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from monai_medclip.audits import AuditResult, duplicates
from monai_medclip.data import read_manifest


def picture(seed: int) -> Image.Image:
    """Blocks of noise: no two seeds look alike."""
    gray = np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)
    return Image.fromarray(np.kron(gray, np.ones((8, 8), np.uint8)))


def plain(folder, sizes=(("train", 6), ("val", 3), ("test", 4))) -> dict[str, list[dict]]:
    splits, number = {}, 0
    for name, count in sizes:
        splits[name] = []
        for _ in range(count):
            path = folder / f"{number}.png"
            picture(number).save(path)
            item = {"id": f"i{number}", "patient_id": f"p{number}", "image": str(path), "text": f"Report {number}."}
            splits[name].append(item)
            number += 1
    return splits


def by_rule(result: AuditResult) -> dict[str, dict]:
    return {row["rule"]: row for row in result.rows}


def test_nothing_shared_is_said_so(tmp_path):
    found = duplicates(plain(tmp_path))
    assert not found.warning
    assert all(row["pairs"] == row["other_pairs"] == 0 and row["examples"] == "" for row in found.rows)
    assert "None of the 4 test items has its like in train or val" in found.verdict
    assert "0 of 4 test items (0%) have a text that occurs word for word in the training items." in found.verdict
    assert "Each item is a patient of its own" in found.verdict
    assert by_rule(found)["identical features"]["share"] is None  # nobody has any


def test_every_kind_of_copy_is_found_by_its_own_rule(tmp_path):
    splits = plain(tmp_path)
    train, test = splits["train"], splits["test"]
    picture(0).save(tmp_path / "copy.png", compress_level=0)  # other bytes, the same pixels
    picture(1).resize((64, 64)).save(tmp_path / "near.png")
    test[0]["image"], test[1]["image"] = str(tmp_path / "copy.png"), str(tmp_path / "near.png")
    test[2]["patient_id"] = train[2]["patient_id"]
    test[3]["features_sha256"] = train[3]["features_sha256"] = "abc"
    test[3]["text"] = train[4]["text"].upper() + " "
    found = duplicates(splits)
    rows = by_rule(found)
    one = {"pairs": 1, "test_items": 1, "other_pairs": 0}
    for rule in ("patient", "identical image", "near-duplicate image", "identical text", "identical text in train"):
        assert rows[rule] == rows[rule] | one | {"compared": 4, "share": 0.25}, rule
    assert rows["identical features"] == rows["identical features"] | one | {"compared": 1, "share": 1.0}
    assert rows["identical image"]["examples"] == "i0 (train) = i9 (test)"
    assert rows["near-duplicate image"]["examples"] == "i1 (train) = i10 (test)"
    assert rows["patient"]["examples"] == "i2 (train) = i11 (test)"
    assert rows["identical text"]["examples"] == "i4 (train, 1 such) = i12 (test, 1 such)"
    assert found.warning
    assert "1 of 4 share a patient, 1 of 4 are the same image, 1 of 4 are nearly the same image" in found.verdict
    assert "a patient of its own" not in found.verdict
    bytewise = by_rule(duplicates(splits, near_duplicate_bits=None))
    assert bytewise["identical image"]["pairs"] == 0  # the copy has other bytes
    assert bytewise["near-duplicate image"]["pairs"] is bytewise["near-duplicate image"]["share"] is None


def test_all_items_of_a_shared_patient_are_concerned(tmp_path):
    splits = plain(tmp_path)
    for item in splits["test"][:3]:
        item["patient_id"] = "p0"
    row = by_rule(duplicates(splits))["patient"]
    assert (row["pairs"], row["test_items"], row["share"]) == (1, 3, 0.75)


def test_leaks_between_the_other_splits_count_apart_and_warn(tmp_path):
    splits = plain(tmp_path)
    splits["val"][0]["patient_id"] = "p0"
    found = duplicates(splits)
    row = by_rule(found)["patient"]
    assert (row["pairs"], row["test_items"], row["other_pairs"]) == (0, 0, 1)
    assert found.warning
    assert "1 such pair(s) lie between the other splits" in found.verdict


def test_pairs_of_templated_texts_are_products_and_examples_few(tmp_path):
    splits = plain(tmp_path)
    for name in splits:
        for item in splits[name]:
            item["text"] = "Normal chest."
    found = duplicates(splits)
    rows = by_rule(found)
    assert (rows["identical text"]["pairs"], rows["identical text"]["other_pairs"]) == (4 * (6 + 3), 6 * 3)
    assert (rows["identical text in train"]["pairs"], rows["identical text in train"]["share"]) == (24, 1.0)
    assert found.warning
    assert "4 of 4 test items (100%)" in found.verdict
    assert rows["identical text"]["examples"] == "i0 (train, 6 such) = i6 (val, 3 such) = i9 (test, 4 such)"
    assert "Normal chest" not in str(found)  # reports stay where they are


@pytest.mark.parametrize(("copies", "warns"), [(1, False), (2, True)])
def test_half_of_the_texts_seen_in_training_warns(tmp_path, copies, warns):
    splits = plain(tmp_path)
    for item in splits["test"][:copies]:
        item["text"] = "Report 0."
    splits["test"][3]["text"] = "Report 6."  # of val: not read in training
    found = duplicates(splits)
    assert found.warning is warns
    rows = by_rule(found)
    assert rows["identical text"]["test_items"] == copies + 1
    assert rows["identical text in train"]["share"] == copies / 4


def test_items_without_images_or_texts_are_compared_by_what_they_have():
    splits = {name: [{"id": f"{name}{k}", "patient_id": f"p{k}"} for k in range(2)] for name in ("val", "test")}
    found = duplicates(splits)
    assert [row["rule"] for row in found.rows][-1] == "identical text"  # there is no training split to ask of
    assert by_rule(found)["patient"]["test_items"] == 2
    assert by_rule(found)["identical image"]["compared"] == 0
    assert found.verdict.endswith("No test item has a text to compare.")


def test_fingerprints_are_kept(tmp_path):
    splits = plain(tmp_path)
    first = duplicates(splits, cache=tmp_path / "prints.npz")
    written = (tmp_path / "prints.npz").stat().st_mtime_ns
    assert duplicates(splits, cache=tmp_path / "prints.npz") == first
    assert (tmp_path / "prints.npz").stat().st_mtime_ns == written


def test_bad_input_is_named(tmp_path):
    splits = plain(tmp_path)
    with pytest.raises(ValueError, match=r"splits have \{'train': 6, 'test': 0\} items: give 'test' and one other"):
        duplicates({"train": splits["train"], "test": []})
    with pytest.raises(ValueError, match=r"splits have \{'test': 4\} items"):
        duplicates({"test": splits["test"]})
    (tmp_path / "0.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"0\.png cannot be decoded"):
        duplicates(splits)


def test_real_templated_captions_are_all_in_training(shared_data):
    splits = defaultdict(list)
    for item in read_manifest(shared_data / "manifest.csv", source="isic_uda1"):
        splits[item["split"]].append(item)
    found = duplicates(splits)
    rows = by_rule(found)
    assert [rows[rule]["pairs"] for rule in ("patient", "identical image", "near-duplicate image")] == [0, 0, 0]
    assert (rows["identical text in train"]["test_items"], rows["identical text in train"]["share"]) == (83, 1.0)
    assert "Each item is a patient of its own" in found.verdict  # the collection names none
