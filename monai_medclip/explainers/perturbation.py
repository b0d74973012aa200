"""For methods that look at the input alone: what a removed part becomes, and how altered copies are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.base import Explainer
from monai_medclip.networks.image_encoder import per_axis

__all__ = ["PerturbationExplainer"]

BASELINES = ("blur", "mean", "black")
BLUR_SIGMA = 1 / 16  # of each axis: 8 pixels at 128


class PerturbationExplainer(Explainer):
    """Base of the methods that ask what the score becomes when parts of the image go; any classifier, 2D or 3D.

    They call the classifier itself, so the score they explain is its own by construction.

    Args:
        baseline: what a removed pixel becomes, in the normalized input. ``"blur"``: the image under a Gaussian
            with sigma 1/16 of each axis; closest to images that the network knows, but what is larger than that hardly
            goes away. ``"mean"``: the image's own mean per channel. ``"black"``: intensity 0 before normalization. Or a
            number in normalized units, where 0 is the encoder's mean intensity.
        batch_size: altered copies per forward pass, of all images together; at least one copy of each.
        target, verify: see `Explainer`.
    """

    def __init__(
        self,
        *,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(target=target, verify=verify)
        if isinstance(baseline, str) and baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r}: use one of {', '.join(BASELINES)}, or a number.")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least one copy must go through the network at a time.")
        self.baseline = baseline
        self.batch_size = batch_size

    def _copies(self, image: Tensor) -> int:
        """How many altered copies of every image fit into one forward pass."""
        return max(1, self.batch_size // len(image))

    def _judge(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> Tensor:
        """Scores (P B, F) of P copies of every image, copy by copy; the context is repeated with them."""
        copies = {
            name: tensor.repeat(len(image) // len(tensor), *(1,) * (tensor.ndim - 1))
            for name, tensor in context.items()
        }
        return self._scores(classifier, classifier(image, **copies))

    def _judge_visible(
        self, classifier: Any, image: Tensor, removed: Tensor, visible: Tensor, context: dict[str, Tensor]
    ) -> Tensor:
        """Scores (P, B, F) where P masks (P, 1, *grid), 1 to show and 0 to remove, lie over every image.

        A mask coarser than the image is enlarged without smoothing, so its cells have sharp edges.
        """
        if visible.shape[2:] != image.shape[2:]:
            visible = F.interpolate(visible, size=image.shape[2:], mode="nearest-exact")
        mixed = torch.lerp(removed, image, visible.unsqueeze(1))  # (P, B, C, *spatial)
        return self._judge(classifier, mixed.flatten(0, 1), context).unflatten(0, (len(visible), len(image)))

    def _removed(self, classifier: Any, image: Tensor) -> Tensor:
        """The images (B, C, *spatial) with everything removed."""
        if self.baseline == "mean":
            return image.flatten(2).mean(-1).reshape(*image.shape[:2], *(1,) * (image.ndim - 2)).expand_as(image)
        if self.baseline == "blur":
            return blurred(image)
        if self.baseline == "black":
            return black(image, classifier.image_encoder)
        return torch.full_like(image, float(self.baseline))


def blurred(image: Tensor) -> Tensor:
    """Images (B, C, *spatial) under a Gaussian; beyond the border nothing is assumed."""
    smooth = GaussianFilter(image.ndim - 2, [size * BLUR_SIGMA for size in image.shape[2:]]).to(image.device)
    return smooth(image) / smooth(torch.ones_like(image[:1, :1]))  # MONAI's filter takes zeros for what lies outside


def black(image: Tensor, encoder: Any) -> Tensor:
    """Intensity 0, normalized as the encoder's images are: (0 - mean) / std per channel."""
    value = -torch.tensor(encoder.mean) / torch.tensor(encoder.std)
    if len(value) not in (1, image.shape[1]):
        value = value.mean(0, keepdim=True)  # a gray image that was normalized with one mean
    return value.to(image).reshape(1, -1, *(1,) * (image.ndim - 2)).expand_as(image)


def cell_grid(image: Tensor, cell: int | Sequence[int]) -> tuple[int, ...]:
    """Cells per axis, each about ``cell`` pixels wide: the whole axis is shared out evenly."""
    sizes = image.shape[2:]
    return tuple(max(1, round(size / width)) for size, width in zip(sizes, per_axis(cell, len(sizes)), strict=True))
