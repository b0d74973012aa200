"""MedGrad E-CLIP: Grad-ECLIP's value features, weighted by the local entropy of the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import AttentionExplainer, context_gradients, on_grid, value_weights
from monai_medclip.explainers.entropy import local_entropy
from monai_medclip.explainers.grad_eclip import key_similarity, min_max

__all__ = ["MedGradECLIP", "entropy_weight", "gray_levels"]

LUMINANCE = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709, as in skimage's rgb2gray
WEIGHTS = ("replace", "multiply")
NO_CONTRAST_BITS = 1e-6


class MedGradECLIP(AttentionExplainer):
    """H_i = ReLU(sum_c w_c v_ic w_e,i): Grad-ECLIP with its lambda replaced by an entropy weight w_e in [0, 1].

    w_e is the local entropy of the 8-bit gray image, averaged per patch and scaled to [0, 1] per image. It looks at the
    image alone and is the same for every finding: report these maps with a shuffled-prompt test. The paper leaves
    radius, scale and combination open; here they are arguments.

    Args:
        blocks: how many of the last attention stages, each with its own ReLU, then added; None for all.
        radius: of the disk (2D) or ball (3D), in pixels of the model input.
        window: (low, high) of the model input, in its own units, that become gray 0 and 255; values beyond are clipped.
            None takes each image's own minimum and maximum.
        weight: ``"replace"`` (the paper), or ``"multiply"``: lambda_i w_e,i.
        target, verify: see `Explainer`.

    Raises:
        ValueError: for arguments out of range; when called, for an image whose local entropy is the same everywhere.

    References:
        MedGrad E-CLIP (seed 2), Eq. 3, v read as the value features; lambda as in Zhao et al., ICML 2024, Eq. 8.
    """

    name = "MedGrad E-CLIP"
    needs_contrast = True

    def __init__(
        self,
        *,
        blocks: int | None = 1,
        radius: int = 5,
        window: Sequence[float] | None = None,
        weight: str = "replace",
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, verify=verify)
        if weight not in WEIGHTS:
            raise ValueError(f"weight={weight!r}: use one of {', '.join(WEIGHTS)}.")
        if radius < 1:
            raise ValueError(f"radius={radius} pixels: a neighborhood needs at least 1.")
        if window is not None and (len(window) != 2 or not window[0] < window[1]):
            raise ValueError(f"window={tuple(window)}: give (low, high) with low below high, or None.")
        self.radius = radius
        self.window = None if window is None else (float(window[0]), float(window[1]))
        self.weight = weight

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = classifier.image_encoder
        w_e = entropy_weight(gray_levels(image, self.window), encoder.grid_size, self.radius)  # (B, 1, P)
        walk = self.walk(classifier, image, context)
        maps = torch.stack(
            [
                F.relu(value_weights(stage, gradient) * (w_e * key_similarity(stage) if self._multiplies else w_e))
                for stage, gradient in zip(walk.stages, context_gradients(walk), strict=True)
            ]
        ).sum(0)  # (B, F, P)
        return on_grid(encoder, maps), walk.scores

    @property
    def _multiplies(self) -> bool:
        return self.weight == "multiply"


def gray_levels(image: Tensor, window: tuple[float, float] | None = None) -> Tensor:
    """The 8-bit gray image of a model input: (B, C, *spatial) -> (B, *spatial) uint8.

    Three channels become luminance (0.2125, 0.7154, 0.0721; equal channels stay what they are), other numbers their
    mean. Then the window's (low, high), or each image's own range, becomes 0 to 255, rounded. A constant image without
    a window becomes 0.
    """
    channels = image.shape[1]
    shares = LUMINANCE if channels == 3 else (1 / channels,) * channels
    gray = torch.einsum("bc...,c->b...", image.float(), torch.tensor(shares, device=image.device))
    axes = tuple(range(1, gray.ndim))
    if window is None:
        low, high = gray.amin(axes, keepdim=True), gray.amax(axes, keepdim=True)
    else:
        low, high = gray.new_tensor(window)
    scaled = (gray - low) / (high - low).clamp_min(torch.finfo(gray.dtype).tiny)
    return (scaled.clamp(0, 1) * 255).round().to(torch.uint8)


def entropy_weight(gray: Tensor, grid_size: Sequence[int], radius: int = 5) -> Tensor:
    """w_e: mean local entropy per patch, scaled to [0, 1] per image.

    Args:
        gray: (B, *spatial) uint8.
        grid_size: patches along each axis.
        radius: of the neighborhood, in pixels.

    Returns:
        (B, 1, P) float32, in the order of the patches.

    Raises:
        ValueError: for an image whose patches all have the same entropy, as those of a constant one.
    """
    pool: Any = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[gray.ndim - 1]
    patches = pool(local_entropy(gray, radius).unsqueeze(1), tuple(grid_size)).flatten(2)  # (B, 1, P) bits
    contrast = patches.amax(dim=(1, 2)) - patches.amin(dim=(1, 2))
    if bool((flat := contrast < NO_CONTRAST_BITS).any()):
        raise ValueError(
            f"image {int(flat.nonzero()[0])} of the batch has the same local entropy in every patch, as a constant "
            "image has, so that it cannot weight them: leave it out, widen the window, or use GradECLIP."
        )
    return min_max(patches).float()
