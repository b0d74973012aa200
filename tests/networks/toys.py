"""Tiny real parts for the tests of this room: a bag-of-words text encoder and its tokenizer."""

from __future__ import annotations

import re
import zlib

import torch
from torch import Tensor, nn

from monai_medclip.networks import CLIP, SmallViT
from monai_medclip.outputs import TokenBatch

VOCABULARY = 997


class BagOfWords(nn.Module):
    """Mean of word vectors, with dropout so that train and eval mode differ."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width, self.vocab_size, self.max_length = width, VOCABULARY, 16
        self.words = nn.Embedding(VOCABULARY, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1)
        return (self.dropout(self.words(input_ids)) * mask).sum(1) / mask.sum(1)


def tokenize(texts: list[str]) -> TokenBatch:
    """One id per word, the same in every run; padded to the longest."""
    words = [[zlib.crc32(w.encode()) % VOCABULARY for w in re.findall(r"\w+", t.lower())] for t in texts]
    longest = max(map(len, words))
    ids = torch.tensor([w + [0] * (longest - len(w)) for w in words])
    mask = torch.tensor([[1] * len(w) + [0] * (longest - len(w)) for w in words])
    return TokenBatch(ids, mask)


def tiny_clip(**arguments: object) -> CLIP:
    image_encoder = SmallViT(32, width=64, depth=2, num_heads=2, patch_drop=0.0)
    return CLIP(image_encoder, BagOfWords(), **{"embed_dim": 16, **arguments})  # type: ignore[arg-type]
