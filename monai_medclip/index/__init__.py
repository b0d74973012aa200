"""Embeddings of many studies, kept on disk and searched by image or by text."""

from __future__ import annotations

from monai_medclip.index.embedding_index import EmbeddingIndex, Neighbors

__all__ = ["EmbeddingIndex", "Neighbors"]
