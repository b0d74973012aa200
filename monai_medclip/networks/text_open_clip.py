"""Report encoders from open_clip: CLIP's causal text tower, SigLIP's, and towers with a BERT inside (BiomedCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling

from monai_medclip.networks.open_clip_encoder import _BlockStage, load_open_clip
from monai_medclip.networks.packed import is_packable, packed_tokens
from monai_medclip.networks.text_attention import ReportTokens, StagedText, TextStage, bert_stages, read_bert

__all__ = ["OpenClipTextEncoder"]


class OpenClipTextEncoder(nn.Module, StagedText):
    """The text tower of an open_clip model, its own projection included.

    Args:
        source: built-in model name ("ViT-B-16"), `hf-hub:owner/name`, a local folder with `open_clip_config.json`, or
            an open_clip model (with a `text` tower) that is already there; its tower is shared, not copied.
        pretrained: weights tag or file for a built-in name; None leaves them random. Hub names and folders bring
            their own.
        packed: compute no padding tokens in a tower with a BERT inside; the result is the same.

    Attributes:
        projected: True; the output is already in the model's embedding space.
        width: length E of the embedding.
        vocab_size: token ids must be smaller.
        max_length: the tower's context length in tokens.

    Raises:
        ValueError: the folder has no config or lacks weights, or the model keeps its text tower in pieces.
    """

    projected = True

    def __init__(
        self, source: str | Path | nn.Module, *, pretrained: str | Path | None = None, packed: bool = True
    ) -> None:
        """See the class."""
        super().__init__()
        model = source if isinstance(source, nn.Module) else load_open_clip(source, pretrained=pretrained)
        self.tower: Any = getattr(model, "text", model)
        if not isinstance(self.tower, TextTransformer | HFTextEncoder):
            raise ValueError(
                f"{type(model).__name__} has no text tower of its own: build it with "
                "open_clip.create_model(..., force_custom_text=True)."
            )
        self.tower.output_tokens = False
        self.is_bert = isinstance(self.tower, HFTextEncoder)
        self.pooling = _pooling(self.tower) if self.is_bert else None
        self.packed = packed and self.pooling is not None and is_packable(self.tower.transformer)
        self.width = int(self.tower.output_dim or self.tower.width)
        self.vocab_size = int(self.tower.vocab_size)
        self.max_length = int(self.tower.context_length)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode reports.

        Args:
            input_ids: (B, N) int64 from this model's tokenizer.
            attention_mask: (B, N), 1 for tokens (for SigLIP also its own padding, which it reads) and 0 for padding.

        Returns:
            (B, width) float, not normalized.

        Raises:
            ValueError: N exceeds max_length, or is shorter where the tower reads its padding.
        """
        self._check_length(input_ids)
        if self.packed:
            pooled = packed_tokens(self.tower.transformer, input_ids, attention_mask, pooling=str(self.pooling))
            return self.tower.proj(pooled)
        return self.tower(self._tower_ids(input_ids, attention_mask))

    def _check_length(self, input_ids: Tensor) -> None:
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"Reports of {input_ids.shape[1]} tokens do not fit this tower's {self.max_length}. "
                f"Set max_length={self.max_length} where they are tokenized."
            )

    def _tower_ids(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the tower itself takes: ids alone, its own padding id where the mask is 0."""
        pad_id = int(self.tower.config.pad_token_id if self.is_bert else self.tower.pad_id)
        input_ids = input_ids.masked_fill(attention_mask == 0, pad_id)
        return input_ids if self.is_bert else self._fill_context(input_ids, pad_id)

    def _fill_context(self, input_ids: Tensor, pad_id: int) -> Tensor:
        """Pad to the whole context (B, max_length): open_clip's causal mask has only that size."""
        missing = self.max_length - input_ids.shape[1]
        if missing and self.tower.attn_mask is None and not self.tower.use_pad_mask:
            raise ValueError(  # SigLIP attends to its padding, whose number only its tokenizer knows
                f"This tower reads all {self.max_length} positions, but the batch has {input_ids.shape[1]}. "
                "Tokenize with ReportTokenizer.load of the same model: it fills the context."
            )
        return F.pad(input_ids, (0, missing), value=pad_id)

    def _stages(self) -> Sequence[TextStage]:
        tower = self.tower
        if self.is_bert:
            one_or_mean = isinstance(tower.pooler, ClsLastHiddenStatePooler | ClsPooler | MeanPooler)
            return bert_stages(tower.transformer) if one_or_mean else ()
        blocks = tower.transformer.resblocks
        plain = all(type(block) is ResidualAttentionBlock for block in blocks)
        pools_one = tower.cls_emb is not None or tower.pool_type != "none"
        return [_BlockStage(block) for block in blocks] if plain and pools_one else ()

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        self._check_length(input_ids)
        if self.is_bert:
            pooled = None if isinstance(self.tower.pooler, MeanPooler) else 0
            real = attention_mask.bool()
            if not self.packed:  # the tower itself tells padding by its id
                real = real & (input_ids != self.tower.config.pad_token_id)
            return read_bert(self.tower.transformer, input_ids, real, pooled)
        ids = self._tower_ids(input_ids, attention_mask)
        entering, mask = self.tower._embeds(ids)  # (1, N, D), and (N, N), (H, N, N) or None
        positions = torch.full(entering.shape[1:2], -1, device=ids.device)
        given = torch.arange(input_ids.shape[1], device=ids.device)
        positions[: len(given)] = given.where(attention_mask[0] != 0, -1)
        mask = mask[None] if mask is not None and mask.ndim == 2 else mask
        return ReportTokens(entering, mask, positions, _pooled_index(self.tower, ids[0]))

    def _pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        tower = self.tower
        if self.is_bert:
            tanh_pooler = getattr(tower.transformer, "pooler", None)
            output = BaseModelOutputWithPooling(tokens, tanh_pooler(tokens) if tanh_pooler else None)
            return tower.proj(tower.pooler(output, torch.ones(tokens.shape[:2], device=tokens.device)))
        features = tower.ln_final(tokens[:, pooled])
        if tower.text_projection is None:
            return features
        is_linear = isinstance(tower.text_projection, nn.Linear)
        return tower.text_projection(features) if is_linear else features @ tower.text_projection


def _pooling(tower: Any) -> str | None:
    """What the tower's pooler reads of the last hidden states; None for what packing does not do."""
    pooler = tower.pooler
    if isinstance(pooler, MeanPooler):
        return "mean"
    unused = getattr(tower.transformer, "pooler", None) is None
    if isinstance(pooler, ClsLastHiddenStatePooler) or (isinstance(pooler, ClsPooler) and unused):
        return "cls"
    return None


def _pooled_index(tower: Any, ids: Tensor) -> int:
    """Which token of a report (N,) open_clip's own tower reads: EOT, the first, the last, or its class token."""
    if tower.cls_emb is not None:
        return len(ids)  # it comes behind them
    if tower.pool_type in ("first", "last"):
        return 0 if tower.pool_type == "first" else len(ids) - 1
    return int((ids if tower.pool_type == "argmax" else (ids == tower.eos_id).int()).argmax())
