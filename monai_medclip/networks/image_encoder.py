"""What every image encoder is: its attributes, and how an image becomes the tensor that its weights expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from monai.data import MetaTensor
from torch import Tensor

__all__ = ["ImageEncoder", "network_input"]


class ImageEncoder(Protocol):
    """A network from images to pooled features, with what the transforms need to know about its input."""

    spatial_dims: int  # 2 or 3; 0 for precomputed features
    in_channels: int  # channels that the weights take
    image_size: tuple[int, ...]  # (rows, columns) or (slices, rows, columns) in pixels
    width: int  # pooled feature width
    mean: tuple[float, ...]  # per channel, of images scaled to [0, 1]
    std: tuple[float, ...]

    def __call__(self, image: Tensor) -> Tensor:
        """Pooled features (B, width) of images (B, C, *spatial)."""
        ...


def network_input(image: Tensor, in_channels: int) -> Tensor:
    """A plain tensor with the channels that the weights take.

    A single gray channel is repeated, which equals feeding the repeated image. Normalization comes before: RGB weights
    have one mean and standard deviation per channel, so the transforms repeat the channel first and then normalize each
    copy with its own statistics. A gray image that was normalized with one mean is repeated as it is.

    Args:
        image: (B, C, *spatial) tensor or MetaTensor.
        in_channels: channels of the first layer.

    Returns:
        (B, in_channels, *spatial) plain tensor, a view where nothing had to be copied.

    Raises:
        ValueError: if the image has neither one channel nor ``in_channels``.
    """
    if isinstance(image, MetaTensor):  # otherwise embeddings and losses become MetaTensors
        image = image.as_tensor()
    if image.shape[1] == in_channels:
        return image
    if image.shape[1] != 1:
        raise ValueError(
            f"The image has {image.shape[1]} channels and the encoder takes {in_channels}: give it one gray channel or "
            f"{in_channels}, or build the encoder with in_channels={image.shape[1]}."
        )
    return image.expand(-1, in_channels, *(-1 for _ in image.shape[2:]))


def per_channel(values: Sequence[float] | float, in_channels: int) -> tuple[float, ...]:
    """One statistic per channel: as given when the number fits, else the mean of what is given, repeated."""
    given = [values] if isinstance(values, (int, float)) else list(values)
    if len(given) == in_channels:
        return tuple(float(value) for value in given)
    return (float(sum(given) / len(given)),) * in_channels


def per_axis(size: int | Sequence[int], spatial_dims: int) -> tuple[int, ...]:
    """A size per axis: an int is repeated, a sequence must have one entry per axis."""
    sizes = (size,) * spatial_dims if isinstance(size, int) else tuple(int(n) for n in size)
    if len(sizes) != spatial_dims:
        raise ValueError(f"size {size} has {len(sizes)} axes for {spatial_dims} spatial dimensions")
    return sizes
