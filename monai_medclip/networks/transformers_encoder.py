"""Image encoders from transformers: ViT, DINOv2 (RAD-DINO), the vision towers of CLIP and SigLIP, and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.image_processing_base import ImageProcessingMixin

from monai_medclip.networks.attention import QKV, AttentionStage, StagedAttention, attend, multihead_qkv, split_heads
from monai_medclip.networks.checkpoints import check_missing
from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel

__all__ = ["TransformersImageEncoder"]


class _BlockStage:
    """A pre-norm transformers layer: the libraries' names for its parts differ, the equations do not."""

    def __init__(self, layer: Any, prefix_tokens: int) -> None:
        self.layer = layer
        self.prefix_tokens = prefix_tokens
        self.norm1 = _first(layer, "layernorm_before", "layer_norm1", "norm1")
        self.norm2 = _first(layer, "layernorm_after", "layer_norm2", "norm2")
        self.attention = _first(layer, "attention", "self_attn")
        self.scale1, self.scale2 = (getattr(layer, f"layer_scale{i}", nn.Identity()) for i in (1, 2))
        self.drop = _first(layer, "dropout", "drop_path") or nn.Identity()

    def known(self) -> bool:
        """Whether all parts are there under a known name."""
        projections = [getattr(self.attention, name, None) for name in ("q_proj", "k_proj", "v_proj")]
        return None not in (self.norm1, self.norm2, _first(self.attention, "o_proj", "out_proj"), *projections)

    @property
    def entrance(self) -> nn.Module:
        return self.layer

    def qkv(self, tokens: Tensor) -> QKV:
        attention, normalized = self.attention, self.norm1(tokens)
        heads = getattr(attention, "num_attention_heads", None) or attention.num_heads
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return QKV(*(split_heads(projection(normalized), heads) for projection in projections))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        projected = _first(self.attention, "o_proj", "out_proj")(context)
        tokens = tokens + self.drop(self.scale1(projected))
        return tokens + self.drop(self.scale2(self.layer.mlp(self.norm2(tokens))))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens, None)


class _PoolStage:
    """SigLIP's pooling head: one learned query over the normalized patch tokens."""

    prefix_tokens = 0

    def __init__(self, norm: nn.Module, head: Any) -> None:
        self.norm = norm
        self.head = head

    @property
    def entrance(self) -> nn.Module:
        return self.norm

    def qkv(self, tokens: Tensor) -> QKV:
        return multihead_qkv(self.head.attention, self.head.probe.expand(len(tokens), -1, -1), self.norm(tokens))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        pooled = self.head.attention.out_proj(context)
        return pooled + self.head.mlp(self.head.layernorm(pooled))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.finish(tokens, attend(self.qkv(tokens))[1])


