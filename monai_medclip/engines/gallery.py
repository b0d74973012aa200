"""The searchable gallery of a run: images and report sentences in indexes that are kept, and added to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..index import EmbeddingIndex, sentence_records
from .embedding_store import EmbeddingStore

__all__ = ["Gallery", "build_gallery"]

logger = logging.getLogger(__name__)

AT_ONCE = 4096  # sentences


class Gallery(NamedTuple):
    """Two indexes of one network's embeddings."""

    images: EmbeddingIndex  # record: id, patient_id, study_id, view, labels, text, image
    sentences: EmbeddingIndex  # record: id, text, study_id, patient_id, section


def build_gallery(store: EmbeddingStore, folder: str | Path, splits: Sequence[str] = ("train",)) -> Gallery:
    """Makes the indexes, or adds what they lack; entries are never embedded twice.

    Args:
        store: embeddings of the splits.
        folder: where the indexes are kept; those of another network stand beside, by its digest.
        splits: whose items are added. Keep test items out of a gallery whose draft reports are judged.

    Returns:
        Both, open.
    """
    own = Path(folder) / store.model
    images = _opened(own / "images", store.index(splits[0]).width, store.model)
    known = _ids(images)
    for split in splits:
        index = store.index(split)
        rows = [row for row, record in enumerate(index.records(range(len(index)))) if record["id"] not in known]
        if rows:
            images.add(torch.from_numpy(index.embeddings()[rows].copy()), index.records(rows), model=store.model)
    sentences = _opened(own / "sentences", store.clip.embed_dim, store.model)
    known = _ids(sentences)
    records = sentence_records([item for split in splits for item in store.kept(split)])
    new = [record for record in records if record["id"] not in known]
    for first in range(0, len(new), AT_ONCE):
        some = new[first : first + AT_ONCE]
        sentences.add(store.embed_texts([record["text"] for record in some]), some, model=store.model)
    logger.info("%d images and %d sentences are searchable in %s", len(images), len(sentences), own)
    return Gallery(images, sentences)


def _opened(folder: Path, width: int, model: str) -> EmbeddingIndex:
    if (folder / "index.json").is_file():
        return EmbeddingIndex(folder)
    return EmbeddingIndex.create(folder, width, model=model)


def _ids(index: EmbeddingIndex) -> set[str]:
    records: Sequence[Mapping[str, Any]] = index.records(range(len(index)))
    return {str(record["id"]) for record in records}
