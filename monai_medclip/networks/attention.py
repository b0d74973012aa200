"""Attention access: how explainers look inside any ViT-like encoder without knowing which library wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["QKV", "AttentionAccess", "AttentionStage", "StagedAttention", "attend", "has_attention"]


class QKV(NamedTuple):
    """Queries, keys and values of one attention stage, as its softmax sees them (after any q/k normalization)."""

    q: Tensor  # (B, H, Nq, dh): Nq = N in a transformer block, the number of learned queries in a pooling stage
    k: Tensor  # (B, H, N, dh)
    v: Tensor  # (B, H, N, dh)


def attend(qkv: QKV, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax attention, materialized: softmax(q k^T / sqrt(dh) + mask) v.

    Args:
        qkv: queries, keys and values.
        mask: added to the scores (B, H, Nq, N), -inf where a query must not look; None where it looks everywhere.

    Returns:
        attention (B, H, Nq, N), rows sum to 1, and context (B, Nq, H * dh), the concatenated heads' output
        before the output projection.
    """
    scores = qkv.q @ qkv.k.transpose(-2, -1) * qkv.q.shape[-1] ** -0.5
    attention = (scores if mask is None else scores + mask).softmax(dim=-1)
    return attention, merge_heads(attention @ qkv.v)


def attend_as_first(normalized: Tensor, weight: Tensor, bias: Tensor | None, num_heads: int) -> tuple[Tensor, Tensor]:
    """What the first token attends to, without keys and values of the others.

    q (W y) = (W^T q) y, and A (W y) = W (A y): exact, and cheap to differentiate, as no D x D matrix meets all tokens.
    The keys' bias adds the same to every score, which softmax does not see.

    Args:
        normalized: (B, N, D) tokens as the projections see them.
        weight, bias: joint projection (3 D, D) and (3 D,) to queries, keys and values.
        num_heads: H.

    Returns:
        attention (B, H, 1, N) and context (B, 1, D), as from `attend`.
    """
    to_q, to_k, to_v = weight.unflatten(0, (3, num_heads, -1))  # (H, dh, D) each
    q = torch.einsum("bd,hcd->bhc", normalized[:, 0], to_q)
    q_bias, _, v_bias = (0.0, 0.0, 0.0) if bias is None else bias.unflatten(0, (3, num_heads, -1))
    sought = torch.einsum("bhc,hcd->bhd", q + q_bias, to_k)
    attention = (torch.einsum("bhd,bnd->bhn", sought, normalized) * q.shape[-1] ** -0.5).softmax(dim=-1)
    seen = torch.einsum("bhn,bnd->bhd", attention, normalized)
    context = torch.einsum("bhd,hcd->bhc", seen, to_v) + v_bias
    return attention.unsqueeze(2), context.flatten(1).unsqueeze(1)


def merge_heads(heads: Tensor) -> Tensor:
    """Concatenate heads: (B, H, N, dh) -> (B, N, H * dh)."""
    return heads.transpose(1, 2).flatten(2)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Cut the width into heads: (B, N, H * dh) -> (B, H, N, dh)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def multihead_qkv(attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor) -> QKV:
    """Queries, keys and values of a batch-first ``torch.nn.MultiheadAttention``.

    Args:
        attention: the module, with either one joint input projection or one each for q, k and v.
        queries: (B, Nq, D).
        keys: (B, N, Dk), also the values.
    """
    if attention.in_proj_weight is not None:
        weights: Sequence[Tensor] = attention.in_proj_weight.chunk(3)
    else:
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    biases = attention.in_proj_bias.chunk(3) if attention.in_proj_bias is not None else (None, None, None)
    projected = (nn.functional.linear(x, w, b) for x, w, b in zip((queries, keys, keys), weights, biases, strict=True))
    return QKV(*(split_heads(x, attention.num_heads) for x in projected))


class AttentionStage(Protocol):
    """One attention of an encoder: a transformer block, or the pooling attention that ends it."""

    prefix_tokens: int  # how many of the keys come before the first patch: CLS and registers

    @property
    def entrance(self) -> nn.Module:
        """The module that the library's own forward pass calls with the entering tokens as first argument."""
        ...

    def qkv(self, tokens: Tensor) -> QKV:
        """Queries, keys and values of this stage for the tokens that enter it (B, N, D)."""
        ...

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        """The rest of the stage, from the heads' output (B, Nq, H * dh) to the tokens that leave it."""
        ...

    def forward(self, tokens: Tensor) -> Tensor:
        """The whole stage as its library computes it."""
        ...


