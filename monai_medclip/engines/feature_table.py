"""Features of any image encoder for a whole data set, in one array beside a manifest that training reads."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..transforms import Rejection, bad_input_cause, write_rejected
from .files import atomic_write, write_csv, write_json
from .stored_embeddings import file_states, weights_digest

__all__ = ["FeatureExtractor", "FeatureTable"]

logger = logging.getLogger(__name__)

BLOCK = 64  # items between two writes: what a killed run loses at most
SAME = 1e-3  # of the largest feature: what another batch size may change
OTHERWISE = ("image", "pixels", "labels", "meta", "masks", "label", "positives", "boxes", "notice")  # written, or not

Item = Mapping[str, Any]
Array = NDArray[np.float32]


class FeatureTable(NamedTuple):
    """What was written."""

    manifest: Path  # features.csv, one row per item
    array: Path  # features.npy, (N, width) float32
    items: int  # N
    rejected: int  # items that could not be read; rejected.csv says why


class _Reader:
    """Prepares a batch of items in the loader's process; in place of what cannot be used it gives the reason."""

    def __init__(self, transform: Callable[..., Any], image_key: str, on_error: str) -> None:
        self.transform, self.image_key, self.on_error = transform, image_key, on_error

    def __call__(self, items: Sequence[Item]) -> list[Tensor | Rejection]:
        return [self.read(item) for item in items]

    def read(self, item: Item) -> Tensor | Rejection:
        try:
            return torch.as_tensor(self.transform(dict(item))[self.image_key]).as_subclass(Tensor)
        except Exception as error:
            bad = bad_input_cause(error)
            if bad is None:
                raise
            if self.on_error == "raise":
                raise bad from error
            return Rejection(str(item["id"]), bad.file, "", bad.reason, bad.remedy)


class FeatureExtractor:
    """Runs an image encoder over items and keeps its pooled features, in single precision, with who they belong to.

    A run that was killed goes on where it was, and one that was finished is not done again, if weights, items and files
    are the same and the first item's features still come out the same; else it begins anew.

    Args:
        encoder: image encoder (B, C, *spatial) -> (B, width), with its weights; moved to the device.
        transform: from an item to one whose `image_key` holds the tensor that the encoder takes.
        image_key: that entry.
        batch_size: images at a time.
        device: where the encoder runs.
        num_workers: processes that read.
        on_error: ``"raise"`` stops at the first image that cannot be used; ``"skip"`` lists it in ``rejected.csv``.
        progress: show a progress bar.

    Raises:
        ValueError: for another `on_error`.
    """

    def __init__(
        self,
        encoder: Any,
        transform: Callable[..., Any],
        *,
        image_key: str = "image",
        batch_size: int = 8,
        device: str | torch.device = "cpu",
        num_workers: int = 0,
        on_error: str = "raise",
        progress: bool = True,
    ) -> None:
        """Nothing is read or computed yet."""
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'.")
        self.encoder = encoder.to(device)
        self.image_key = image_key
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.num_workers = num_workers
        self.progress = progress
        self._reader = _Reader(transform, image_key, on_error)

    def write(self, splits: Mapping[str, Sequence[Item]], folder: str | Path) -> FeatureTable:
        """Write ``features.npy`` and ``features.csv``, which `precomputed.json` reads.

        The manifest has the items' own columns, and ``file`` and ``features_row`` (the vector), ``pixels`` (the image
        behind it) and ``masks``, as paths relative to it. Numbers and lists of an item, such as a nodule's
        ``center_mm``, are in ``meta``.

        Args:
            splits: split name -> items as the data room makes them, with unique ids.
            folder: where the files go; files of an earlier run are replaced.

        Raises:
            BadInputError: an image cannot be used, unless they are skipped.
            ValueError: no item is left, or a feature is not finite.
        """
        folder = Path(folder)
        items = [{**item, "split": split} for split, part in splits.items() for item in part]
        if not items:
            raise ValueError("There is nothing to compute features of: no split has an item.")
        key = self._key(items)
        parts = folder / f"features-{key}.parts"
        if self._finished(items, folder, key):
            ids = {row["id"] for row in _manifest_rows(folder)}
            self._write_manifest([item for item in items if str(item["id"]) in ids], folder)  # texts may be others
            return _table(folder, len(items))
        missing = self._missing(items, parts)
        left = sum(min(BLOCK, len(items) - first) for first in missing)
        done = len(items) - left
        with tqdm(total=len(items), initial=done, desc="computing features", disable=not self.progress) as bar:
            for first in missing:
                self._write_block(items[first : first + BLOCK], _part(parts, first), bar)
        self._join(items, parts, folder)
        write_json(folder / "features.json", {"encoder": type(self.encoder).__name__, "key": key})
        shutil.rmtree(parts)
        return _table(folder, len(items))

    def _key(self, items: Sequence[Item]) -> str:
        """What the features belong to: the weights, the items and their files."""
        facts = [[str(item["id"]), str(item["split"]), str(item[self.image_key])] for item in items]
        states = file_states(items, self.image_key)
        return hashlib.sha256(json.dumps([weights_digest(self.encoder), facts, states]).encode()).hexdigest()[:12]

    def _finished(self, items: Sequence[Item], folder: Path, key: str) -> bool:
        """Whether the folder holds these features already."""
        record = folder / "features.json"
        if not record.is_file() or json.loads(record.read_text(encoding="utf-8"))["key"] != key:
            return False
        first = next(_manifest_rows(folder))["id"]
        item = next(item for item in items if str(item["id"]) == first)
        return self._comes_out_as(np.load(folder / "features.npy", mmap_mode="r")[0], item)

    def _missing(self, items: Sequence[Item], parts: Path) -> list[int]:
        """Numbers of the first items of the blocks that are still to be made."""
        for part in sorted(parts.glob("*.npy")):
            kept = np.load(part)  # (b, width), rows of NaN for items that could not be read
            rows = np.flatnonzero(np.isfinite(kept).all(axis=1))
            if len(rows):
                if not self._comes_out_as(kept[rows[0]], items[int(part.stem) + int(rows[0])]):
                    logger.warning("%s was made with another preprocessing: it is made anew.", parts)
                    shutil.rmtree(parts)
                break
        return [first for first in range(0, len(items), BLOCK) if not _part(parts, first).is_file()]

    def _comes_out_as(self, kept: Array, item: Item) -> bool:
        read = self._reader.read(item)
        made = None if isinstance(read, Rejection) else self._encode(read[None])[0]
        limit = SAME * float(np.abs(kept).max())
        return made is not None and made.shape == kept.shape and bool(np.abs(made - kept).max() <= limit)

    def _write_block(self, items: Sequence[Item], part: Path, bar: tqdm[Any]) -> None:
        data: Any = items  # a list is as good as a Dataset
        loader: DataLoader[Any] = DataLoader(
            data, self.batch_size, num_workers=self.num_workers, collate_fn=self._reader
        )
        rows: list[Array | None] = []
        rejections: list[Rejection] = []
        for batch in loader:
            images = [one for one in batch if not isinstance(one, Rejection)]
            rejections += [one for one in batch if isinstance(one, Rejection)]
            made = iter(self._encode(torch.stack(images)) if images else ())
            rows += [None if isinstance(one, Rejection) else next(made) for one in batch]
            bar.update(len(batch))
        _check_finite(rows, items)
        if rejections:
            write_rejected(rejections, part.parents[1] / "rejected.csv")
        nothing = np.full(int(self.encoder.width), np.nan, np.float32)
        with atomic_write(part) as file, file.open("wb") as stream:
            np.save(stream, np.stack([nothing if row is None else row for row in rows]))

    def _encode(self, images: Tensor) -> Array:
        with eval_mode(self.encoder):  # no gradients either
            features: Tensor = self.encoder(images.to(self.device))
        return features.float().cpu().numpy()

    def _join(self, items: Sequence[Item], parts: Path, folder: Path) -> None:
        whole = np.concatenate([np.load(_part(parts, first)) for first in range(0, len(items), BLOCK)])
        kept = np.flatnonzero(np.isfinite(whole).all(axis=1))
        if not len(kept):
            raise ValueError(f"All {len(items)} items were rejected; {folder / 'rejected.csv'} says why.")
        with atomic_write(folder / "features.npy") as file, file.open("wb") as stream:
            np.save(stream, whole[kept])
        self._write_manifest([items[number] for number in kept.tolist()], folder)

    def _write_manifest(self, items: Sequence[Item], folder: Path) -> None:
        rows = [_row(item, place, folder, self.image_key) for place, item in enumerate(items)]
        write_csv(folder / "features.csv", rows)


