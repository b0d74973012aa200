"""Attention access to report encoders: how explainers look inside any text tower without knowing its library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import BertModel, CamembertModel, RobertaModel, XLMRobertaModel

from monai_medclip.networks.attention import QKV, split_heads

__all__ = ["ReportTokens", "TextAttentionAccess", "has_text_attention"]

BERTS = (BertModel, RobertaModel, XLMRobertaModel, CamembertModel)
READABLE = (
    "Attention can be read in BERT, RoBERTa, XLM-RoBERTa and CamemBERT encoders pooled by cls or mean, and in "
    "open_clip's own text towers of plain blocks that pool at one token (CLIP, SigLIP, CoCa)."
)


class ReportTokens(NamedTuple):
    """One report on its way into a text encoder."""

    entering: Tensor  # (1, N, D) entering the first block
    mask: Tensor | None  # (1 or H, N, N), added to scores: -inf where a query must not look; None: it looks everywhere
    positions: Tensor  # (N,) int64, which of the report's ids each token is; -1 for padding and what the network adds
    pooled: int | None  # the token that is read at the end (CLS, EOT, the last); None for the mean of all


@runtime_checkable
class TextAttentionAccess(Protocol):
    """What a report encoder offers to explainers, for one report at a time.

    Carrying ``read(ids, mask).entering`` through `attend` of `qkv` with its mask and `leave`, block by block, and then
    through `pool`, gives ``forward(ids, mask)`` in evaluation mode.
    """

    @property
    def num_blocks(self) -> int:
        """Number of attention blocks; 0 for a tower that cannot be read."""
        ...

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        """The tokens of one report, ids and mask (1, N), as they enter the first block."""
        ...

    def qkv(self, tokens: Tensor, block: int) -> QKV:
        """Queries, keys and values (1, H, N, dh) of a block for the tokens (1, N, D) that enter it."""
        ...

    def leave(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """Tokens (1, N, D) that leave a block, from those that entered it and its heads' output (1, N, H * dh)."""
        ...

    def pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        """Features (1, width) of the tokens (1, N, D) that leave the last block."""
        ...


def has_text_attention(encoder: nn.Module) -> bool:
    """Whether a text encoder gives attention access: a bag of words or an unknown architecture does not."""
    return isinstance(encoder, TextAttentionAccess) and encoder.num_blocks > 0


class TextStage(Protocol):
    """One block of a text tower."""

    def qkv(self, tokens: Tensor) -> QKV:
        """Queries, keys and values for the tokens (1, N, D) that enter."""
        ...

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        """The rest of the block, from the heads' output to the tokens that leave."""
        ...


class StagedText(ABC):
    """Attention access for an encoder that can name its blocks; mixed into the text encoders."""

    @abstractmethod
    def _stages(self) -> Sequence[TextStage]:
        """Views of the encoder's own blocks, nothing is stored or hooked; empty if they cannot be read."""

    @abstractmethod
    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        """One report (1, N) as it enters the first block."""

    @abstractmethod
    def _pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        """Features (1, width) of the tokens (1, N, D) that leave the last block."""

    @property
    def num_blocks(self) -> int:
        """Number of attention blocks; 0 for a tower that cannot be read."""
        return len(self._stages())

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        """One report as it enters the first block.

        Args:
            input_ids: (1, N) int64, as for ``forward``.
            attention_mask: (1, N), 1 for tokens and 0 for padding.

        Raises:
            TypeError: the tower cannot be read; says which can.
            ValueError: more than one report, or what ``forward`` refuses.
        """
        if not self._stages():
            raise TypeError(f"The attention of this {type(self).__name__}'s network cannot be read. {READABLE}")
        if len(input_ids) != 1:
            raise ValueError(f"Attention is read for one report at a time, not {len(input_ids)}: pass them one by one.")
        return self._read(input_ids, attention_mask)

    def qkv(self, tokens: Tensor, block: int) -> QKV:
        """Queries, keys and values (1, H, N, dh) of a block for the tokens (1, N, D) that enter it."""
        return self._stages()[block].qkv(tokens)

    def leave(self, tokens: Tensor, context: Tensor, block: int) -> Tensor:
        """Tokens (1, N, D) that leave a block, from those that entered it and its heads' output (1, N, H * dh)."""
        return self._stages()[block].finish(tokens, context)

    def pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        """Features (1, width) of the tokens (1, N, D) that leave the last block, as ``forward`` pools them."""
        return self._pool(tokens, pooled)


class _BertStage:
    """A post-norm layer of BERT or RoBERTa."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def qkv(self, tokens: Tensor) -> QKV:
        attention = self.layer.attention.self
        projections = (attention.query, attention.key, attention.value)
        return QKV(*(split_heads(projection(tokens), attention.num_attention_heads) for projection in projections))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        attended = self.layer.attention.output(context, tokens)
        return self.layer.output(self.layer.intermediate(attended), attended)


def bert_stages(model: Any) -> Sequence[TextStage]:
    """The layers of a BERT-like encoder; none for other architectures and for decoders."""
    if type(model) not in BERTS or getattr(model.config, "is_decoder", False):
        return ()
    return [_BertStage(layer) for layer in model.encoder.layer]


def read_bert(model: Any, input_ids: Tensor, real: Tensor, pooled: int | None) -> ReportTokens:
    """The real tokens (1, N bool) of a report, embedded; padding is left out, so that nothing needs a mask.

    Raises:
        ValueError: no token is real.
    """
    if not real.any():
        raise ValueError("The report has no token: its attention_mask is all zero.")
    positions = real[0].nonzero()[:, 0]  # (N,)
    columns = positions
    if not isinstance(model, BertModel):  # RoBERTa counts real tokens, from behind its padding index
        columns = torch.arange(len(positions), device=positions.device) + model.embeddings.padding_idx + 1
    entering = model.embeddings(input_ids=input_ids[:, positions], position_ids=columns[None])
    return ReportTokens(entering, None, positions, pooled)
