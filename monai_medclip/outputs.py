"""Named tuples that travel between the rooms: what a network returns, with the shape of every field."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CLIPOutput", "TokenBatch", "WordWeights"]


class TokenBatch(NamedTuple):
    """Tokenized texts, padded to the longest of the batch."""

    input_ids: Tensor  # (B, N) int64
    attention_mask: Tensor  # (B, N) int64, 1 for a token and 0 for padding


class CLIPOutput(NamedTuple):
    """Both sides of a batch of pairs in the shared embedding space."""

    image: Tensor  # (B, E) float, unit length
    text: Tensor  # (B, E) float, unit length
    logit_scale: Tensor  # () float, 1 / tau, always positive
    logit_bias: Tensor  # () float, added to every logit; 0 unless the loss is SigLIP's


class WordWeights(NamedTuple):
    """Which words of a report carry its score with an image, in the order of the report."""

    words: tuple[str, ...]  # W words and marks; words[i] is the report's characters [spans[i, 0], spans[i, 1])
    spans: Tensor  # (W, 2) int64 characters of the original report, end exclusive
    weights: Tensor  # (W,) float32, raw; positive pulls the score up, negative (only where signed) down
    score: Tensor  # () float32, the score that is explained
    signed: bool  # False: the method shows what counts, and cannot show what speaks against
    flat: bool  # all weights are zero: the method found no difference between the words

    def shares(self) -> Tensor:
        """Weights (W,) divided by the sum of their sizes: in [-1, 1], sizes sum to 1; zeros where all are zero."""
        total = self.weights.abs().sum()
        return torch.where(total > 0, self.weights / total, torch.zeros_like(self.weights))
