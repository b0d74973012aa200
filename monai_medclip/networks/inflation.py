"""Inflation: weights of a 2D network for the 3D network of the same architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from monai_medclip.networks.checkpoints import check_missing, load_state_dict

__all__ = ["inflate_state_dict", "inflated"]

POSITIONS = re.compile(r"(?:^|\.)(?:pos_embed|position_embeddings)$")
HEAD = re.compile(r"(?:fc|classifier|head|classification_head|class_layers\.out)\.")  # of the task left behind

Network = TypeVar("Network", bound=nn.Module)


def inflate_state_dict(
    state_2d: Mapping[str, Tensor], network_3d: nn.Module, *, depth_axis: int = 2
) -> dict[str, Tensor]:
    """2D weights as a state of the 3D network: kernels repeated along the depth and divided by their depth.

    ResNets and DenseNets of torchvision and timm are known by MONAI's names; other networks must name their weights
    alike in 2D and 3D, as MONAI's ViT and `SmallViT` do. MONAI's ResNet has the layers of the others when built with
    ``options={"conv1_t_stride": 2, "bias_downsample": False}``. Position embeddings are resampled in the plane and
    repeated along the depth. Everything else is taken as it is.

    In evaluation mode a volume of identical slices then gives the 2D network's features of that slice

    - exactly: ResNet, DenseNet and whatever else is made of convolutions, pointwise layers, batch normalization in
      evaluation mode and max or mean pooling, if the padding along the depth repeats slices
      (``padding_mode="replicate"`` or ``"circular"``); with zeros, as MONAI builds them, only at positions
      whose receptive field holds neither end of the volume;
    - exactly: a ViT that pools the mean of its patches and has no prefix tokens: softmax over equal copies of
      each patch gives each its share;
    - not: with CLS or registers, one of each beside as many copies of a patch as there are slices of patches; with
      group or instance normalization behind zero padding, whose statistics the ends enter (`SmallViT` has both).
      These start near the 2D network, not at it.

    Args:
        state_2d: the 2D network's state; a classification head that the 3D network lacks is left out.
        network_3d: gives names and shapes, and for position embeddings its ``grid_size``; it is not changed.
        depth_axis: of a 3D kernel (out, in, *kernel): 2 for volumes (slices, rows, columns), 4 for (..., slices).

    Returns:
        A complete state of the 3D network; repeated kernels are copies, other weights are shared with the 2D state.

    Raises:
        ValueError: if names are missing or unknown, or shapes do not correspond; names them.

    References:
        Carreira and Zisserman, Quo Vadis, Action Recognition? CVPR 2017, "Bootstrapping 3D filters from 2D Filters":
        repeat N times, divide by N, so that a video of one repeated image has the image's responses.
    """
    if depth_axis not in (2, 3, 4):
        raise ValueError(f"depth_axis={depth_axis} is no spatial axis of a 3D kernel: 2, 3 or 4.")
    own = network_3d.state_dict()
    names = {_plain(name): name for name in own}
    given = {_plain(name): weight for name, weight in state_2d.items()}
    check_missing(
        (own_name for name, own_name in names.items() if name not in given and not _is_counter(name)),
        "the 2D state",
        network_3d,
    )
    unknown = [name for name in given if name not in names and not HEAD.match(name)]
    if unknown:
        raise ValueError(
            f"{type(network_3d).__name__} does not know {len(unknown)} weights of the 2D network: "
            f"{', '.join(unknown)}. Build the same architecture in 3D."
        )
    grid = tuple(getattr(network_3d, "grid_size", ()))
    return {
        own_name: _inflated(own_name, given[name], own[own_name], depth_axis, grid) if name in given else own[own_name]
        for name, own_name in names.items()
    }


def inflated(network_3d: Network, source: nn.Module | str | Path, *, depth_axis: int = 2) -> Network:
    """Load the weights of a 2D network into a 3D network of the same architecture, and return that.

    Args:
        network_3d: takes the weights in place; and, from an image encoder, the mean and standard deviation of its
            input, if it is an image encoder too.
        source: the 2D network, or its checkpoint file.
        depth_axis: see `inflate_state_dict`.

    Raises:
        ValueError: as `inflate_state_dict`.

    Example:
        ``inflated(MonaiImageEncoder("densenet121", spatial_dims=3, in_channels=3), TimmImageEncoder("densenet121"))``
    """
    state = source.state_dict() if isinstance(source, nn.Module) else load_state_dict(source)
    network_3d.load_state_dict(inflate_state_dict(state, network_3d, depth_axis=depth_axis))
    for statistic in ("mean", "std"):
        if hasattr(source, statistic) and hasattr(network_3d, statistic):
            setattr(network_3d, statistic, getattr(source, statistic))
    return network_3d


def _plain(name: str) -> str:
    """A weight's name without our encoders' prefix and without the level that MONAI adds in a dense layer."""
    return re.sub(r"(denselayer\d+)\.layers\.", r"\1.", name.removeprefix("trunk."))


def _is_counter(name: str) -> bool:
    """Batches seen by a batch normalization: old checkpoints have none, and evaluation does not read it."""
    return name.endswith("num_batches_tracked")


def _inflated(name: str, given: Tensor, own: Tensor, depth_axis: int, grid: tuple[int, ...]) -> Tensor:
    """One weight of the 2D network in the shape of the 3D network's."""
    if POSITIONS.search(name) and own.ndim == 3:
        return _positions(name, given, own, depth_axis, grid)
    if given.shape == own.shape:
        return given
    if given.ndim == 4 and own.ndim == 5:
        depth = own.shape[depth_axis]
        if given.shape == own.select(depth_axis, 0).shape:
            return given.unsqueeze(depth_axis).repeat_interleave(depth, depth_axis) / depth
    raise ValueError(
        f"{name} is {tuple(given.shape)} in 2D and {tuple(own.shape)} in 3D, which do not correspond: build the 3D "
        "network with the kernel sizes, widths and in_channels of the 2D one, and convolutions as patch embedding."
    )


def _positions(name: str, given: Tensor, own: Tensor, depth_axis: int, grid: tuple[int, ...]) -> Tensor:
    """Position embeddings (1, N2, D) -> (1, N3, D): resampled in the plane, repeated along the depth."""
    prefix = own.shape[1] - math.prod(grid)
    if len(grid) != 3 or prefix < 0 or given.shape[2] != own.shape[2]:
        raise ValueError(
            f"{name} {tuple(given.shape)} cannot be laid out on the grid {grid} of a 3D network that wants "
            f"{tuple(own.shape)}: give an image encoder of the same width that has a grid_size (MonaiImageEncoder)."
        )
    plane = [size for axis, size in enumerate(grid) if axis != depth_axis - 2]
    patches = given.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    old = plane if patches == math.prod(plane) else [side, side]
    if math.prod(old) != patches or not patches:
        raise ValueError(
            f"{name} has {patches} patches in 2D: neither the {plane} of the 3D network's plane nor a square. Build "
            "the 2D network for an image of that size, or of equal rows and columns."
        )
    flat = resample_abs_pos_embed(given, plane, old, num_prefix_tokens=prefix)
    laid = flat[:, prefix:].unflatten(1, plane).unsqueeze(depth_axis - 1)  # (1, ..., 1 for the depth, ..., D)
    whole = laid.expand(1, *grid, -1).flatten(1, 3)
    return torch.cat([flat[:, :prefix], whole], dim=1)
