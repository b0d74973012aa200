"""An index on disk: embeddings with their ids and metadata, appended to, mapped into memory, searched exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from monai_medclip.files import atomic_write
from monai_medclip.index.rounded import RoundedCopy, RoundedRows

__all__ = ["EmbeddingIndex", "Neighbors"]

FORMAT = 2
HEADER, EXACT, ROUNDED, STEPS, ALONG = "index.json", "float32.bin", "int8.bin", "steps.bin", "along.bin"
RECORDS, OFFSETS = "records.jsonl", "offsets.bin"
QUERIES_AT_ONCE = 16

Record = dict[str, Any]


class Neighbors(NamedTuple):
    """The nearest entries of each of Q queries, nearest first; equal scores in the order in which they were added."""

    scores: Tensor  # (Q, k) float32 cosines, -1 to 1
    rows: Tensor  # (Q, k) int64 rows of the index, counted from 0


class _Header(NamedTuple):
    """What belongs to the index: whatever the files hold beyond this is what a killed append has left."""

    width: int  # E
    model: str
    entries: int = 0
    record_bytes: int = 0
    center: tuple[float, ...] = ()  # E numbers, the mean of the first append
    loss: float = 0.0  # of the rounded copy, in steps
    reach: float = 0.0  # of the rounded copy


class EmbeddingIndex:
    """A folder of embeddings, searched by cosine.

    The search reads a quarter of the bytes: it scans a copy in one byte per number, bounds the error of that
    (`RoundedCopy`), and computes in float32 every entry that the bound does not rule out. So its results are those of a
    full float32 search.

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
        self._header = _read_header(self.folder)
        self._ids: set[str] | None = None  # read when the first append asks
        self._copy: RoundedCopy | None = None  # mapped when the first search asks
        for name, size in self._sizes().items():
            if len(self) and (self.folder / name).stat().st_size < size:
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
        for name in (EXACT, ROUNDED, STEPS, ALONG, RECORDS, OFFSETS):
            (folder / name).touch()
        _write_header(folder, _Header(width, model))
        return cls(folder)

    @property
    def width(self) -> int:
        """E, numbers per embedding."""
        return self._header.width

    @property
    def model(self) -> str:
        """What made the embeddings."""
        return self._header.model

    def __len__(self) -> int:
        """How many entries."""
        return self._header.entries

    def add(self, embeddings: Tensor, records: Sequence[Mapping[str, Any]], *, model: str) -> None:
        """Append entries.

        Args:
            embeddings: (B, E); brought to unit length.
            records: B of them, JSON, each with an ``id`` (str) that no other entry has.
            model: what made them; must be the index's.

        Raises:
            ValueError: shapes that do not agree, numbers that are not finite, a zero vector, a missing or known id,
                another model. Nothing is appended then.
            RuntimeError: something else has appended since this index was opened.
        """
        rows = _plain(embeddings)
        ids = self._checked_ids(rows, records, model)
        if _read_header(self.folder) != self._header:
            raise RuntimeError(f"{self.folder} was appended to since it was opened here: open it again.")
        if not len(rows):
            return
        rows = torch.nn.functional.normalize(rows, dim=1)
        center = torch.tensor(self._header.center) if len(self) else rows.mean(dim=0)
        rounded = RoundedCopy.of(rows, center)
        lines = [json.dumps(dict(record), ensure_ascii=False).encode() + b"\n" for record in records]
        ends = self._header.record_bytes + np.cumsum([len(line) for line in lines], dtype=np.int64)
        self._append(
            {
                EXACT: rows.numpy().tobytes(),
                ROUNDED: rounded.vectors.numbers.numpy().tobytes(),
                STEPS: rounded.vectors.steps.numpy().tobytes(),
                ALONG: rounded.along.numpy().tobytes(),
                RECORDS: b"".join(lines),
                OFFSETS: ends.tobytes(),
            }
        )
        header = self._header._replace(
            entries=len(self) + len(rows),
            record_bytes=int(ends[-1]),
            center=tuple(center.tolist()),
            loss=max(self._header.loss, rounded.loss),
            reach=max(self._header.reach, rounded.reach),
        )
        _write_header(self.folder, header)
        self._header, self._copy = header, None
        self._known_ids().update(ids)

    def search(self, queries: Tensor, k: int = 10) -> Neighbors:
        """The k nearest entries by cosine: exactly those of a float32 search over all.

        Args:
            queries: (Q, E) embeddings of images or texts by the index's model; brought to unit length.
            k: how many; fewer come if the index holds fewer.

        Raises:
            ValueError: another width, numbers that are not finite, a zero vector, or k < 1.
            RuntimeError: the scan and the exact scores differ by more than the bound, so that it proves nothing.
        """
        asked = self.unit(queries)
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one neighbor.")
        k = min(k, len(self))
        if k == 0 or not len(asked):
            return Neighbors(torch.zeros(len(asked), k), torch.zeros(len(asked), k, dtype=torch.int64))
        found = [self._nearest(part, k) for part in asked.split(QUERIES_AT_ONCE)]
        return Neighbors(torch.cat([one.scores for one in found]), torch.cat([one.rows for one in found]))

    def unit(self, queries: Tensor) -> Tensor:
        """Queries (Q, E) as the search takes them: checked, float32, on the CPU, of unit length.

        Raises:
            ValueError: another width, numbers that are not finite, or a zero vector.
        """
        asked = _plain(queries)
        self._check_vectors(asked, "queries")
        return torch.nn.functional.normalize(asked, dim=1)

    def records(self, rows: Sequence[int] | Tensor) -> list[Record]:
        """The records of some rows, in their order."""
        wanted = self._known_rows(rows)
        if not wanted:
            return []
        ends = np.memmap(self.folder / OFFSETS, np.int64, "r", shape=(len(self),))
        found = []
        with (self.folder / RECORDS).open("rb") as file:
            for row in wanted:
                start = int(ends[row - 1]) if row else 0
                file.seek(start)
                found.append(json.loads(file.read(int(ends[row]) - start)))
        return found

    def embeddings(self) -> np.ndarray:
        """All embeddings (N, E) float32, of unit length, mapped read-only."""
        if not len(self):
            return np.zeros((0, self.width), np.float32)
        return np.memmap(self.folder / EXACT, np.float32, "r", shape=(len(self), self.width))

    def vectors(self, rows: Sequence[int] | Tensor) -> Tensor:
        """The embeddings (B, E) of some rows, in their order."""
        wanted = self._known_rows(rows)
        found = np.empty((len(wanted), self.width), np.float32)
        # Not by the map: a touched row stays in memory with up to 2 MB around it.
        with (self.folder / EXACT).open("rb", buffering=0) as file:
            for row, place in zip(wanted, found, strict=True):
                file.seek(4 * self.width * row)
                file.readinto(place.data)
        return torch.from_numpy(found)

    def _known_rows(self, rows: Sequence[int] | Tensor) -> list[int]:
        wanted = rows.tolist() if isinstance(rows, Tensor) else [int(row) for row in rows]
        if wanted and (min(wanted) < 0 or max(wanted) >= len(self)):
            raise IndexError(f"the index has rows 0 to {len(self) - 1}.")
        return wanted

    def _nearest(self, queries: Tensor, k: int) -> Neighbors:
        listed = self._rounded().shortlist(queries, k)
        scores, rows = [], []
        for number, query in enumerate(queries):
            mine = listed.queries == number
            of_query = listed.rows[mine]
            cosines = torch.cat([self.vectors(part) @ query for part in of_query.split(65_536)])
            if bool(((cosines - listed.scores[mine]).abs() > listed.errors[mine]).any()):
                raise RuntimeError(
                    f"{self.folder / ROUNDED} does not agree with {EXACT}: one is damaged, build it anew."
                )
            best = torch.sort(cosines, descending=True, stable=True).indices[:k]
            scores.append(cosines[best])
            rows.append(of_query[best])
        return Neighbors(torch.stack(scores), torch.stack(rows))

    def _rounded(self) -> RoundedCopy:
        """The copy that is scanned, mapped."""
        if self._copy is None:
            header, count = self._header, len(self)
            numbers = self._mapped(ROUNDED, count * self.width, torch.int8).view(count, self.width)
            vectors = RoundedRows(numbers, self._mapped(STEPS, count, torch.float32))
            along = self._mapped(ALONG, count, torch.float32)
            self._copy = RoundedCopy(vectors, along, torch.tensor(header.center), header.loss, header.reach)
        return self._copy

    def _mapped(self, name: str, size: int, dtype: torch.dtype) -> Tensor:
        return torch.from_file(str(self.folder / name), shared=False, size=size, dtype=dtype)

    def _append(self, contents: Mapping[str, bytes]) -> None:
        sizes = self._sizes()
        for name, content in contents.items():
            with (self.folder / name).open("rb+") as file:
                file.truncate(sizes[name])  # what a killed append has left
                file.seek(sizes[name])
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # the header must not count what is not there when power fails

    def _sizes(self) -> dict[str, int]:
        """Bytes of each file that belong to the entries that the header counts."""
        count, numbers = len(self), len(self) * self.width
        sizes = {EXACT: 4 * numbers, ROUNDED: numbers, STEPS: 4 * count, ALONG: 4 * count, OFFSETS: 8 * count}
        return sizes | {RECORDS: self._header.record_bytes}

    def _checked_ids(self, rows: Tensor, records: Sequence[Mapping[str, Any]], model: str) -> set[str]:
        """The new entries' ids, if all of this may be added."""
        self._check_vectors(rows, "embeddings")
        if model != self.model:
            raise ValueError(f"the index holds embeddings of {self.model!r}, these are of {model!r}: make another one.")
        if len(records) != len(rows):
            raise ValueError(f"{len(rows)} embeddings and {len(records)} records: give one record each.")
        known, added = self._known_ids(), set[str]()
        for one in (record.get("id") for record in records):
            if not isinstance(one, str) or not one:
                raise ValueError("every record needs an 'id', a text that is not empty.")
            if one in known or one in added:
                raise ValueError(f"id {one!r} is in the index already, or twice in this call: ids are unique.")
            added.add(one)
        return added

    def _check_vectors(self, rows: Tensor, what: str) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"{what} have shape {tuple(rows.shape)}, the index takes (any number, {self.width}).")
        lengths = rows.norm(dim=1)
        if not torch.isfinite(lengths).all() or not (lengths > 1e-12).all():
            raise ValueError(f"{what} hold NaN, infinity or a vector of zeros, which has no direction.")

    def _known_ids(self) -> set[str]:
        if self._ids is None:
            self._ids = self._read_ids()
        return self._ids

    def _read_ids(self) -> set[str]:
        with (self.folder / RECORDS).open("rb") as file:
            return {json.loads(line)["id"] for line in file.read(self._header.record_bytes).splitlines()}


def _plain(vectors: Tensor) -> Tensor:
    """On the CPU, in float32, and no MetaTensor, which would slow every line."""
    return vectors.detach().as_subclass(Tensor).float().cpu()


def _read_header(folder: Path) -> _Header:
    path = folder / HEADER
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: make the index with EmbeddingIndex.create.")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is of another format than {FORMAT}, which this version reads: build it anew.")
    return _Header(**content | {"center": tuple(content["center"])})


def _write_header(folder: Path, header: _Header) -> None:
    with atomic_write(folder / HEADER) as file:
        file.write_text(json.dumps({"format": FORMAT, **header._asdict()}) + "\n", encoding="utf-8")