class TransformersImageEncoder(nn.Module, StagedAttention):
    """A transformers vision model: image (B, C, rows, columns) -> pooled features (B, width).

    Pooling is the model's own: the normalized CLS token, or SigLIP's attention pooling. ViT's tanh pooler is left out.

    Args:
        source: hub name or local folder (config, weights), of a vision model or of a CLIP whose vision tower is taken;
            a config for weights from scratch; or a model that is already there, whose tower is shared, not copied.
        pretrained: False takes only the config from ``source``.
        image_size: (rows, columns) or one number; position embeddings are interpolated. None for the model's own.

    Raises:
        ValueError: if the checkpoint lacks weights, or the model has no vision tower.
    """

    spatial_dims = 2

    def __init__(
        self,
        source: str | Path | PretrainedConfig | nn.Module,
        *,
        pretrained: bool = True,
        image_size: int | Sequence[int] | None = None,
    ) -> None:
        """Load the model and leave its vision tower."""
        super().__init__()
        self.model: Any = _load(source, pretrained=pretrained)
        config = self.model.config
        own_size = per_axis(config.image_size, 2)
        self.image_size = own_size if image_size is None else per_axis(image_size, 2)
        self.interpolate = self.image_size != own_size
        self.in_channels = int(config.num_channels)
        self.width = int(getattr(config, "hidden_size", 0) or config.hidden_sizes[-1])
        self.mean, self.std = image_statistics(source, self.in_channels)
        patch_size = getattr(config, "patch_size", None)
        if patch_size is not None:
            patches = per_axis(patch_size, 2)
            self.grid_size = tuple(size // patch for size, patch in zip(self.image_size, patches, strict=True))

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width)."""
        options = {"interpolate_pos_encoding": True} if self._interpolates() else {}
        output = self.model(network_input(image, self.in_channels), **options)
        if output.get("pooler_output") is not None:
            return output.pooler_output.flatten(1)
        return output.last_hidden_state[:, 0]

    def _interpolates(self) -> bool:
        return self.interpolate and self.model.config.model_type not in ("dinov2", "dinov2_with_registers")

    def _stages(self) -> Sequence[AttentionStage]:
        encoder = getattr(self.model, "encoder", self.model)
        layers = _first(encoder, "layers", "layer") or ()
        norm = _first(self.model, "layernorm", "post_layernorm")
        embeddings = getattr(self.model, "embeddings", None)
        cls = _first(embeddings, "cls_token", "class_embedding")
        prefix_tokens = int(cls is not None) + int(getattr(self.model.config, "num_register_tokens", 0))
        stages = [_BlockStage(layer, prefix_tokens) for layer in layers]
        if norm is None or not all(stage.known() for stage in stages):
            return ()
        head = getattr(self.model, "head", None)
        return stages if head is None else [*stages, _PoolStage(norm, head)]

    def _embed(self, image: Tensor) -> Tensor:
        options = {"interpolate_pos_encoding": True} if self._interpolates() else {}
        tokens = self.model.embeddings(network_input(image, self.in_channels), **options)
        norm = getattr(self.model, "pre_layrnorm", None)  # spelled so in transformers
        return tokens if norm is None else norm(tokens)

    def _pools_first_token(self) -> bool:
        return True

    def _pool(self, tokens: Tensor) -> Tensor:
        if getattr(self.model, "head", None) is not None:
            return tokens[:, 0]
        return _first(self.model, "layernorm", "post_layernorm")(tokens[:, 0])


def _first(module: Any, *names: str) -> Any:
    """The first attribute that exists and is not None."""
    return next((found for name in names if (found := getattr(module, name, None)) is not None), None)


def _load(source: str | Path | PretrainedConfig | nn.Module, *, pretrained: bool) -> Any:
    if isinstance(source, nn.Module):
        return _vision_tower(source, type(source).__name__)
    if isinstance(source, PretrainedConfig) or not pretrained:
        config = source if isinstance(source, PretrainedConfig) else AutoConfig.from_pretrained(str(source))
        return _vision_tower(AutoModel.from_config(config), source)
    model, report = AutoModel.from_pretrained(
        str(source), dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    tower = _vision_tower(model, source)
    check_missing((key for key in report["missing_keys"] if "pooler" not in key), source, tower)
    return tower


def _vision_tower(model: Any, source: Any) -> nn.Module:
    tower = getattr(model, "vision_model", model)
    if not hasattr(tower.config, "num_channels"):
        raise ValueError(f"{source} is no vision model ({type(model).__name__}): give one that takes pixel_values")
    if getattr(tower, "pooler", None) is not None and type(tower.pooler).__name__ == "ViTPooler":
        tower.pooler = None  # a dense layer with tanh, random unless the checkpoint was trained with it
    return tower


def image_statistics(source: Any, in_channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Normalization from ``preprocessor_config.json`` beside the weights; 0.5 where there is none."""
    folder = getattr(source, "name_or_path", "") if isinstance(source, nn.Module) else source
    known = folder and not isinstance(folder, PretrainedConfig)
    try:
        values = ImageProcessingMixin.get_image_processor_dict(folder)[0] if known else {}
    except OSError:
        values = {}
    mean, std = (values.get(key) or (0.5,) for key in ("image_mean", "image_std"))
    return per_channel(mean, in_channels), per_channel(std, in_channels)
