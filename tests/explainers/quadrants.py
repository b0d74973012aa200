"""Classifiers whose answer is known: each finding's logit is the mean intensity of one corner of the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_medclip.networks import MonaiImageEncoder, ZeroShotClassifier

from ..networks.toys import BagOfWords, tiny_clip, tokenize

SIZES = {2: (24, 40), 3: (16, 16, 24)}  # not square


class Flat(nn.Module):
    """An image encoder that hands the pixels on."""

    mean, std, in_channels = (0.5,), (0.25,), 1

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size, self.spatial_dims, self.width = size, len(size), int(torch.tensor(size).prod())

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(1).flatten(1)


class Quadrants(nn.Module):
    """Two findings: the first corner and the opposite one; their mean intensities times gain, plus a constant.

    Args:
        spatial_dims: 2 or 3.
        offset: the constant.
        with_gain: the context ``gain`` (B,) multiplies the logits.
        passes: how many forward passes succeed before one fails; None for all.
    """

    findings = ("first", "last")

    def __init__(
        self, spatial_dims: int, *, offset: float = 0.0, with_gain: bool = False, passes: int | None = None
    ) -> None:
        super().__init__()
        size = SIZES[spatial_dims]
        self.image_encoder = Flat(size)
        self.corners = torch.zeros(2, *size)
        self.corners[(0, *(slice(0, n // 2) for n in size))] = 1.0
        self.corners[(1, *(slice(n // 2, n) for n in size))] = 1.0
        self.weights = nn.Parameter((self.corners / self.corners[0].sum()).flatten(1))
        self.dropout = nn.Dropout(0.9)  # scores are noise outside evaluation mode
        self.offset = offset
        self.context_keys = ("gain",) if with_gain else ()
        self.passes = passes
        self.images_seen = 0

    def forward(self, image: Tensor, **context: Tensor) -> Tensor:
        if self.passes is not None:
            self.passes -= 1
            if self.passes < 0:
                raise RuntimeError("a pass too many")
        self.images_seen += len(image)
        return self.score_features(self.image_encoder(image), **context)

    def score_features(self, features: Tensor, gain: Tensor | None = None) -> Tensor:
        logits = self.dropout(features @ self.weights.T)
        return (logits if gain is None else logits * gain[:, None]) + self.offset


def bright(spatial_dims: int, batch: int = 2) -> Tensor:
    """Images (B, 1, *spatial) of values between 1 and 2, so that showing any pixel adds to the scores."""
    return 1 + torch.rand(batch, 1, *SIZES[spatial_dims], generator=torch.Generator().manual_seed(3))


def in_and_out(maps: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, F) of maps (B, F, *spatial) inside and outside of each finding's corner."""
    inside = (maps * corners).flatten(2).sum(-1) / corners.flatten(1).sum(-1)
    outside = (maps * (1 - corners)).flatten(2).sum(-1) / (1 - corners).flatten(1).sum(-1)
    return inside, outside


def peaks_inside(maps: Tensor, corners: Tensor) -> bool:
    """Whether the highest point of every map (B, F, *spatial) lies in its finding's corner."""
    peaks = maps.flatten(2).argmax(-1)  # (B, F)
    return bool((corners.flatten(1).gather(1, peaks.T) == 1).all())


def real_classifier(spatial_dims: int) -> tuple[ZeroShotClassifier, Tensor]:
    """A tiny CLIP asked for two findings, with two images: a SmallViT in 2D, MONAI's ViT in 3D."""
    size: tuple[int, ...] = (32, 32)
    clip = tiny_clip()
    if spatial_dims == 3:
        size = (16, 16, 32)
        options: dict[str, Any] = {
            "patch_size": 8,
            "hidden_size": 24,
            "mlp_dim": 32,
            "num_layers": 2,
            "num_heads": 2,
        }
        encoder = MonaiImageEncoder("vit", image_size=size, spatial_dims=3, options=options)
        clip = type(clip)(encoder, BagOfWords(), embed_dim=16)
    return clip.classifier(["nodule", "mass"], tokenize, rule="name"), torch.rand(2, 1, *size)