@runtime_checkable
class AttentionAccess(Protocol):
    """What an encoder offers to explainers. Block ``num_blocks - 1`` is the last attention, pooling included.

    ``finish(tokens, attend(qkv(tokens, block))[1], block)`` equals ``forward(image)`` for
    ``tokens = tokens_entering(image, block)``, for every block.
    """

    @property
    def num_blocks(self) -> int:
        """Number of attention stages; 0 for a network without attention."""
        ...

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the first patch (CLS, registers) in the transformer blocks; may be 0."""
        ...

    def prefix_tokens(self, block: int) -> int:
        """How many of that block's keys are prefix tokens: a pooling attention may have left them out."""
        ...

    def tokens_entering(self, image: Tensor, block: int) -> Tensor:
        """Tokens (B, N, D) that enter a block, of an image (B, C, *spatial)."""
        ...

    def qkv(self, tokens: Tensor, block: int) -> QKV:
        """Queries, keys and values per head of a block."""
        ...

    def attend_first(self, tokens: Tensor, block: int) -> tuple[Tensor, Tensor] | None:
        """Attention and context of a block's first token alone, without keys and values; None where that is no gain."""
        ...

    def first_qkv(self, tokens: Tensor, block: int) -> QKV | None:
        """As `qkv`, with the first token's query alone; None where that is no gain."""
        ...

    def leave(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """Tokens that leave a block, from its heads' output; token by token, so both may be cut to the same tokens."""
        ...

    def pool(self, tokens: Tensor) -> Tensor:
        """Pooled features (B, width) of the tokens that leave the last block."""
        ...

    @property
    def pools_first_token(self) -> bool:
        """Whether `pool` reads nothing but the first token, so that the last block's others need not be computed."""
        ...

    def entrance(self, block: int) -> nn.Module:
        """The module whose first argument, in the encoder's own forward pass, is the tokens that enter a block."""
        ...

    def finish(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """The rest of the forward pass from a block's heads' output (B, Nq, D) to the pooled features (B, width)."""
        ...

    def to_grid(self, values: Tensor) -> Tensor:
        """Lay one value per patch (B, P) out where the patches lie: (B, 1, *grid)."""
        ...


class StagedAttention:
    """Attention access for an encoder that can name its stages; mixed into the image encoders.

    The encoder gives ``_stages()`` (nothing is stored or hooked: they are views of its own blocks), ``_embed`` from
    image to the first stage's tokens, ``_pool`` from the last stage's tokens to (B, width), ``_pools_first_token``,
    and ``grid_size``.
    """

    grid_size: tuple[int, ...] = ()

    def _stages(self) -> Sequence[AttentionStage]:
        return ()

    def _embed(self, image: Tensor) -> Tensor:
        raise TypeError(self._no_attention())

    def _pool(self, tokens: Tensor) -> Tensor:
        raise TypeError(self._no_attention())

    def _pools_first_token(self) -> bool:
        return False

    def _no_attention(self) -> str:
        return f"{type(self).__name__} holds a network without attention: explain it through its feature map instead."

    def _stage(self, block: int) -> AttentionStage:
        stages = self._stages()
        if not stages:
            raise TypeError(self._no_attention())
        if not -len(stages) <= block < len(stages):
            raise IndexError(f"block {block} of a network with {len(stages)} attention stages")
        return stages[block]

    @property
    def num_blocks(self) -> int:
        """Number of attention stages, a pooling attention included; 0 for a network without attention."""
        return len(self._stages())

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the first patch (CLS, registers) in the transformer blocks; may be 0."""
        stages = self._stages()
        return stages[0].prefix_tokens if stages else 0

    def prefix_tokens(self, block: int) -> int:
        """How many of a block's keys are prefix tokens."""
        return self._stage(block).prefix_tokens

    def tokens_entering(self, image: Tensor, block: int) -> Tensor:
        """Tokens (B, N, D) that enter a block; negative blocks count from the last stage."""
        self._stage(block)
        tokens = self._embed(image)
        for stage in self._stages()[:block]:
            tokens = stage.forward(tokens)
        return tokens

    def qkv(self, tokens: Tensor, block: int) -> QKV:
        """Queries (B, H, Nq, dh), keys and values (B, H, N, dh) of a block for the tokens that enter it."""
        return self._stage(block).qkv(tokens)

    def attend_first(self, tokens: Tensor, block: int) -> tuple[Tensor, Tensor] | None:
        """Attention (B, H, 1, N) and context (B, 1, D) of the first token alone, without the others' keys and values.

        None where the block offers no such shortcut.
        """
        shortcut = getattr(self._stage(block), "attend_first", None)
        return shortcut(tokens) if shortcut else None

    def first_qkv(self, tokens: Tensor, block: int) -> QKV | None:
        """Query (B, H, 1, dh) of the first token, keys and values (B, H, N, dh) of all; None without a shortcut."""
        shortcut = getattr(self._stage(block), "first_qkv", None)
        return shortcut(tokens) if shortcut else None

    def leave(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """Tokens (B, Nq, D) that leave a block, from its heads' output (B, Nq, D) and the tokens that entered it.

        Computed token by token: where only some tokens matter, cut both to the same ones.
        """
        return self._stage(block).finish(tokens, context)

    def pool(self, tokens: Tensor) -> Tensor:
        """Pooled features (B, width) of the tokens (B, Nq, D) that leave the last block."""
        return self._pool(tokens)

    @property
    def pools_first_token(self) -> bool:
        """Whether the pooled features depend on the first token alone of those that leave the last block."""
        return self._pools_first_token()

    def entrance(self, block: int) -> nn.Module:
        """The module that gets a block's entering tokens as first argument when the library runs the network."""
        return self._stage(block).entrance

    def finish(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """From a block's heads' output (B, Nq, D) before the output projection to pooled features (B, width)."""
        tokens = self.leave(tokens, context, block)
        for stage in self._stages()[block % self.num_blocks + 1 :]:
            tokens = stage.forward(tokens)
        return self._pool(tokens)

    def to_grid(self, values: Tensor) -> Tensor:
        """One value per patch (B, P) -> (B, 1, *grid), in the order of the image's axes.

        Raises:
            ValueError: if P is not the number of patches, for instance with prefix tokens still in.
        """
        patches = int(torch.tensor(self.grid_size).prod())
        if values.shape[1] != patches:
            raise ValueError(
                f"{values.shape[1]} values do not fill the {self.grid_size} patch grid ({patches} patches): "
                f"leave out the {self.num_prefix_tokens} prefix tokens first."
            )
        return values.reshape(len(values), 1, *self.grid_size)


def has_attention(encoder: nn.Module) -> bool:
    """Whether an encoder gives attention access: a ViT does, a ResNet or precomputed features do not."""
    return isinstance(encoder, AttentionAccess) and encoder.num_blocks > 0
