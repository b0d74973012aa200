"""An index on disk: embeddings with their ids and metadata, appended to, mapped into memory, searched exactly."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_medclip.files import atomic_write

__all__ = ["EmbeddingIndex", "Neighbors"]

FORMAT = 1
HEADER, EXACT, ROUNDED, RECORDS, OFFSETS = "index.json", "float32.bin", "bfloat16.bin", "records.jsonl", "offsets.bin"
QUERIES_AT_ONCE = 16
ROWS_AT_ONCE = 32_768
ROUNDOFF = 2.0**-9  # of one bfloat16 rounding, relative
SUMMATION = 1e-4  # of a float32 dot product of unit vectors, generously

Record = dict[str, Any]


class Neighbors(NamedTuple):
    """The nearest entries of each of Q queries, nearest first; equal scores in the order in which they were added."""

    scores: Tensor  # (Q, k) float32 cosines, -1 to 1
    rows: Tensor  # (Q, k) int64 rows of the index, counted from 0


class EmbeddingIndex:
    """A folder of embeddings, searched by cosine.

    The search reads half of the bytes: it scans a bfloat16 copy, bounds the error of that, and computes in float32
    every entry that the bound does not rule out. So its results are those of a full float32 search.

    Entries are only appended, and what a killed append has left is ignored and overwritten by the next. One process
    writes, any number read.

    Args:
        folder: what `create` has made.

    Raises:
        FileNotFoundError: no index there.
        ValueError: another format, or files that are shorter than the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open an index; nothing is read but its header."""
        self.folder = Path(folder)
        path = self.folder / HEADER
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: make the index with EmbeddingIndex.create.")
        header = json.loads(path.read_text(encoding="utf-8"))
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} has format {header.get('format')}, this version reads {FORMAT}: build it anew.")
        self.width = int(header["width"])
        self.model = str(header["model"])
        self._count, self._rounding, self._record_bytes = (
            int(header["entries"]),
            float(header["rounding"]),
            int(header["record_bytes"]),
        )
        for name, size in self._sizes().items():
            if self._count and (self.folder / name).stat().st_size < size:
                raise ValueError(f"{self.folder / name} is shorter than {size} bytes: it is damaged, build it anew.")

    @classmethod
    def create(cls, folder: str | Path, width: int, *, model: str) -> EmbeddingIndex:
        """Make an empty index.

        Args:
            folder: a new or empty folder.
            width: E, numbers per embedding.
            model: what made the embeddings, such as a digest of its weights: only embeddings of one model compare.

        Raises:
            FileExistsError: something is in that folder.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty: open the index that is there, or name another folder.")
        if width < 1:
            raise ValueError(f"width={width}: an embedding has at least one number.")
        folder.mkdir(parents=True, exist_ok=True)
        for name in (EXACT, ROUNDED, RECORDS, OFFSETS):
            (folder / name).touch()
        _write_header(folder, {"width": width, "model": model, "entries": 0, "rounding": 0.0, "record_bytes": 0})
        return cls(folder)

    def __len__(self) -> int:
        """How many entries."""
        return self._count

    def add(self, embeddings: Tensor, records: Sequence[Mapping[str, Any]], *, model: str) -> None:
        """Append entries.

        Args:
            embeddings: (B, E); brought to unit length.
            records: B of them, JSON, each with an ``id`` (str) that no other entry has.
            model: what made them; must be the index's.

        Raises:
            ValueError: shapes that do not agree, numbers that are not finite, a zero vector, a missing or known id,
                another model. Nothing is appended then.
        """
        rows = embeddings.detach().float().cpu()
        self._check(rows, records, model)
        rows = torch.nn.functional.normalize(rows, dim=1)
        rounded = rows.bfloat16()
        lines = [json.dumps(dict(record), ensure_ascii=False).encode() + b"\n" for record in records]
        ends = self._record_bytes + np.cumsum([len(line) for line in lines], dtype=np.int64)
        sizes = self._sizes()
        for name, content in (
            (EXACT, rows.contiguous().numpy().tobytes()),
            (ROUNDED, rounded.contiguous().view(torch.uint8).numpy().tobytes()),
            (RECORDS, b"".join(lines)),
            (OFFSETS, ends.tobytes()),
        ):
            with (self.folder / name).open("rb+") as file:
                file.truncate(sizes[name])  # what a killed append has left
                file.seek(sizes[name])
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # the header must not count what is not there when power fails
        rounding = max([self._rounding, *(rows - rounded.float()).norm(dim=1).tolist()])
        count, record_bytes = self._count + len(rows), sizes[RECORDS] + sum(len(line) for line in lines)
        header = {"width": self.width, "model": self.model, "entries": count}
        _write_header(self.folder, header | {"rounding": rounding, "record_bytes": record_bytes})
        self._count, self._rounding, self._record_bytes = count, rounding, record_bytes

    def search(self, queries: Tensor, k: int = 10) -> Neighbors:
        """The k nearest entries by cosine: exactly those of a float32 search over all.

        Args:
            queries: (Q, E) embeddings of images or texts by the index's model; brought to unit length.
            k: how many; fewer come if the index holds fewer.

        Raises:
            ValueError: another width, numbers that are not finite, a zero vector, or k < 1.
            RuntimeError: the scan and the exact scores differ by more than the bound, so that it proves nothing.
        """
        asked = queries.detach().float().cpu()
        self._check_vectors(asked, "queries")
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one neighbor.")
        k = min(k, self._count)
        if k == 0 or not len(asked):
            return Neighbors(torch.zeros(len(asked), k), torch.zeros(len(asked), k, dtype=torch.int64))
        found = [self._nearest(part, k) for part in torch.nn.functional.normalize(asked, dim=1).split(QUERIES_AT_ONCE)]
        return Neighbors(torch.cat([one.scores for one in found]), torch.cat([one.rows for one in found]))

    def records(self, rows: Sequence[int] | Tensor) -> list[Record]:
        """The records of some rows, in their order."""
        wanted = [int(row) for row in rows]
        if not wanted:
            return []
        if min(wanted) < 0 or max(wanted) >= self._count:
            raise IndexError(f"the index has rows 0 to {self._count - 1}.")
        ends = np.memmap(self.folder / OFFSETS, np.int64, "r", shape=(self._count,))
        found = []
        with (self.folder / RECORDS).open("rb") as file:
            for row in wanted:
                start = int(ends[row - 1]) if row else 0
                file.seek(start)
                found.append(json.loads(file.read(int(ends[row]) - start)))
        return found

    def embeddings(self) -> np.ndarray:
        """All embeddings (N, E) float32, of unit length, mapped read-only."""
        if not self._count:
            return np.zeros((0, self.width), np.float32)
        with (self.folder / EXACT).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 4 * self._count * self.width, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # single rows are read: no neighborhood with them
        return np.frombuffer(mapped, np.float32).reshape(self._count, self.width)

    def _nearest(self, queries: Tensor, k: int) -> Neighbors:
        rounded = queries.bfloat16()
        parts = self._rounded().split(ROWS_AT_ONCE)
        scans = [part @ rounded.T for part in parts]  # (n, Q) bfloat16 each
        # The k-th largest of the groups' maxima is no larger than the k-th largest score, and far cheaper to find.
        maxima = torch.cat([_group_maxima(scan) for scan in scans]).float()  # (G, Q)
        kth = maxima.topk(min(k, len(maxima)), dim=0).values[-1]  # (Q,)
        if len(maxima) < k:
            kth = torch.cat(scans).float().topk(k, dim=0).values[-1]
        # |x.q - scan| <= |dx| |q| + |x~| |dq| + one rounding of the result + summation, and kth may be off by as much.
        unsure = self._rounding + (queries - rounded.float()).norm(dim=1) * (1 + self._rounding) + SUMMATION  # (Q,)
        lowest = kth - 2 * (unsure + ROUNDOFF * (kth.abs() + 2 * unsure))
        least = (lowest - 2 * ROUNDOFF * lowest.abs()).bfloat16()  # not above it, and compared without conversion
        found = []
        for number, scan in enumerate(scans):
            rows, asked = (scan >= least).nonzero().unbind(1)
            found.append((rows + number * ROWS_AT_ONCE, asked, scan[rows, asked].float()))
        candidates, asked, scanned = (torch.cat(part) for part in zip(*found, strict=True))  # rows ascending
        exact = self.embeddings()
        scores, rows = [], []
        for number, query in enumerate(queries):
            of_query = candidates[asked == number]
            cosines = torch.cat([torch.from_numpy(exact[part.numpy()]) @ query for part in of_query.split(65_536)])
            bound = unsure[number] + ROUNDOFF * (cosines.abs() + unsure[number])
            if bool(((cosines - scanned[asked == number]).abs() > bound).any()):
                raise RuntimeError(
                    f"{self.folder / ROUNDED} does not agree with {EXACT}: one of them is damaged, or this machine's "
                    "bfloat16 products are not summed in float32. Build the index anew, or search elsewhere."
                )
            best = torch.sort(cosines, descending=True, stable=True).indices[:k]
            scores.append(cosines[best])
            rows.append(of_query[best])
        return Neighbors(torch.stack(scores), torch.stack(rows))

    def _rounded(self) -> Tensor:
        """(N, E) bfloat16, mapped."""
        path, size = str(self.folder / ROUNDED), self._count * self.width
        return torch.from_file(path, shared=False, size=size, dtype=torch.bfloat16).view(self._count, self.width)

    def _sizes(self) -> dict[str, int]:
        """Bytes of each file that belong to the entries that the header counts."""
        numbers = self._count * self.width
        return {EXACT: 4 * numbers, ROUNDED: 2 * numbers, RECORDS: self._record_bytes, OFFSETS: 8 * self._count}

    def _check(self, rows: Tensor, records: Sequence[Mapping[str, Any]], model: str) -> None:
        self._check_vectors(rows, "embeddings")
        if model != self.model:
            raise ValueError(f"the index holds embeddings of {self.model!r}, these are of {model!r}: make another one.")
        if len(records) != len(rows):
            raise ValueError(f"{len(rows)} embeddings and {len(records)} records: give one record each.")
        ids = [record.get("id") for record in records]
        if not all(isinstance(one, str) and one for one in ids):
            raise ValueError("every record needs an 'id', a text that is not empty.")
        known = self._ids() if ids else set()
        for one in ids:
            if one in known:
                raise ValueError(f"id {one!r} is in the index already, or twice in this call: ids are unique.")
            known.add(one)

    def _check_vectors(self, rows: Tensor, what: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"{what} have shape {tuple(rows.shape)}, the index takes (any number, {self.width}).")
        lengths = rows.norm(dim=1)
        if not torch.isfinite(lengths).all() or not (lengths > 1e-12).all():
            raise ValueError(f"{what} hold NaN, infinity or a vector of zeros, which has no direction.")

    def _ids(self) -> set[Any]:
        with (self.folder / RECORDS).open("rb") as file:
            return {json.loads(line)["id"] for line in file.read(self._record_bytes).splitlines()}


def _group_maxima(scores: Tensor) -> Tensor:
    """Largest of every few scores (n, Q) -> (n / 256 or so, Q): halves laid over each other, which reads in order."""
    while len(scores) >= 256 and len(scores) % 2 == 0:
        first, second = scores.chunk(2)
        scores = torch.maximum(first, second)
    return scores


def _write_header(folder: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(folder / HEADER) as file:
        file.write_text(json.dumps({"format": FORMAT, **content}, indent=2) + "\n", encoding="utf-8")
