"""Named tuples that travel between the rooms: what a network returns, with the shape of every field."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["CLIPOutput", "TokenBatch"]


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
