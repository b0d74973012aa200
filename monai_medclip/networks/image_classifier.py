"""The image-only baseline: an encoder and a linear layer, trained end to end on labels and without a word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from torch import Tensor, nn

from monai_medclip.networks.checkpoints import load_weights
from monai_medclip.networks.image_encoder import ImageEncoder
from monai_medclip.networks.monai_encoder import MonaiImageEncoder
from monai_medclip.networks.small_vit import SmallViT
from monai_medclip.networks.timm_encoder import TimmImageEncoder

__all__ = ["ARCHITECTURES", "ImageClassifier", "named_encoder"]

# What the papers fine-tuned, as timm and MONAI name it.
ARCHITECTURES = {
    "small": "",
    "vit": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "resnet50": "resnet50.a1_in1k",
    "densenet121": "densenet121.ra_in1k",
}


class ImageClassifier(nn.Module):
    """One logit per finding from the encoder's pooled features.

    Args:
        image_encoder: module with ``width``; (B, C, *spatial) -> (B, width).
        findings: names of the F logits.

    Raises:
        ValueError: without findings.
    """

    context_keys: tuple[str, ...] = ()

    def __init__(self, image_encoder: ImageEncoder, findings: Sequence[str]) -> None:
        """A linear layer with random weights on the encoder."""
        super().__init__()
        if not findings:
            raise ValueError("an image classifier needs findings with labels: name them in 'findings'.")
        self.image_encoder: Any = image_encoder
        self.findings = tuple(findings)
        self.head = nn.Linear(int(image_encoder.width), len(self.findings))

    def load(self, path: str | Path) -> ImageClassifier:
        """Load a trained checkpoint of this very classifier and return it, for one line in a config."""
        load_weights(self, path)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, F) of images (B, C, *spatial)."""
        return self.score_features(self.image_encoder(image.as_tensor() if isinstance(image, MetaTensor) else image))

    def score_features(self, features: Tensor) -> Tensor:
        """Logits (B, F) of the encoder's pooled features (B, width)."""
        return self.head(features.to(self.head.weight.dtype))


def named_encoder(
    architecture: str, *, image_size: int | Sequence[int] = 224, pretrained: bool = False, spatial_dims: int = 2
) -> Any:
    """An image encoder by the name that the papers use.

    Args:
        architecture: ``"small"`` (the embedded default's), ``"vit"`` (ViT-B/16), ``"resnet50"`` or ``"densenet121"``;
            any other name is timm's.
        image_size: rows and columns, or one number for both.
        pretrained: ImageNet weights (a download, once).
        spatial_dims: 2; 3 for volumes, which ``"small"`` and MONAI's ``densenet121``, ``resnet50`` and ``vit`` read,
            without ImageNet weights.

    Raises:
        ValueError: weights that do not exist.
    """
    if spatial_dims == 3:
        if pretrained:
            raise ValueError(f"there are no ImageNet weights for volumes: {architecture!r} with pretrained=False.")
        if architecture == "small":
            return SmallViT(image_size, spatial_dims=3)
        return MonaiImageEncoder(architecture, image_size=image_size, spatial_dims=3)
    if architecture == "small":
        if pretrained:
            raise ValueError("the small encoder has no pretrained weights: set pretrained to false, or name another.")
        return SmallViT(image_size)
    name = ARCHITECTURES.get(architecture, architecture)
    return TimmImageEncoder(name, image_size=image_size, pretrained=pretrained)
