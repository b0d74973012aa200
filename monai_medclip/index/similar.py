"""Similar cases: the nearest studies to a query, never the query's own patient."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from monai_medclip.index.embedding_index import Neighbors, Record

__all__ = ["Searchable", "SimilarCase", "patient_of", "similar_cases"]


class Searchable(Protocol):
    """An `EmbeddingIndex` or an `ApproximateIndex`."""

    def __len__(self) -> int:
        """How many entries."""

    def search(self, queries: Tensor, k: int) -> Neighbors:
        """The k nearest entries of each of (Q, E) queries."""

    def records(self, rows: Sequence[int] | Tensor) -> list[Record]:
        """The records of some rows."""


class SimilarCase(NamedTuple):
    """One entry that is near to a query."""

    score: float  # cosine, -1 to 1
    record: Record  # as it was added to the index
    rank: int  # 1 is the nearest that was not excluded


def similar_cases(
    index: Searchable,
    queries: Tensor,
    k: int = 10,
    *,
    exclude_patients: Sequence[str | None] | None = None,
    exclude_ids: Collection[str] = (),
) -> list[list[SimilarCase]]:
    """The k nearest entries of each query that are not of the query's own patient.

    Another image of the same patient is found first whatever the model has learned: as a similar case it is worth
    nothing. So name the patient of each query. A prompt, or an image from elsewhere, has none.

    Args:
        index: embeddings by the model that made the queries.
        queries: (Q, E) embeddings of images or texts.
        k: how many of each; fewer come when fewer are left.
        exclude_patients: Q patient ids, whose entries (``record["patient_id"]``) are left out of that query's answer;
            None for a query without patient. None: all are without.
        exclude_ids: entries (``record["id"]``) that are left out of every answer.

    Returns:
        One list per query, nearest first.

    Raises:
        ValueError: an empty index, what its search refuses, another number of patients than of queries, or an entry
            without patient where one is to be left out.
    """
    if not len(index):
        raise ValueError("the index is empty: add embeddings before asking for similar cases.")
    if k < 1:
        raise ValueError(f"k={k}: ask for at least one case.")
    if isinstance(exclude_patients, str):
        raise ValueError(f"exclude_patients={exclude_patients!r}: give a list, one patient id or None per query.")
    patients = [None] * len(queries) if exclude_patients is None else list(exclude_patients)
    if len(patients) != len(queries):
        raise ValueError(f"{len(queries)} queries and {len(patients)} exclude_patients: give one per query, or None.")
    wanted = k + len(exclude_ids) + (0 if exclude_patients is None else k)
    while True:
        found = index.search(queries, wanted)
        kept = [_kept(index, *answer, frozenset(exclude_ids)) for answer in zip(found.scores, found.rows, patients)]
        if wanted >= len(index) or all(len(cases) >= k for cases in kept):
            return [cases[:k] for cases in kept]
        wanted *= 4


def patient_of(record: Mapping[str, Any]) -> str:
    """Whose entry it is.

    Raises:
        ValueError: the record does not say.
    """
    patient = record.get("patient_id")
    if not patient:
        raise ValueError(
            f"entry {record.get('id')!r} of the index has no patient_id, so nobody's entries can be left out: "
            "build the index from items with patient ids, or exclude no patient."
        )
    return str(patient)


def _kept(
    index: Searchable, scores: Tensor, rows: Tensor, patient: str | None, excluded: frozenset[str]
) -> list[SimilarCase]:
    pairs = zip(scores.tolist(), index.records(rows), strict=True)
    left = [
        (score, record)
        for score, record in pairs
        if record["id"] not in excluded and (patient is None or patient_of(record) != patient)
    ]
    return [SimilarCase(score, record, rank) for rank, (score, record) in enumerate(left, 1)]
