"""Splits by patient, and the leaks that must not pass: patients, identical images, resized and recompressed copies."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_medclip.data import (
    LeakError,
    check_splits,
    find_leaks,
    fingerprint,
    fingerprint_files,
    near_duplicates,
    read_manifest,
    read_split_manifest,
    split_by_patient,
    write_split_manifest,
)

SPLITS = ("train", "val", "test")


def items_of(patients: int, per_patient: int = 3) -> list[dict[str, str]]:
    return [{"id": f"{p}-{i}", "patient_id": f"p{p}"} for p in range(patients) for i in range(per_patient)]


def item(path: Path, split: str, patient: str | None = None) -> dict[str, str]:
    identity = patient or path.name
    return {"id": path.name, "patient_id": identity, "split": split, "image": str(path), "text": "Report."}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(4):
        noise = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 80)), 3)
        gray = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(gray).save(paths[-1])
    return paths


def test_no_patient_is_on_two_splits_and_sizes_are_kept():
    items = split_by_patient(items_of(100), (0.7, 0.15, 0.15))
    sides = {(one["patient_id"], one["split"]) for one in items}
    assert len(sides) == 100
    assert Counter(side for _, side in sides) == {"train": 70, "val": 15, "test": 15}
    check_splits(items)


def test_the_published_sizes_come_out_exactly():
    exact = split_by_patient(items_of(3894, 1), {"train": 2725, "val": 584, "test": 585})
    fractions = split_by_patient(items_of(3894, 1), {"train": 2725 / 3894, "val": 584 / 3894, "test": 585 / 3894})
    assert Counter(one["split"] for one in exact) == {"train": 2725, "val": 584, "test": 585}
    assert exact == fractions


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    items = items_of(50)
    sides = {one["id"]: one["split"] for one in split_by_patient(items, (0.5, 0.25, 0.25), seed=3)}
    assert sides == {one["id"]: one["split"] for one in split_by_patient(items[::-1], (0.5, 0.25, 0.25), seed=3)}
    assert sides != {one["id"]: one["split"] for one in split_by_patient(items, (0.5, 0.25, 0.25), seed=4)}


@pytest.mark.parametrize("parts", [(0.7, 0.2), (5, 3, 1), (0.5, 0.6, -0.1), (0.4, 0.2, 0.2, 0.2)])
def test_parts_that_do_not_add_up_are_refused(parts):
    with pytest.raises(ValueError, match="parts="):
        split_by_patient(items_of(10), parts)


def test_a_patient_on_two_splits_is_named():
    items = [{"id": "a", "patient_id": "p", "split": "train"}, {"id": "b", "patient_id": "p", "split": "test"}]
    with pytest.raises(LeakError, match=r"patient: 'a' \(train\) and 'b' \(test\), both of patient 'p'\nPut each"):
        check_splits(items)


@pytest.mark.parametrize("bits", [None, 40])
def test_an_identical_image_on_two_splits_is_named(pictures, bits):
    copy = shutil.copy(pictures[0], pictures[0].with_name("copy.png"))
    items = [item(pictures[0], "train"), item(pictures[1], "test"), item(Path(copy), "test")]
    with pytest.raises(LeakError, match=r"identical image: '0.png' \(train\) and 'copy.png' \(test\)"):
        check_splits(items, near_duplicate_bits=bits)
    assert find_leaks([{**one, "split": "train"} for one in items]) == []


def resized(picture: Image.Image, path: Path) -> None:
    picture.resize((60, 72), Image.Resampling.LANCZOS).save(path.with_suffix(".png"))


def recompressed(picture: Image.Image, path: Path) -> None:
    picture.save(path.with_suffix(".jpg"), quality=40)


def windowed(picture: Image.Image, path: Path) -> None:
    picture.point([int(255 * (v / 255) ** 0.85) for v in range(256)]).save(path.with_suffix(".png"))


def inverted(picture: Image.Image, path: Path) -> None:
    picture.point([255 - v for v in range(256)]).save(path.with_suffix(".png"))


def rewrapped(picture: Image.Image, path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.asarray(picture).astype(np.int16) * 3 - 500)


@pytest.mark.parametrize("change", [resized, recompressed, windowed, inverted, rewrapped])
def test_a_changed_copy_is_found_and_only_that(pictures, tmp_path, change):
    with Image.open(pictures[2]) as picture:
        change(picture, tmp_path / "copy")
    (copy,) = tmp_path.glob("copy.*")
    items = [*(item(path, "train") for path in pictures), item(copy, "val")]
    (leak,) = find_leaks(items)
    assert (leak.rule, leak.first, leak.second) == ("near-duplicate image", "2.png", copy.name)


def test_fingerprints_are_kept_and_renewed(pictures, tmp_path):
    cache = tmp_path / "cache" / "fingerprints.npz"
    np.save(tmp_path / "features.npy", np.arange(10.0))
    paths = [*pictures, tmp_path / "features.npy"]
    first = fingerprint_files(paths, cache=cache)
    again = fingerprint_files(paths[::-1], cache=cache)[::-1]
    assert [(one.sha256, one.pixels) for one in first] == [(one.sha256, one.pixels) for one in again]
    assert all(np.array_equal(a.phash, b.phash) and np.array_equal(a.thumb, b.thumb) for a, b in zip(first, again))
    assert first[-1].phash.size == 0
    Image.fromarray(np.eye(70, dtype=np.uint8)).save(pictures[0])
    assert fingerprint_files(paths, cache=cache)[0].sha256 == fingerprint(pictures[0]).sha256 != first[0].sha256


def test_a_file_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"torn.png cannot be decoded"):
        fingerprint(tmp_path / "torn.png")


def test_the_split_manifest_reads_back_as_written(pictures, tmp_path):
    items = [item(path, side) for path, side in zip(pictures, (*SPLITS, "train"), strict=True)]
    rows = read_split_manifest(write_split_manifest(items, tmp_path / "results" / "split.json"))
    assert [(row.id, row.split, row.patient_id) for row in rows] == [
        (one["id"], one["split"], one["patient_id"]) for one in items
    ]
    assert rows[0].image_sha256 == fingerprint(pictures[0]).sha256
    assert "Research use only" in (tmp_path / "results" / "split.json").read_text()
    again = write_split_manifest(items, tmp_path / "again.json")
    assert again.read_bytes() == (tmp_path / "results" / "split.json").read_bytes()


@pytest.fixture(scope="session")
def real(shared_data, tmp_path_factory):
    chest = {"covid-chestxray", "vqarad", "nih", "lidc"}
    items = [one for one in read_manifest(shared_data / "manifest.csv") if one["source"] in chest]
    cache = tmp_path_factory.mktemp("fingerprint_files") / "real.npz"
    fingerprint_files([one["image"] for one in items], cache=cache)
    return items, cache


def test_the_real_splits_do_not_leak(real):
    items, cache = real
    check_splits(items, cache=cache)


def test_different_real_patients_are_no_duplicates(real):
    items, cache = real
    prints = fingerprint_files([one["image"] for one in items], cache=cache)
    patients = np.unique([one["patient_id"] for one in items], return_inverse=True)[1]
    assert list(near_duplicates(prints, patients)) == []


def test_a_real_image_that_is_filed_twice_is_found_across_splits(real):
    items, cache = real
    moved = [
        {**one, "patient_id": one["id"], "split": "test" if one["id"] == "covid_0222" else "train"} for one in items
    ]
    (leak,) = find_leaks(moved, cache=cache)
    assert (leak.rule, leak.first, leak.second) == ("identical image", "covid_0221", "covid_0222")


def test_monochrome_and_compression_do_not_hide_a_real_radiograph(shared_data):
    folder = shared_data / "dicom"
    one, other = (fingerprint(folder / f"cxr_pa_RG1_{name}.dcm") for name in ("J2KI", "uncompressed"))
    (pair,) = near_duplicates([one, other], [0, 1])
    assert pair.bits <= 4
    assert one.sha256 != other.sha256
