"""Splits by patient, what would leak across them, and the manifest that lets a result name its cases."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_medclip.data.fingerprints import Fingerprint, fingerprint_files, near_duplicates, sha256_of_path
from monai_medclip.notice import RESEARCH_USE

__all__ = [
    "Leak",
    "LeakError",
    "SplitRow",
    "check_splits",
    "find_leaks",
    "read_split_manifest",
    "split_by_patient",
    "write_split_manifest",
]

Item = dict[str, Any]


class Leak(NamedTuple):
    """Two items on two splits that must not be apart."""

    rule: str  # "patient", "identical image", "identical features" or "near-duplicate image"
    first: str  # id of the item on the earlier split
    first_split: str
    second: str
    second_split: str
    detail: str  # what the two share

    def __str__(self) -> str:
        """One line that names both."""
        sides = f"{self.first!r} ({self.first_split}) and {self.second!r} ({self.second_split})"
        return f"{self.rule}: {sides}, {self.detail}"


class LeakError(ValueError):
    """A patient or an image lies on two splits; ``leaks`` lists every pair, the message the first ten."""

    def __init__(self, leaks: Sequence[Leak]) -> None:
        """Name the pairs and the remedy."""
        self.leaks = list(leaks)
        more = f"\n... and {len(leaks) - 10} more" if len(leaks) > 10 else ""
        remedy = "\nPut each pair on one split (split_by_patient) or drop one of the two."
        super().__init__(f"{len(leaks)} leak(s) across splits:\n" + "\n".join(map(str, leaks[:10])) + more + remedy)


class SplitRow(NamedTuple):
    """One case of a split manifest."""

    id: str
    split: str
    patient_id: str
    image_sha256: str  # of the file's bytes (of a folder: of all its files'), or of the features; "" without either
    text_sha256: str


def split_by_patient(
    items: Sequence[Item], parts: Mapping[str, float] | Sequence[float], *, seed: int = 0
) -> list[Item]:
    """Name a split for every item, all items of a patient alike.

    Args:
        items: items with ``patient_id``; their order does not matter to who goes where.
        parts: fractions that sum to 1, or whole numbers of patients that sum to the number of patients; a plain
            sequence means train, val, test.
        seed: of the permutation of the patients.

    Returns:
        Copies of the items, in order, with ``split``.

    Raises:
        ValueError: parts that fit neither reading, or more parts than names.
    """
    named = dict(parts) if isinstance(parts, Mapping) else dict(zip(("train", "val", "test"), parts, strict=False))
    if len(named) != len(parts):
        raise ValueError(f"parts={parts!r} has more than train, val, test: give a mapping name -> part.")
    patients = sorted({str(item["patient_id"]) for item in items})
    edges = _edges(list(named.values()), len(patients))
    order = np.random.default_rng(seed).permutation(len(patients))
    sides = {patients[i]: list(named)[np.searchsorted(edges, place, side="right")] for place, i in enumerate(order)}
    return [{**item, "split": sides[str(item["patient_id"])]} for item in items]


def _edges(parts: Sequence[float], patients: int) -> np.ndarray[Any, Any]:
    """Where each part ends among the patients; fractions are rounded down, the last part takes the rest."""
    if min(parts, default=-1) < 0:
        raise ValueError(f"parts={list(parts)} must be fractions or numbers of patients, none negative.")
    if abs(sum(parts) - 1.0) < 1e-6:
        sizes = [int(part * patients + 1e-6) for part in parts[:-1]]
        return np.cumsum([*sizes, patients - sum(sizes)])
    if sum(parts) == patients and all(float(part).is_integer() for part in parts):
        return np.cumsum(np.asarray(parts, dtype=int))
    raise ValueError(
        f"parts={list(parts)} sum to {sum(parts):g}, neither to 1 (fractions) nor to the {patients} patients there are."
    )


def check_splits(
    items: Sequence[Item], *, near_duplicate_bits: int | None = 40, cache: str | Path | None = None
) -> None:
    """Refuse splits that leak: the same patient, the same image or a near-duplicate of it on two sides.

    Args:
        items: items with ``id``, ``patient_id``, ``split`` and, if they have one, ``image``.
        near_duplicate_bits: how many of the 256 bits of the perceptual hash may differ (`near_duplicates`); None looks
            for identical files only, without decoding; else identical decoded pixels are found too.
        cache: ``.npz`` file that keeps fingerprints between runs, by path, size and time of change.

    Raises:
        LeakError: naming the items; ``error.leaks`` has them all.
    """
    leaks = find_leaks(items, near_duplicate_bits=near_duplicate_bits, cache=cache)
    if leaks:
        raise LeakError(leaks)


def find_leaks(
    items: Sequence[Item], *, near_duplicate_bits: int | None = 40, cache: str | Path | None = None, workers: int = 1
) -> list[Leak]:
    """The leaks that `check_splits` would raise on, one per pair of items (per patient and pair of splits)."""
    leaks = _shared_patients(items)
    vectors = [item for item in items if item.get("features_sha256")]
    leaks += _identical(vectors, [item["features_sha256"] for item in vectors], rule="identical features")
    pictured = [item for item in items if item.get("image")]
    paths = [str(item["image"]) for item in pictured]
    if near_duplicate_bits is None:
        return leaks + _identical(pictured, [sha256_of_path(path) for path in paths])
    prints = fingerprint_files(paths, cache=cache, workers=workers)
    leaks += _identical(pictured, [one.pixels for one in prints])
    known = {(leak.first, leak.second) for leak in leaks}
    alike = _alike(pictured, prints, near_duplicate_bits)
    leaks += [leak for leak in alike if (leak.first, leak.second) not in known]
    return leaks


def _shared_patients(items: Sequence[Item]) -> list[Leak]:
    firsts: dict[str, dict[str, Item]] = defaultdict(dict)
    for item in items:
        firsts[str(item["patient_id"])].setdefault(str(item["split"]), item)
    return [
        _leak("patient", one, other, f"both of patient {patient!r}")
        for patient, sides in firsts.items()
        for one, other in combinations(sides.values(), 2)
    ]


def _identical(items: Sequence[Item], digests: Sequence[str], rule: str = "identical image") -> list[Leak]:
    same: dict[str, list[Item]] = defaultdict(list)
    for item, digest in zip(items, digests, strict=True):
        same[digest].append(item)
    return [
        _leak(rule, one, other, f"both with sha256 {digest[:16]}")
        for digest, group in same.items()
        for one, other in combinations(group, 2)
        if one["split"] != other["split"]
    ]


def _alike(items: Sequence[Item], prints: Sequence[Fingerprint], bits: int) -> Iterator[Leak]:
    sides = np.unique([str(item["split"]) for item in items], return_inverse=True)[1]
    for pair in near_duplicates(prints, sides, bits=bits):
        detail = f"{pair.bits} of 256 hash bits apart, correlation {pair.correlation:.3f}"
        yield _leak("near-duplicate image", items[pair.first], items[pair.second], detail)


def _leak(rule: str, one: Item, other: Item, detail: str) -> Leak:
    return Leak(rule, str(one["id"]), str(one["split"]), str(other["id"]), str(other["split"]), detail)


def write_split_manifest(items: Sequence[Item], path: str | Path) -> Path:
    """Write which case was on which split, with hashes of image and text, as JSON next to the results.

    Args:
        items: items with ``id``, ``split``, ``patient_id``, ``text`` and, if they have one, ``image``.
        path: where to write; missing folders are made.

    Returns:
        The path written; `read_split_manifest` reads it back.
    """
    path = Path(path)
    rows = [_split_row(item) for item in items]
    counts: dict[str, dict[str, int]] = {}
    for side in dict.fromkeys(row.split for row in rows):
        of_side = [row for row in rows if row.split == side]
        counts[side] = {"items": len(of_side), "patients": len({row.patient_id for row in of_side})}
    content = {
        "note": RESEARCH_USE,
        "counts": counts,
        "columns": SplitRow._fields,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def read_split_manifest(path: str | Path) -> list[SplitRow]:
    """Read what `write_split_manifest` wrote, in its order."""
    return [SplitRow(*row) for row in json.loads(Path(path).read_text(encoding="utf-8"))["rows"]]


def _split_row(item: Item) -> SplitRow:
    image = sha256_of_path(str(item["image"])) if item.get("image") else str(item.get("features_sha256", ""))
    text = hashlib.sha256(str(item.get("text", "")).encode()).hexdigest()
    return SplitRow(str(item["id"]), str(item["split"]), str(item["patient_id"]), image, text)
