"""Embeddings of many studies, kept on disk and searched by image or by text."""

from __future__ import annotations

from monai_medclip.index.approximate import ApproximateIndex
from monai_medclip.index.draft import DraftReport, DraftSentence, SentenceSource, draft_report, sentence_records
from monai_medclip.index.embedding_index import EmbeddingIndex, Neighbors
from monai_medclip.index.similar import SimilarCase, similar_cases

__all__ = [
    "ApproximateIndex",
    "DraftReport",
    "DraftSentence",
    "EmbeddingIndex",
    "Neighbors",
    "SentenceSource",
    "SimilarCase",
    "draft_report",
    "sentence_records",
    "similar_cases",
]
