"""Report encoders from transformers: BERT and its biomedical relatives, pretrained or from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, BertConfig, BertModel, PretrainedConfig

from monai_medclip.networks.packed import is_packable, packed_tokens
from monai_medclip.networks.text_attention import ReportTokens, StagedText, TextStage, bert_stages, read_bert

__all__ = ["TransformersTextEncoder"]

POOLINGS = ("cls", "mean")


class TransformersTextEncoder(nn.Module, StagedText):
    """A transformers text model, pooled to one vector per report; BERT's relatives give access to their attention.

    Args:
        source: a hub name or local folder (weights and config), or a config for weights from scratch.
        pooling: "cls" (last hidden state of the first token) or "mean" (over real tokens).
        packed: compute no padding tokens where the architecture allows it (BERT, RoBERTa); the result is the same.
        pretrained: False takes only the config from `source`.

    Attributes:
        width: length of the pooled vector.
        vocab_size: token ids must be smaller.
        max_length: tokens at most.
    """

    def __init__(
        self,
        source: str | Path | PretrainedConfig,
        *,
        pooling: str = "cls",
        packed: bool = True,
        pretrained: bool = True,
    ) -> None:
        """See the class."""
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} is not one of {POOLINGS}.")
        self.model = _load(source, pretrained=pretrained)
        self.pooling = pooling
        self.packed = packed and is_packable(self.model)
        config: Any = self.model.config
        self.width = int(config.hidden_size)
        self.vocab_size = int(config.vocab_size)
        reserved = int(config.pad_token_id) + 1 if config.model_type == "roberta" else 0  # its positions start there
        self.max_length = int(getattr(config, "max_position_embeddings", 512)) - reserved

    @classmethod
    def small(
        cls,
        vocab_size: int,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        max_length: int = 512,
        dropout: float = 0.1,
        pooling: str = "cls",
        from_words: bool = False,
    ) -> TransformersTextEncoder:
        """A small BERT from scratch, for data that fit on a desk.

        Args:
            vocab_size: token ids.
            width: channels; layers, heads: their numbers; the MLPs are four times as wide.
            max_length: tokens at most.
            dropout: of hidden states and of attention.
            pooling: "cls" or "mean".
            from_words: start with words that differ (standard deviation 1), positions that hardly do, and linear layers
                that keep their input's size, so that reports start apart. BERT's own 0.02, made for 768 channels,
                starts them all at nearly one point, which a contrastive loss takes long to leave.
        """
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=width**-0.5 if from_words else 0.02,
        )
        encoder = cls(config, pooling=pooling)
        if from_words:
            embeddings: Any = encoder.model.embeddings
            nn.init.normal_(embeddings.word_embeddings.weight, std=1.0)
            nn.init.normal_(embeddings.position_embeddings.weight, std=0.02)
            nn.init.zeros_(embeddings.token_type_embeddings.weight)
        return encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode reports.

        Args:
            input_ids: (B, N) int64 in [0, vocab_size).
            attention_mask: (B, N), 1 for tokens and 0 for padding.

        Returns:
            (B, width) float.

        Raises:
            ValueError: N exceeds max_length, or a report has no token.
        """
        self._check_length(input_ids)
        if self.packed:
            return packed_tokens(self.model, input_ids, attention_mask, pooling=self.pooling)
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, N, D)
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = attention_mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

    def _check_length(self, input_ids: Tensor) -> None:
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"Reports of {input_ids.shape[1]} tokens do not fit this encoder's {self.max_length}. "
                f"Set max_length={self.max_length} where they are tokenized."
            )

    def _stages(self) -> Sequence[TextStage]:
        return bert_stages(self.model)

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        self._check_length(input_ids)
        return read_bert(self.model, input_ids, attention_mask.bool(), 0 if self.pooling == "cls" else None)

    def _pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        return tokens.mean(dim=1) if pooled is None else tokens[:, pooled]


def _load(source: str | Path | PretrainedConfig, *, pretrained: bool) -> nn.Module:
    if isinstance(source, PretrainedConfig):
        return _without_pooler(AutoModel.from_config(source))
    name = str(source)
    config, custom = _read_config(name)
    if not pretrained:
        return _without_pooler(AutoModel.from_config(config))
    loader = BertModel if custom else AutoModel
    model, report = loader.from_pretrained(
        name, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        raise ValueError(
            f"{name}: its weights do not fit {type(model).__name__} (missing {missing[:5]}, mismatched "
            f"{sorted(map(str, report['mismatched_keys']))[:5]}). Give a checkpoint saved by transformers."
        )
    return _without_pooler(model)


def _read_config(name: str) -> tuple[PretrainedConfig, bool]:
    """The config, and whether it belongs to custom code (CXR-BERT) that is a BERT inside; no remote code is run."""
    values: dict[str, Any] = PretrainedConfig.get_config_dict(name)[0]
    if values.get("model_type") in CONFIG_MAPPING:
        return AutoConfig.from_pretrained(name, trust_remote_code=False), False
    if not {"hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"} <= values.keys():
        raise ValueError(
            f"{name}: model type {values.get('model_type')!r} is unknown to transformers and its config is no BERT's. "
            "Give a text model whose type transformers knows."
        )
    return BertConfig.from_dict({**values, "model_type": "bert"}), True


def _without_pooler(model: Any) -> nn.Module:
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # it would be a parameter without a gradient: pooling here reads the last hidden state
    return model
