"""The phantom on disk: a folder of generated patients with reports, masks and a manifest that `read_manifest` reads."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types
from tqdm import tqdm

from monai_medclip.data.phantom_files import CaseRows, write_case
from monai_medclip.data.phantom_patient import PHANTOM_VERSION

__all__ = ["PhantomSpec", "make_phantom"]

logger = logging.getLogger(__name__)

_MASK_COLUMNS = ("id", "label", "file", "area_frac")
_BOX_COLUMNS = ("id", "label", "x0", "y0", "x1", "y1", "kind")
_CHUNK = 25  # patients per note of progress
_PARTS = "parts"  # where those notes lie until the folder is complete


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that a phantom folder depends on; stored in its ``phantom.json``."""

    patients: int
    seed: int
    image_size: int
    modality: str
    file_format: str
    splits: dict[str, int]
    counterfactuals: bool
    monochrome1: float
    slices: int | None = None
    version: int = PHANTOM_VERSION


def make_phantom(
    folder: str | Path,
    *,
    patients: int,
    seed: int = 0,
    image_size: int = 128,
    modality: str = "DX",
    file_format: str = "dicom",
    splits: Mapping[str, float] | None = None,
    monochrome1: float = 0.0,
    slices: int | None = None,
    workers: int = 1,
    counterfactuals: bool = False,
    progress: bool = True,
) -> Path:
    """Write a phantom of ``patients`` generated chests, or reuse the one that is there.

    Patient k of a seed is the same whatever the number of patients, of processes, or of interruptions.

    Args:
        folder: where; made if absent. A finished phantom of equal parameters is reused, an interrupted one completed.
        patients: how many; one study each.
        seed: which phantom.
        image_size: rows and columns of a radiograph (350 mm wide), or of a CT slice.
        modality: ``DX`` radiographs or ``CT`` volumes of the same thoraces.
        file_format: ``dicom`` or ``nifti``.
        splits: counts or fractions of the patients per split, in order of patient; 70/10/20 % train, val, test if None.
        monochrome1: share of the radiographs stored as MONOCHROME1.
        slices: of a CT, 330 mm from the lowest to the highest; half of ``image_size`` if None.
        workers: processes.
        counterfactuals: also write each patient with findings as a second study without any, on the same split and
            named in the column ``counterfactual_of`` (leave them out with ``where={"counterfactual_of": ""}``).
        progress: show a bar.

    Returns:
        The path of ``manifest.csv``; ``masks.csv``, ``boxes.csv`` and ``phantom.json`` lie beside it.

    Raises:
        ValueError: If a parameter is out of range, or the folder holds another phantom.
    """
    spec = PhantomSpec(
        patients,
        seed,
        image_size,
        modality,
        file_format,
        _counts(splits, patients),
        counterfactuals,
        monochrome1,
        slices,
    )
    _check(spec)
    folder = Path(folder)
    manifest, note = folder / "manifest.csv", folder / "phantom.json"
    if _claim(note, spec) and manifest.is_file():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(asdict(spec), indent=1) + "\n", encoding="utf-8")
    chunks = tqdm(_chunks(folder, spec, workers), total=-(-patients // _CHUNK), desc="phantom", disable=not progress)
    rows = [case for chunk in chunks for case in chunk]
    _table(folder / "masks.csv", _MASK_COLUMNS, (row for case in rows for row in case.masks))
    _table(folder / "boxes.csv", _BOX_COLUMNS, (row for case in rows for row in case.boxes))
    images = [row for case in rows for row in case.images]
    _table(manifest, tuple(images[0]), images)  # last: its presence says that the folder is complete
    shutil.rmtree(folder / _PARTS)
    logger.info("phantom of %d patients written to %s", patients, folder)
    return manifest


def _counts(splits: Mapping[str, float] | None, patients: int) -> dict[str, int]:
    shares = dict(splits) if splits is not None else {"train": 0.7, "val": 0.1, "test": 0.2}
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or not (total <= 1 + 1e-6 or total == patients):
        raise ValueError(
            f"splits={shares} must add up to 1 (fractions) or to patients={patients} (counts): change either."
        )
    if total > 1 + 1e-6:
        return {name: int(count) for name, count in shares.items()}
    edges = np.rint(np.cumsum([0.0, *shares.values()]) / total * patients).astype(int)
    return {name: int(count) for name, count in zip(shares, np.diff(edges), strict=True)}


def _check(spec: PhantomSpec) -> None:
    if spec.patients < 1 or spec.image_size < 32:
        raise ValueError(
            f"patients={spec.patients}, image_size={spec.image_size}: give at least 1 patient and 32 pixels."
        )
    if spec.slices is not None and (spec.modality != "CT" or spec.slices < 16):
        raise ValueError(f"slices={spec.slices}: only a CT has slices, and at least 16 of them; leave it out.")
    if spec.modality not in ("DX", "CT") or spec.file_format not in ("dicom", "nifti"):
        raise ValueError(f"modality={spec.modality!r}, file_format={spec.file_format!r}: use DX or CT, dicom or nifti.")


def _claim(note: Path, spec: PhantomSpec) -> bool:
    """Whether the folder already belongs to this very phantom."""
    if not note.is_file():
        return False
    found = {"slices": None, **json.loads(note.read_text(encoding="utf-8"))}  # older phantoms do not say
    if found != json.loads(json.dumps(asdict(spec))):
        differ = sorted(key for key, value in asdict(spec).items() if found.get(key) != value)
        raise ValueError(
            f"{note} describes another phantom (it differs in {differ}). Choose another folder or delete this one."
        )
    return True


def _chunks(folder: Path, spec: PhantomSpec, workers: int) -> Iterator[list[CaseRows]]:
    names = [name for name, count in spec.splits.items() for _ in range(count)]
    jobs = [(folder, asdict(spec), first, names[first : first + _CHUNK]) for first in range(0, len(names), _CHUNK)]
    (folder / _PARTS).mkdir(exist_ok=True)
    if workers <= 1:
        yield from map(_chunk, jobs)
        return
    with ProcessPoolExecutor(max_workers=min(workers, os.cpu_count() or 1)) as pool:
        yield from pool.map(_chunk, jobs)


def _chunk(job: tuple[Path, dict[str, Any], int, list[str]]) -> list[CaseRows]:
    """Write some patients, and note it, so that an interrupted phantom goes on from there."""
    folder, spec, first, splits = job
    note = folder / _PARTS / f"{first:06d}.json"
    if note.is_file():
        return [CaseRows(*case) for case in json.loads(note.read_text(encoding="utf-8"))]
    with threadpool_limits(limits=1):  # on pictures this small a second BLAS thread costs four times what it saves
        rows = [write_case(folder, spec, first + k, split) for k, split in enumerate(splits)]
    partial = note.with_suffix(".partial")
    partial.write_text(json.dumps(rows), encoding="utf-8")
    partial.replace(note)
    return rows


def _table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
