"""BLIP's image side: all tokens leave it, since its matching head attends to every one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from monai_medclip.networks.attention import QKV, AttentionStage, StagedAttention, split_heads
from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel

__all__ = ["BLIPImageEncoder", "StemEmbedding"]


class _BlockStage:
    """A pre-norm block of BLIP's image side, its q, k and v in one projection."""

    prefix_tokens = 1

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def entrance(self) -> nn.Module:
        return self.layer

    def qkv(self, tokens: Tensor) -> QKV:
        attention = self.layer.self_attn
        joint = attention.qkv(self.layer.layer_norm1(tokens))  # (B, N, 3 D)
        return QKV(*(split_heads(part, attention.num_heads) for part in joint.chunk(3, dim=-1)))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = tokens + self.layer.self_attn.projection(context)
        return tokens + self.layer.mlp(self.layer.layer_norm2(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens)


class StemEmbedding(nn.Sequential):
    """A convolutional stem in the place of transformers' single convolution, which is asked for its weight's type."""

    @property
    def weight(self) -> Any:
        """The first layer's, whose type the library asks for."""
        return self[0].weight


class BLIPImageEncoder(nn.Module, StagedAttention):
    """BLIP's vision transformer: image (B, C, rows, columns) -> all of its tokens, one after the other (B, N D).

    Nothing is pooled: texts attend to the tokens. They lie in one row so that an explainer takes them for features.

    Args:
        model: transformers' BlipVisionModel; shared, not copied.
        image_size: (rows, columns) or one number; position embeddings are interpolated. None for the model's own.
        mean, std: statistics per channel of images scaled to [0, 1].
    """

    spatial_dims = 2

    def __init__(
        self, model: Any, *, image_size: int | Sequence[int] | None, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """See the class."""
        super().__init__()
        self.model = model
        own_size = per_axis(model.config.image_size, 2)
        self.image_size = own_size if image_size is None else per_axis(image_size, 2)
        self.interpolate = self.image_size != own_size
        patches = per_axis(model.config.patch_size, 2)
        self.grid_size = tuple(size // patch for size, patch in zip(self.image_size, patches, strict=True))
        self.in_channels = int(model.embeddings.patch_embedding.weight.shape[1])
        self.token_width = int(model.config.hidden_size)
        self.width = (1 + math.prod(self.grid_size)) * self.token_width
        self.mean, self.std = per_channel(mean, self.in_channels), per_channel(std, self.in_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Normalized tokens (B, N D), CLS first."""
        output = self.model(network_input(image, self.in_channels), interpolate_pos_encoding=self.interpolate)
        return output.last_hidden_state.flatten(1)

    def tokens_of(self, features: Tensor) -> Tensor:
        """Features (B, N D) as tokens (B, N, D)."""
        return features.unflatten(1, (-1, self.token_width))

    def _stages(self) -> Sequence[AttentionStage]:
        return [_BlockStage(layer) for layer in self.model.encoder.layers]

    def _embed(self, image: Tensor) -> Tensor:
        return self.model.embeddings(network_input(image, self.in_channels), interpolate_pos_encoding=self.interpolate)

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.model.post_layernorm(tokens).flatten(1)
