"""What a network tells that has learned nothing: an encoder's architecture with random weights, frozen."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

__all__ = ["pooled_features", "untrained"]


def untrained(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """A copy with random weights, frozen, in evaluation mode; the network itself stays as it is.

    One rule for every architecture, since not every layer can draw its own weights anew: convolutions come from a
    normal distribution of variance 2 / fan-out, as timm's and torchvision's do, all else with two axes or more (linear
    layers, tokens, positions) from one of variance 2 / fan-in; biases are 0, the scales of norms 1, running statistics
    those of a new layer.

    Args:
        network: any module with parameters, trained or not; only its shapes matter.
        seed: of the weights; the global random state is left alone.

    Raises:
        ValueError: a network without parameters, such as one that hands precomputed features through.

    References:
        He et al., Delving Deep into Rectifiers, ICCV 2015, Eq. 10 and 14.
    """
    fresh = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    if not any(True for _ in fresh.parameters()):
        raise ValueError(f"{type(network).__name__} has no weights that could be random: give a network with some.")
    for module in fresh.modules():
        for name, weight in module.named_parameters(recurse=False):
            weight.data = _drawn(module, name, weight, generator).to(weight)
        if isinstance(module, _NormBase):
            module.reset_running_stats()
    return fresh.requires_grad_(False).eval()


def pooled_features(network: nn.Module, images: Sequence[Tensor]) -> NDArray[np.float64]:
    """One vector per image, in evaluation mode; positions that are left are averaged.

    Args:
        network: a module from images (B, C, *spatial) to (B, D) or (B, D, *grid), wherever its weights lie.
        images: B tensors (C, *spatial) of one shape.

    Returns:
        (B, D).

    Raises:
        ValueError: images of several shapes, or features that are not finite.
    """
    shapes = sorted({tuple(image.shape) for image in images})
    if len(shapes) > 1:
        raise ValueError(f"images of shapes {shapes} do not go through a network together: fit them to one size first.")
    weight = next(network.parameters())
    plain = [image.as_tensor() if isinstance(image, MetaTensor) else image for image in images]
    batch = torch.stack(plain).to(weight.device, weight.dtype)
    with eval_mode(network):  # no gradients either
        features = network(batch)
    table = features.flatten(2).mean(dim=2) if features.ndim > 2 else features
    if not bool(table.isfinite().all()):
        raise ValueError(
            f"{type(network).__name__} gives features that are not finite on images between {float(batch.min()):.3g} "
            f"and {float(batch.max()):.3g}: check the images, or choose another seed."
        )
    return np.asarray(table.double().cpu().numpy())


def _drawn(module: nn.Module, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros(weight.shape) if name.endswith("bias") else torch.ones(weight.shape)
    positions = math.prod(weight.shape[2:])  # of a kernel
    # Depthwise convolutions would fall silent by torch's own fan-out, which forgets the groups.
    fan = weight.shape[0] // module.groups if isinstance(module, _ConvNd) else weight.shape[1]
    return torch.empty(weight.shape).normal_(std=math.sqrt(2 / (fan * positions)), generator=generator)
