"""A small convolutional encoder with a flatten head, for small crops where place and size in pixels carry meaning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel

__all__ = ["SmallCNN"]


class SmallCNN(nn.Module):
    """Convolution, normalization, ReLU and max pooling, halving the image each time; then all positions, flattened.

    Global pooling would forget how many pixels a nodule covers. In a crop of a fixed field of view that is its size, so
    the head sees every position of the last feature map. There are no tokens, hence no attention access.

    Args:
        image_size: pixels per axis, one number or one per axis; each a multiple of 2 per stage.
        in_channels: image channels.
        spatial_dims: 2 or 3.
        channels: channels of each stage.
        width: length of the features.
        dropout: probability, before the head.

    Attributes:
        mean, std: 0.5 each: images scaled to [0, 1] enter as [-1, 1].
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 40,
        *,
        in_channels: int = 3,
        spatial_dims: int = 2,
        channels: Sequence[int] = (24, 48, 96),
        width: int = 128,
        dropout: float = 0.5,
    ) -> None:
        """Build the stages and the head."""
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.image_size = per_axis(image_size, spatial_dims)
        self.width = width
        self.mean, self.std = per_channel(0.5, in_channels), per_channel(0.5, in_channels)
        stride = 2 ** len(channels)
        if any(size % stride for size in self.image_size):
            raise ValueError(f"image size {self.image_size} must be a multiple of {stride}, 2 per stage of {channels}")
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        pool = Pool[Pool.MAX, spatial_dims]
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise([in_channels, *channels]):
            stages += [conv(before, after, 3, padding=1, bias=False), norm(after), nn.ReLU(), pool(2)]
        self.stages = nn.Sequential(*stages)
        positions = math.prod(size // stride for size in self.image_size)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels[-1] * positions, width))

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, width) of images (B, C, *spatial)."""
        return self.pool_features(self.feature_map(image))

    def feature_map(self, image: Tensor) -> Tensor:
        """The last feature map (B, channels[-1], *grid)."""
        image = network_input(image, self.in_channels)
        if tuple(image.shape[2:]) != self.image_size:
            raise ValueError(
                f"the image has {tuple(image.shape[2:])} pixels and the flatten head takes {self.image_size}"
            )
        return self.stages(image)

    def pool_features(self, features: Tensor) -> Tensor:
        """Features (B, width) of a feature map; ``pool_features(feature_map(x))`` equals ``forward(x)``."""
        return self.head(features)
