"""Approximate search by FAISS, for indexes too large to be scanned: built from an exact one and kept beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_medclip.files import atomic_write
from monai_medclip.index.embedding_index import EmbeddingIndex, Neighbors, Record

__all__ = ["KINDS", "ApproximateIndex"]

KINDS = ("hnsw", "ivfpq")
SHORTLIST, PER_NEIGHBOR = 128, 4  # rows whose cosine is computed exactly: so many, and more per neighbor asked for
LINKS = 32  # of a node of the graph; FAISS's guide has 4 to 64
BREADTH = 128  # nodes that a walk through the graph keeps in sight
PER_CENTROID = 39  # rows from which FAISS wants a centroid to be learned
CODEBOOK = 256  # centroids of one byte
PROBED = 8  # one of so many lists is read
SAMPLE = 262_144  # rows to learn from, at most
ROWS_AT_ONCE = 65_536
FINGERPRINTED = 64  # rows


class ApproximateIndex:
    """What an `EmbeddingIndex` holds, found faster and not always.

    FAISS proposes rows; their cosines are computed from the stored float32, so that scores are exact and only rows can
    be missed (`recall_at` says how many). Entries that the exact index has received since `build` or `update` are
    searched exactly, so that none is overlooked.

    - ``"hnsw"``: a graph of 32 links per entry over one byte per number (Malkov and Yashunin, TPAMI 2020): about
      E + 270 bytes per entry, nothing to tune, slow to build. While it fits into memory, take this one.
    - ``"ivfpq"``: about 4 sqrt(N) lists, an eighth of which is read, and one byte per eight numbers (Jegou et al.,
      TPAMI 2011): about E / 8 bytes per entry, and its lists stay on disk. For an index that does not fit.

    When it pays, measured at 512 numbers per entry (``benchmarks/index_search.py --approximate``): at 10,000 entries
    never; at 100,000 a query takes about half of the exact search's time, which makes good for building after
    20,000 to 40,000 queries. An exact search of 1,000,000 entries takes about 0.06 s: fast enough for one clinician.

    Args:
        exact: the index that `build` was given, open.
        kind: which of `KINDS`.

    Raises:
        ImportError: FAISS is not installed.
        FileNotFoundError: `build` has not been called.
        ValueError: an unknown kind, or the exact index has another model or width or other entries than at that time.
    """

    def __init__(self, exact: EmbeddingIndex, kind: str = "hnsw") -> None:
        """Open it, mapped into memory."""
        self.exact, self.kind = exact, _known(kind)
        self._covered = 0  # the first so many rows of the exact index
        self._open()

    @classmethod
    def build(cls, exact: EmbeddingIndex, kind: str = "hnsw") -> ApproximateIndex:
        """Make it from all entries, in the exact index's folder; one of that kind is replaced.

        Args:
            exact: an index that is not empty; at least 9,984 entries for ``"ivfpq"``, which learns its codes from them.
            kind: which of `KINDS`.
        """
        made = cls.__new__(cls)
        made.exact, made.kind, made._covered = exact, _known(kind), 0
        rows = exact.embeddings()
        needed = PER_CENTROID * CODEBOOK if kind == "ivfpq" else 1
        if len(rows) < needed:
            raise ValueError(
                f"{exact.folder} has {len(rows)} entries, {kind!r} needs {needed}: search the exact index."
            )
        found = _hnsw(exact.width) if kind == "hnsw" else _ivfpq(exact.width, len(rows))
        picked = np.random.default_rng(0).choice(len(rows), min(len(rows), SAMPLE), replace=False)
        found.train(np.ascontiguousarray(rows[np.sort(picked)]))
        made._grow(found)
        return cls(exact, kind)

    def __len__(self) -> int:
        """How many entries can be found: all of the exact index."""
        return len(self.exact)

    def update(self) -> int:
        """Add what the exact index has received since, without learning anew; the file is written anew.

        Returns:
            How many entries were added.
        """
        before = self._covered
        if before < len(self.exact):
            self._grow(_faiss().read_index(str(self._path)))  # a mapped one cannot grow
            self._open()
        return self._covered - before

    def search(self, queries: Tensor, k: int = 10) -> Neighbors:
        """About the k nearest entries by cosine, nearest first; their cosines are exact.

        A query for which fewer than k are proposed is searched exactly.

        Args:
            queries: (Q, E) embeddings of images or texts by the index's model; brought to unit length.
            k: how many; fewer come if the index holds fewer.

        Raises:
            ValueError: another width, numbers that are not finite, a zero vector, or k < 1.
        """
        asked = self.exact.unit(queries)
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one neighbor.")
        k = min(k, len(self))
        proposed = self._proposed(asked, min(SHORTLIST + PER_NEIGHBOR * k, self._covered))
        newest = np.arange(self._covered, len(self))
        found = []
        for query, candidates in zip(asked, proposed, strict=True):
            candidates = np.concatenate([np.sort(candidates[candidates >= 0]), newest])
            if len(candidates) < k:
                found.append(self.exact.search(query[None], k))
                continue
            scores, best = torch.sort(self.exact.vectors(candidates.tolist()) @ query, descending=True, stable=True)
            found.append(Neighbors(scores[None, :k], torch.from_numpy(candidates)[best[None, :k]]))
        empty = Neighbors(torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64))
        return Neighbors(*(torch.cat(parts) for parts in zip(empty, *found, strict=True)))

    def recall_at(self, k: int, queries: Tensor) -> float:
        """Share of the k truly nearest entries that are found, 0 to 1; an entry as near as the k-th counts as it.

        Raises:
            ValueError: as `search`, or no query.
        """
        if not len(queries):
            raise ValueError("recall_at needs at least one query, such as embeddings of the validation images.")
        exact, mine = self.exact.search(queries, k).scores, self.search(queries, k).scores
        return float((mine >= exact[:, -1:] - 1e-6).float().mean())

    def records(self, rows: Sequence[int] | Tensor) -> list[Record]:
        """The records of some rows, in their order."""
        return self.exact.records(rows)

    @property
    def _path(self) -> Path:
        return self.exact.folder / f"{self.kind}.faiss"

    @property
    def _notes(self) -> Path:
        return self.exact.folder / f"{self.kind}.json"

    def _open(self) -> None:
        faiss = _faiss()
        for path in (self._path, self._notes):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} does not exist: make it with ApproximateIndex.build(index, {self.kind!r})."
                )
        flags = faiss.IO_FLAG_MMAP_IFC if self.kind == "hnsw" else faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        self._found = faiss.read_index(str(self._path), flags)
        self._covered = int(self._found.ntotal)
        self._check(json.loads(self._notes.read_text(encoding="utf-8")))

    def _proposed(self, queries: Tensor, count: int) -> np.ndarray:
        """Rows (Q, count), -1 where there are fewer."""
        faiss = _faiss()
        if self.kind == "hnsw":
            how = faiss.SearchParametersHNSW(efSearch=max(BREADTH, count))
        else:
            how = faiss.SearchParametersIVF(nprobe=max(1, self._found.nlist // PROBED))
        return np.asarray(self._found.search(queries.contiguous().numpy(), count, params=how)[1])

    def _grow(self, found: Any) -> None:
        """Add the rows that are not covered, and write. What is on disk is whole whenever this is killed."""
        rows = self.exact.embeddings()
        marks = {self._covered: self._fingerprint(self._covered), len(rows): self._fingerprint(len(rows))}
        for first in range(self._covered, len(rows), ROWS_AT_ONCE):
            found.add(np.ascontiguousarray(rows[first : first + ROWS_AT_ONCE]))
        # The old file goes with the first mark, the new one with the second.
        with atomic_write(self._notes) as file:
            notes = {"model": self.exact.model, "width": self.exact.width, "fingerprints": marks}
            file.write_text(json.dumps(notes) + "\n", encoding="utf-8")
        with atomic_write(self._path) as file:
            _faiss().write_index(found, str(file))

    def _check(self, notes: dict[str, Any]) -> None:
        for name in ("model", "width"):
            if notes[name] != getattr(self.exact, name):
                raise ValueError(
                    f"{self._path} was built for {name} {notes[name]!r}, the index has {getattr(self.exact, name)!r}: "
                    f"build it anew with ApproximateIndex.build(index, {self.kind!r})."
                )
        shrunk = len(self.exact) < self._covered
        if shrunk or notes["fingerprints"].get(str(self._covered)) != self._fingerprint(self._covered):
            raise ValueError(
                f"{self._path} covers {self._covered} entries that are not the first ones of the {len(self.exact)} in "
                f"{self.exact.folder}: that index was made anew since. Build this one anew too, with "
                f"ApproximateIndex.build(index, {self.kind!r})."
            )

    def _fingerprint(self, count: int) -> str:
        """Of some of the first `count` rows, the last among them."""
        places = np.linspace(0, count - 1, min(count, FINGERPRINTED)).astype(np.int64)
        return hashlib.sha256(self.exact.embeddings()[places].tobytes()).hexdigest()


def _hnsw(width: int) -> Any:
    """A graph over one byte per number: a quarter of the memory, and exact cosines follow anyway."""
    faiss = _faiss()
    index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, LINKS)  # by distance: of unit vectors, by cosine
    index.hnsw.efConstruction = BREADTH
    return index


def _ivfpq(width: int, entries: int) -> Any:
    lists = min(int(4 * entries**0.5), min(entries, SAMPLE) // PER_CENTROID)
    numbers_per_byte = next(size for size in (8, 4, 3, 2, 1) if width % size == 0)
    faiss = _faiss()
    # Not by index_factory, which also trains for Hamming distances that are not used here, and takes far longer.
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(width), width, lists, width // numbers_per_byte, 8)
    index.by_residual = False  # one table of distances per query, not one per list
    index.pq.cp.max_points_per_centroid = PER_CENTROID  # exact cosines follow, so that fine codes gain nothing
    return index


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: use one of {KINDS}.")
    return kind


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "ApproximateIndex needs FAISS, which is not installed: pip install 'monai-medclip[faiss]'. EmbeddingIndex "
            "searches exactly without it."
        ) from error
    return faiss
