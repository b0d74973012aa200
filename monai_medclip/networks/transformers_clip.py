"""Both towers of a whole CLIP or SigLIP from transformers, their projections included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from monai_medclip.networks.checkpoints import check_missing
from monai_medclip.networks.text_attention import ReportTokens, StagedText, TextStage
from monai_medclip.networks.transformers_encoder import TransformersImageEncoder, _BlockStage

__all__ = ["TransformersClipImageEncoder", "TransformersClipTextEncoder", "load_transformers_clip"]

MODEL_TYPES = ("clip", "siglip")  # SigLIP2 of one image size is published as "siglip" too


class TransformersClipImageEncoder(TransformersImageEncoder):
    """The vision tower of a CLIP or SigLIP: image (B, C, rows, columns) -> its own embedding (B, width).

    Args:
        source: hub name, local folder (``config.json`` and weights), or a model that is already there; its tower is
            shared, not copied.
        image_size: (rows, columns) or one number; position embeddings are interpolated. None for the model's own.

    Attributes:
        projected: True: the output is already in the model's embedding space, of length ``width``.

    Raises:
        ValueError: for another kind of model, or a checkpoint that lacks weights.
    """

    projected = True

    def __init__(self, source: str | Path | nn.Module, *, image_size: int | Sequence[int] | None = None) -> None:
        """Take the vision tower of a model, and its projection."""
        model: Any = source if isinstance(source, nn.Module) else load_transformers_clip(source)
        super().__init__(model, image_size=image_size)
        self.projection = getattr(model, "visual_projection", nn.Identity())  # SigLIP's pooling ends in its space
        self.width = int(getattr(self.projection, "out_features", self.width))

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, width), not normalized."""
        return self.projection(super().forward(image))

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.projection(super()._pool(tokens))


class TransformersClipTextEncoder(nn.Module, StagedText):
    """The text tower of a CLIP or SigLIP: ids and mask (B, N) -> its own embedding (B, width).

    CLIP reads its end token, which sees only what comes before. SigLIP reads the last of all ``max_length`` positions
    and attends to its padding, so that its tokenizer must fill them (``ReportTokenizer.load`` of the same model does).

    Args:
        source: hub name, local folder (``config.json`` and weights), or a model that is already there; its tower is
            shared, not copied.

    Attributes:
        projected: True; the output is already in the model's embedding space.
        width: length E of the embedding.
        vocab_size: token ids must be smaller.
        max_length: tokens at most; for SigLIP exactly.

    Raises:
        ValueError: for another kind of model, or a checkpoint that lacks weights.
    """

    projected = True

    def __init__(self, source: str | Path | nn.Module) -> None:
        """Take the text tower of a model, and its projection."""
        super().__init__()
        model: Any = source if isinstance(source, nn.Module) else load_transformers_clip(source)
        self.model: Any = model.text_model
        self.reads_padding = hasattr(self.model, "head")  # SigLIP's projection is a part of its tower
        self.projection: Any = getattr(model, "text_projection", nn.Identity())
        config: Any = self.model.config
        self.width = int((self.model.head if self.reads_padding else self.projection).out_features)
        self.vocab_size = int(config.vocab_size)
        self.max_length = int(config.max_position_embeddings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode reports.

        Args:
            input_ids: (B, N) int64 from this model's tokenizer.
            attention_mask: (B, N), 1 for tokens and 0 for padding behind them. SigLIP reads its padding, whatever
                the mask says.

        Returns:
            (B, width) float, not normalized.

        Raises:
            ValueError: N exceeds max_length, or is shorter where the tower reads its padding.
        """
        self._check_length(input_ids)
        mask = None if self.reads_padding else attention_mask
        return self.projection(self.model(input_ids=input_ids, attention_mask=mask).pooler_output)

    def _check_length(self, input_ids: Tensor) -> None:
        length = input_ids.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"Reports of {length} tokens do not fit this tower's {self.max_length}. "
                f"Set max_length={self.max_length} where they are tokenized."
            )
        if self.reads_padding and length < self.max_length:
            raise ValueError(
                f"This tower reads all {self.max_length} positions, but the batch has {length}. "
                "Tokenize with ReportTokenizer.load of the same model: it fills the context."
            )

    def _stages(self) -> Sequence[TextStage]:
        return [_BlockStage(layer, 0) for layer in self.model.encoder.layers]

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> ReportTokens:
        self._check_length(input_ids)
        entering = self.model.embeddings(input_ids=input_ids)  # (1, N, D)
        length = input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device).where(attention_mask[0] != 0, -1)
        if self.reads_padding:
            return ReportTokens(entering, None, positions, length - 1)
        future = torch.full((1, length, length), -torch.inf, device=input_ids.device).triu(1)
        return ReportTokens(entering, future, positions, self._end_of(input_ids[0]))

    def _end_of(self, ids: Tensor) -> int:
        """Where CLIP's end token stands in a report (N,), by the rule of transformers."""
        end = self.model.eos_token_id
        # Early CLIP configs say 2, wrongly: there the end token is the one with the highest number.
        return int((ids if end == 2 else (ids == end).int()).argmax())

    def _pool(self, tokens: Tensor, pooled: int | None) -> Tensor:
        features = self.model.final_layer_norm(tokens[:, pooled])
        return self.model.head(features) if self.reads_padding else self.projection(features)


def load_transformers_clip(source: str | Path) -> nn.Module:
    """A CLIPModel or SiglipModel of transformers in float32, by hub name or local folder; no remote code is run.

    Raises:
        ValueError: if a folder has no ``config.json``, the model is of another type, or weights are missing.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json: save the model with save_pretrained, or load it as open_clip's if it holds "
            "open_clip_config.json."
        )
    name = str(folder) if folder.is_dir() else str(source)
    model_type = PretrainedConfig.get_config_dict(name)[0].get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"{source} is a model of type {model_type!r}, not one of {', '.join(MODEL_TYPES)}: give its image and its "
            "text encoder to CLIP one by one (TransformersImageEncoder, TransformersTextEncoder)."
        )
    model, report = AutoModel.from_pretrained(
        name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    check_missing(report["missing_keys"], source, model)
    return model
