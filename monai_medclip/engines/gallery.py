"""The searchable gallery of a run: images and report sentences in indexes that are kept, and added to."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..index import EmbeddingIndex, sentence_records
from .embedding_store import SAME, EmbeddingStore
from .stored_embeddings import opened_index

__all__ = ["Gallery", "build_gallery"]

logger = logging.getLogger(__name__)

AT_ONCE = 4096  # sentences


class Gallery(NamedTuple):
    """Two indexes of one network's embeddings."""

    images: EmbeddingIndex  # record: id, patient_id, study_id, view, labels, text, image
    sentences: EmbeddingIndex  # record: id, text, study_id, patient_id, section


def build_gallery(store: EmbeddingStore, folder: str | Path, splits: Sequence[str] = ("train",)) -> Gallery:
    """Makes the indexes, or adds what they lack; entries are never embedded twice.

    Where an entry is not what the store now holds under its id, an index is made anew, and holds these splits alone.
    Sentences of which cleaning leaves no word are left out.

    Args:
        store: embeddings of the splits.
        folder: where the indexes are kept; those of another network stand beside, by its digest.
        splits: whose items are added. Keep test items out of a gallery whose draft reports are judged.

    Returns:
        Both, open.
    """
    own = Path(folder) / store.model
    found = [store.index(split) for split in splits]
    records = [record for index in found for record in index.records(range(len(index)))]
    vectors = torch.cat([torch.from_numpy(index.embeddings().copy()) for index in found])
    images = _current(own / "images", found[0].width, store.model, records, vectors)
    known = _rows(images)
    new = [number for number, record in enumerate(records) if record["id"] not in known]
    images.add(vectors[new], [records[number] for number in new], model=store.model)
    said = sentence_records([item for split in splits for item in store.kept(split)])
    sentences = _current(own / "sentences", store.clip.embed_dim, store.model, said)
    known = _rows(sentences)
    _add_sentences(sentences, [record for record in said if record["id"] not in known], store)
    logger.info("%d images and %d sentences are searchable in %s", len(images), len(sentences), own)
    return Gallery(images, sentences)


def _current(
    folder: Path, width: int, model: str, records: Sequence[Mapping[str, Any]], vectors: Tensor | None = None
) -> EmbeddingIndex:
    """The index of a folder if what it holds of these records is what they are now, or else an empty one."""
    index = opened_index(folder, width, model)
    known = _rows(index)
    both = [(number, known[record["id"]]) for number, record in enumerate(records) if record["id"] in known]
    stored = index.records([row for _, row in both])
    holds = all(records[number] == one for (number, _), one in zip(both, stored, strict=True))
    if holds and vectors is not None and both:
        ours, theirs = vectors[[number for number, _ in both]], index.vectors([row for _, row in both])
        holds = bool(((ours * theirs).sum(dim=1) > 1 - SAME).all())
    if holds:
        return index
    logger.warning("%s holds what has changed since: it is made anew.", folder)
    shutil.rmtree(folder)
    return opened_index(folder, width, model)


def _add_sentences(sentences: EmbeddingIndex, records: Sequence[Mapping[str, Any]], store: EmbeddingStore) -> None:
    for first in range(0, len(records), AT_ONCE):
        some = records[first : first + AT_ONCE]
        vectors = store.embed_texts([record["text"] for record in some])
        told = vectors.any(dim=1).nonzero().flatten().tolist()
        sentences.add(vectors[told], [some[number] for number in told], model=store.model)


def _rows(index: EmbeddingIndex) -> dict[str, int]:
    """Id -> row."""
    return {str(record["id"]): row for row, record in enumerate(index.records(range(len(index))))}
