"""The small default: a convolutional stem and a few transformer blocks, for training on a CPU in minutes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from monai.networks.layers.factories import Conv
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel
from monai_medclip.networks.pooled_only import cls_only_forward, reads_cls_only
from monai_medclip.networks.timm_encoder import TimmViTAccess

__all__ = ["ConvStem", "SmallViT"]


class ConvStem(nn.Module):
    """Patch embedding by convolutions, in the form that timm's VisionTransformer takes.

    Convolutions of stride 2 down to twice the tokens' resolution, a residual block there, then tokens of 2 x 2
    positions that do not overlap, and per-token blocks. All kernels are centered on what they stand for and narrow: at
    stride 8 a token sees 22 pixels across, so that what it holds comes from its own patch and its close neighbourhood.

    Args:
        img_size: one entry per spatial axis, multiples of the stride.
        patch_size: the total stride, a power of two, at least 4.
        in_chans: image channels.
        embed_dim: channels that come out.
        stem_width: channels at twice the tokens' resolution, a multiple of 8, half of ``embed_dim`` if None; fewer
            before.
        bias, dynamic_img_pad: given by timm, without meaning here.

    Raises:
        ValueError: a stride that is no such power of two, or an image that is no multiple of it.

    References:
        Xiao et al., Early Convolutions Help Transformers See Better, NeurIPS 2021.
    """

    def __init__(
        self,
        img_size: Sequence[int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        stem_width: int | None = None,
        **_: Any,
    ) -> None:
        """Build the convolutions and the blocks."""
        super().__init__()
        halvings = int(math.log2(patch_size))
        if halvings < 2 or 2**halvings != patch_size or any(size % patch_size for size in img_size):
            raise ValueError(
                f"image size {tuple(img_size)} must be a multiple of a stride of 4, 8, 16, ..., not {patch_size}"
            )
        self.img_size = tuple(img_size)
        self.grid_size = tuple(size // patch_size for size in img_size)
        self.num_patches = math.prod(self.grid_size)
        dims = len(self.img_size)
        conv = Conv[Conv.CONV, dims]
        # Narrow while the image is large: the first layers would cost more than the transformer block.
        last = stem_width or embed_dim // 2
        channels = [in_chans, *(max(8, 2 * last >> i) for i in range(halvings, 2, -1)), last]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            # Four wide: an odd kernel of stride 2 would move the image by half a pixel, three of them by 3.5 pixels.
            layers += [conv(before, after, 4, stride=2, padding=1, bias=False), nn.GroupNorm(8, after), nn.GELU()]
        layers[-2:] = [_ResidualBlock(dims, channels[-1], 3), nn.GroupNorm(8, channels[-1]), nn.GELU()]
        layers.append(conv(channels[-1], embed_dim, 2, stride=2, bias=False))
        self.stem = nn.Sequential(*layers, *(_ResidualBlock(dims, embed_dim, 1) for _ in range(2)))

    def forward(self, image: Tensor) -> Tensor:
        """Image (B, C, *spatial) -> tokens (B, P, embed_dim)."""
        return self.stem(image).flatten(2).transpose(1, 2)


class _ResidualBlock(nn.Module):
    """x + conv1(GELU(norm(conv_k(norm(x))))): pre-normalized, of constant width."""

    def __init__(self, spatial_dims: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.block = nn.Sequential(
            # Group, not batch, normalization: an item's tokens must not depend on its batch.
            nn.GroupNorm(8, channels),
            conv(channels, channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.GroupNorm(8, channels),
            nn.GELU(),
            conv(channels, channels, 1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, *spatial) -> the same shape."""
        return features + self.block(features)


class _BoundedCosine(nn.Module):
    """Queries or keys of one length, so that an attention's logits are ``limit`` times their cosine."""

    def __init__(self, limit: float, head_dim: int) -> None:
        super().__init__()
        self.length = math.sqrt(limit * math.sqrt(head_dim))  # attention divides by sqrt(head_dim)

    def forward(self, heads: Tensor) -> Tensor:
        """(B, H, N, head_dim) -> the same, every vector of the one length."""
        return self.length * nn.functional.normalize(heads, dim=-1)


class Standardized(nn.BatchNorm1d):
    """Batch normalization without weights that also takes a single item, and that both exporters understand."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D): by the batch's statistics in training, by the running ones otherwise."""
        if self.training and len(features) > 1:
            return super().forward(features)
        centred: Tensor = features - self.running_mean
        return centred * (self.running_var + self.eps).rsqrt()


class SmallViT(nn.Module, TimmViTAccess):
    """Convolutional stem, transformer blocks, CLS token; 0.3 M parameters at its defaults, in 2D or 3D.

    Made to be explained. Its tokens see little beyond their own patch, and in the last block, whose CLS token is
    all that is read, attention has cosine logits of at most `max_logit`: e^(2 max_logit) is the most that one token can
    outweigh another, so a finding has to stand in its token's values. Trained without that bound, attention selects
    by itself, values of other tokens hold as much, and maps that read values (Grad-ECLIP) point beside the finding.

    Batch normalization without weights ends it: images of one kind look alike to a network from scratch, and this sets
    their features apart from the first step. In training an item's features depend on its batch, in
    evaluation they do not.

    Args:
        image_size: pixels per axis: one number, or one per axis; a multiple of ``stride``.
        in_channels: image channels.
        spatial_dims: 2 or 3.
        width: token width D, a multiple of 64 (8 groups of channels in each layer of the stem).
        depth: transformer blocks.
        num_heads: attention heads per block.
        mlp_ratio: hidden width of each block's MLP over ``width``.
        stride: pixels per token along each axis, a power of two, at least 4.
        stem_width: channels of the stem at twice the tokens' resolution, a multiple of 8, half of ``width`` if None.
            Most of the computing is there, in 3D above all.
        patch_drop: fraction of patch tokens dropped at random in training, in [0, 1); none in evaluation.
        max_logit: bound of the last block's attention logits, positive; None for ordinary attention.

    References:
        Liu et al., Swin Transformer V2, CVPR 2022, Eq. 2 (cosine attention; there with a learned scale).
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 128,
        *,
        in_channels: int = 1,
        spatial_dims: int = 2,
        width: int = 128,
        depth: int = 1,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
        stride: int = 8,
        stem_width: int | None = None,
        patch_drop: float = 0.25,
        max_logit: float | None = 1.5,
    ) -> None:
        """Build timm's VisionTransformer around the stem."""
        super().__init__()
        if max_logit is not None and not max_logit > 0:
            raise ValueError(f"max_logit={max_logit} must be positive; None leaves attention logits unbounded.")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.image_size = per_axis(image_size, spatial_dims)
        self.width = width
        self.mean = per_channel(0.5, in_channels)
        self.std = per_channel(0.25, in_channels)
        self.trunk = VisionTransformer(
            img_size=self.image_size,
            patch_size=stride,
            in_chans=in_channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            patch_drop_rate=patch_drop,
            embed_layer=partial(ConvStem, stem_width=stem_width),
        )
        for module in self.trunk.blocks.modules():
            if isinstance(module, nn.Linear):  # timm draws from 0.02, made for widths near 768: far too quiet at 128
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if max_logit is not None:
            last = self.trunk.blocks[-1].attn
            last.q_norm = last.k_norm = _BoundedCosine(max_logit, last.head_dim)
        self.trunk.fc_norm = Standardized(width)
        self.grid_size = self.trunk.patch_embed.grid_size

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width) of images (B, C, *spatial)."""
        image = network_input(image, self.in_channels)
        return cls_only_forward(self.trunk, image) if reads_cls_only(self.trunk) else self.trunk(image)