def _manifest_rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "features.csv").open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def _table(folder: Path, asked: int) -> FeatureTable:
    manifest, array = folder / "features.csv", folder / "features.npy"
    items = len(np.load(array, mmap_mode="r"))
    logger.info("%d of %d items: features in %s, their manifest is %s", items, asked, array, manifest)
    return FeatureTable(manifest, array, items, asked - items)


def _part(parts: Path, first: int) -> Path:
    return parts / f"{first:09d}.npy"


def _check_finite(rows: Sequence[Array | None], items: Sequence[Item]) -> None:
    bad = [str(item["id"]) for row, item in zip(rows, items) if row is not None and not np.isfinite(row).all()]
    if bad:
        raise ValueError(
            f"features of {len(bad)} items are not finite, first {bad[:3]}: their images hold NaN, or the weights are "
            "broken. Check both."
        )


def _row(item: Item, place: int, folder: Path, image_key: str) -> dict[str, str | int]:
    """A line of the manifest."""
    own = {key: value for key, value in item.items() if isinstance(value, str) and key not in (*OTHERWISE, image_key)}
    numbers = {key: v for key, v in item.items() if key not in OTHERWISE and not isinstance(v, str) and v is not None}
    masks = {label: _relative(file, folder) for label, file in item.get("masks", {}).items()}
    return {
        "id": str(item["id"]),
        "file": "features.npy",
        "features_row": place,
        "pixels": _relative(item[image_key], folder),
        **own,
        "labels": ";".join(item.get("labels", ())),
        "meta": json.dumps({**numbers, **item.get("meta", {})}, default=_plain),
        "masks": json.dumps(masks) if masks else "",
    }


def _relative(file: str | Path, folder: Path) -> str:
    return os.path.relpath(Path(file).resolve(), folder.resolve())


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
