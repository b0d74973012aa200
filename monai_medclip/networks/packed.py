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
    if isinstance(model, RobertaModel):  # it counts real tokens, from behind its padding index
        starts = torch.repeat_interleave(packed.first, torch.tensor(packed.lengths, device=positions.device))
        positions = torch.arange(len(starts), device=starts.device) - starts + embeddings.padding_idx + 1
    hidden = embeddings.word_embeddings(packed.input_ids) + embeddings.token_type_embeddings.weight[0]
    return embeddings.dropout(embeddings.LayerNorm(hidden + embeddings.position_embeddings(positions)))


def _layer(layer: Any, hidden: Tensor, packed: Packed, *, only_first: bool = False) -> Tensor:
    attended = _attention(layer.attention.self, hidden, packed, only_first=only_first)  # (T or B, D)
    residual = hidden[packed.first] if only_first else hidden
    attended = layer.attention.output(attended, residual)
    return layer.output(layer.intermediate(attended), attended)


def _attention(attention: Any, hidden: Tensor, packed: Packed, *, only_first: bool) -> Tensor:
    """Heads' output, concatenated, for all tokens (T, D) or for the first of each sequence (B, D)."""
    heads, dropout = attention.num_attention_heads, attention.dropout.p if attention.training else 0.0
    q = attention.query(hidden[packed.first] if only_first else hidden).unflatten(-1, (heads, -1))  # (T or B, H, dh)
    k, v = (project(hidden).unflatten(-1, (heads, -1)) for project in (attention.key, attention.value))  # (T, H, dh)
    lengths = [1] * len(packed.lengths) if only_first else packed.lengths
    attend = _attend_each if hidden.device.type == "cpu" else _attend_padded
    return attend(q, k, v, lengths, packed.lengths, dropout).flatten(1)


def _attend_each(q: Tensor, k: Tensor, v: Tensor, queries: list[int], keys: list[int], dropout: float) -> Tensor:
    """Sequence after sequence: on a CPU a loop costs less than padding, and plain softmax less than fused kernels."""
    scale = q.shape[-1] ** -0.5
    contexts = []
    for one_q, one_k, one_v in zip(q.split(queries), k.split(keys), v.split(keys)):
        scores = (one_q * scale).transpose(0, 1) @ one_k.permute(1, 2, 0)  # (H, n_q, n_k)
        weights = F.dropout(scores.softmax(dim=-1), dropout, training=dropout > 0)
        contexts.append((weights @ one_v.transpose(0, 1)).transpose(0, 1))  # (n_q, H, dh)
    return torch.cat(contexts)


def _attend_padded(q: Tensor, k: Tensor, v: Tensor, queries: list[int], keys: list[int], dropout: float) -> Tensor:
    """All sequences in one kernel, padded for this step only: on a GPU that costs less than a loop."""
    real_q, real_k = _real(queries, q.device), _real(keys, q.device)  # (B, Nq), (B, N)
    padded = F.scaled_dot_product_attention(
        _pad(q, real_q), _pad(k, real_k), _pad(v, real_k), attn_mask=real_k[:, None, None], dropout_p=dropout
    )
    return padded.transpose(1, 2)[real_q]  # (T or B, H, dh)


def _real(lengths: list[int], device: torch.device) -> Tensor:
    return torch.arange(max(lengths), device=device) < torch.tensor(lengths, device=device)[:, None]


def _pad(rows: Tensor, real: Tensor) -> Tensor:
    """Lay packed rows (T, H, dh) out as (B, H, N, dh), zeros where `real` (B, N) is False."""
    padded = rows.new_zeros(*real.shape, *rows.shape[1:])
    return padded.index_put((real,), rows).transpose(1, 2)
