"""Image encoders from MONAI, in 2D and 3D: ViT with attention access, DenseNet121 and ResNet50 with feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from monai.networks.nets import DenseNet121, ResNet, ViT, resnet50
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.networks.attention import QKV, AttentionStage, StagedAttention, split_heads
from monai_medclip.networks.checkpoints import load_weights
from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel

__all__ = ["MonaiImageEncoder"]

NETWORKS = ("vit", "densenet121", "resnet50")


class _BlockStage:
    """MONAI's TransformerBlock without cross-attention."""

    def __init__(self, block: TransformerBlock, prefix_tokens: int) -> None:
        self.block = block
        self.prefix_tokens = prefix_tokens

    @property
    def entrance(self) -> nn.Module:
        return self.block

    def qkv(self, tokens: Tensor) -> QKV:
        attention = self.block.attn
        return QKV(*(split_heads(x, attention.num_heads) for x in attention.qkv(self.block.norm1(tokens)).chunk(3, -1)))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        attention = self.block.attn
        tokens = tokens + attention.drop_output(attention.out_proj(context))
        return tokens + self.block.mlp(self.block.norm2(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens)


class MonaiImageEncoder(nn.Module, StagedAttention):
    """A MONAI network without its head: image (B, C, *spatial) -> pooled features (B, width).

    Args:
        name: ``"vit"``, ``"densenet121"`` or ``"resnet50"``.
        image_size: pixels or voxels per axis: one number, or one per axis. The convolutional networks take any.
        spatial_dims: 2 or 3.
        in_channels: image channels.
        pooling: of the ViT: ``"cls"`` for a class token, ``"mean"`` for the mean of the patch tokens.
        checkpoint: weights of this encoder's network; heads that it does not have are ignored.
        options: more arguments of MONAI's class, such as ``{"patch_size": 16, "num_layers": 4}``.

    Raises:
        ValueError: for an unknown name or pooling, or a checkpoint that lacks weights.
    """

    def __init__(
        self,
        name: str = "vit",
        *,
        image_size: int | Sequence[int] = 224,
        spatial_dims: int = 2,
        in_channels: int = 1,
        pooling: str = "cls",
        checkpoint: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Build MONAI's network, its classification layer replaced by the identity."""
        super().__init__()
        if name not in NETWORKS or pooling not in ("cls", "mean"):
            raise ValueError(f"no MONAI encoder {name!r} with pooling {pooling!r}: choose from {', '.join(NETWORKS)}")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.image_size = per_axis(image_size, spatial_dims)
        self.mean, self.std = per_channel(0.5, in_channels), per_channel(0.5, in_channels)
        arguments = {"spatial_dims": spatial_dims, **(options or {})}
        self.trunk: Any
        if name == "vit":
            patch_size = per_axis(arguments.pop("patch_size", 16), spatial_dims)
            self.trunk = ViT(in_channels, self.image_size, patch_size, classification=pooling == "cls", **arguments)
            if pooling == "cls":
                self.trunk.classification_head = nn.Identity()
            self.grid_size = tuple(size // patch for size, patch in zip(self.image_size, patch_size, strict=True))
            self.width = int(self.trunk.norm.normalized_shape[0])
        elif name == "densenet121":
            self.trunk = DenseNet121(in_channels=in_channels, out_channels=1, **arguments)
            self.width = int(self.trunk.class_layers.out.in_features)
            self.trunk.class_layers.out = nn.Identity()
        else:
            self.trunk = resnet50(n_input_channels=in_channels, feed_forward=False, **arguments)
            self.width = int(self.trunk.in_planes)
        if checkpoint is not None:
            load_weights(self.trunk, checkpoint, ignore_extra=True)

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width)."""
        image = network_input(image, self.in_channels)
        if not isinstance(self.trunk, ViT):
            return self.trunk(image)
        features = self.trunk(image)[0]
        return features if hasattr(self.trunk, "cls_token") else features.mean(dim=1)

    def feature_map(self, image: Tensor) -> Tensor:
        """The last feature map (B, C, *grid) of a convolutional network, before pooling."""
        trunk, image = self.trunk, network_input(image, self.in_channels)
        if isinstance(trunk, DenseNet121):
            return F.relu(trunk.features(image))  # MONAI pools behind a ReLU, which does not mind a second one
        if not isinstance(trunk, ResNet):
            raise TypeError("a ViT has no feature map: use its attention access")
        image = trunk.act(trunk.bn1(trunk.conv1(image)))
        image = image if trunk.no_max_pool else trunk.maxpool(image)
        return trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(image))))

    def pool_features(self, features: Tensor) -> Tensor:
        """Pooled features (B, width) of a feature map; ``pool_features(feature_map(x))`` equals ``forward(x)``."""
        if isinstance(self.trunk, DenseNet121):
            return self.trunk.class_layers(features)
        return self.trunk.avgpool(features).flatten(1)

    def _stages(self) -> Sequence[AttentionStage]:
        prefix_tokens = int(hasattr(self.trunk, "cls_token"))
        blocks = self.trunk.blocks if isinstance(self.trunk, ViT) else ()
        return [_BlockStage(block, prefix_tokens) for block in blocks]

    def _embed(self, image: Tensor) -> Tensor:
        tokens = self.trunk.patch_embedding(network_input(image, self.in_channels))
        if not hasattr(self.trunk, "cls_token"):
            return tokens
        return torch.cat((self.trunk.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)

    def _pools_first_token(self) -> bool:
        return hasattr(self.trunk, "cls_token")

    def _pool(self, tokens: Tensor) -> Tensor:
        tokens = self.trunk.norm(tokens)
        return tokens[:, 0] if hasattr(self.trunk, "cls_token") else tokens.mean(dim=1)
