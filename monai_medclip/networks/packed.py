"""BERT on packed text: the real tokens of a batch in one (T, D) row of rows, no padding computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertModel, RobertaModel

__all__ = ["is_packable", "packed_tokens"]


class Packed(NamedTuple):
    """The real tokens of a batch, sequence after sequence."""

    input_ids: Tensor  # (T,) int64
    positions: Tensor  # (T,) int64, each token's column in the padded batch
    lengths: list[int]  # B token counts, their sum is T
    first: Tensor  # (B,) int64, row of each sequence's first token


def is_packable(model: nn.Module) -> bool:
    """Whether `packed_tokens` computes what the model would: BERT and RoBERTa encoders with absolute positions."""
    return type(model) in (BertModel, RobertaModel) and not getattr(model.config, "is_decoder", False)


def packed_tokens(model: Any, input_ids: Tensor, attention_mask: Tensor, *, pooling: str = "cls") -> Tensor:
    """Run a BERT-like model's own weights on real tokens only and pool.

    Every linear layer, norm and MLP sees (T, D), T the number of real tokens; attention runs inside each sequence. With
    CLS pooling the last layer computes queries and MLP for the first tokens only, since nothing else is read.

    Args:
        model: a transformers model for which `is_packable` is True.
        input_ids: (B, N) int64.
        attention_mask: (B, N), nonzero for real tokens; every row holds at least one.
        pooling: "cls" (each sequence's first token) or "mean".

    Returns:
        (B, D), equal to the padded model's pooled last hidden state.

    Raises:
        ValueError: a row of the mask is all padding.
    """
    packed = pack(input_ids, attention_mask)
    hidden = _embed(model, packed)  # (T, D)
    layers = model.encoder.layer
    for layer in layers[:-1]:
        hidden = _layer(layer, hidden, packed)
    if pooling == "cls":
        return _layer(layers[-1], hidden, packed, only_first=True)  # (B, D)
    hidden = _layer(layers[-1], hidden, packed)
    return torch.stack([sequence.mean(dim=0) for sequence in hidden.split(packed.lengths)])


def pack(input_ids: Tensor, attention_mask: Tensor) -> Packed:
    """Drop the padding of a batch (B, N)."""
    real = attention_mask.bool()
    counts = real.sum(dim=1)
    lengths = counts.tolist()
    if 0 in lengths:
        raise ValueError(f"Report {lengths.index(0)} of the batch has no token: its attention_mask is all zero.")
    positions = real.nonzero()[:, 1]
    return Packed(input_ids[real], positions, lengths, counts.cumsum(0) - counts)


def _embed(model: Any, packed: Packed) -> Tensor:
    embeddings, positions = model.embeddings, packed.positions
    if isinstance(model, RobertaModel):
        positions = positions + 1 + embeddings.padding_idx  # RoBERTa counts real tokens from its padding index
    hidden = embeddings.word_embeddings(packed.input_ids) + embeddings.token_type_embeddings.weight[0]
    return embeddings.dropout(embeddings.LayerNorm(hidden + embeddings.position_embeddings(positions)))


def _layer(layer: Any, hidden: Tensor, packed: Packed, *, only_first: bool = False) -> Tensor:
    attended = _attention(layer.attention.self, hidden, packed, only_first=only_first)  # (T or B, D)
    residual = hidden[packed.first] if only_first else hidden
    attended = layer.attention.output(attended, residual)
    return layer.output(layer.intermediate(attended), attended)


def _attention(attention: Any, hidden: Tensor, packed: Packed, *, only_first: bool) -> Tensor:
    heads, dropout = attention.num_attention_heads, attention.dropout.p if attention.training else 0.0
    queries = attention.query(hidden[packed.first] if only_first else hidden)
    counts = [1] * len(packed.lengths) if only_first else packed.lengths
    mixed = [  # (1, H, n, D / H) each
        F.scaled_dot_product_attention(_by_head(q, heads), _by_head(k, heads), _by_head(v, heads), dropout_p=dropout)
        for q, k, v in zip(
            queries.split(counts),
            attention.key(hidden).split(packed.lengths),
            attention.value(hidden).split(packed.lengths),
        )
    ]
    return torch.cat([part.transpose(1, 2).flatten(2)[0] for part in mixed])  # (T or B, D)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    return rows.view(1, len(rows), heads, -1).transpose(1, 2)  # (n, D) -> (1, H, n, D / H)
