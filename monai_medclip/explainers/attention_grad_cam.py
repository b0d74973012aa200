"""Grad-CAM on attention: each head's attention to the patches, weighted by its mean gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import (
    AttentionExplainer,
    attention_gradients,
    context_gradients,
    on_grid,
)

__all__ = ["AttentionGradCAM"]


class AttentionGradCAM(AttentionExplainer):
    """ReLU(sum_h w_h A_h[cls, i]) in the last attention, w_h = mean_i dS/dA_h[cls, i] over the whole row.

    Without a CLS token or a pooling query, rows of all queries are averaged and added.

    Args:
        target, verify: see `Explainer`.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, on the last attention as in the chest X-ray study (seed 1).
    """

    name = "attention Grad-CAM"

    def __init__(self, *, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=1, target=target, verify=verify)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        walk = self.walk(classifier, image, context)
        stage = walk.stages[-1]
        weights = attention_gradients(stage, context_gradients(walk)[-1]).mean(dim=(-2, -1))  # (B, F, H)
        rows = stage.attention.sum(dim=2)[..., stage.prefix_tokens :]  # (B, H, P)
        maps = F.relu(torch.einsum("bfh,bhp->bfp", weights, rows))
        return on_grid(classifier.image_encoder, maps), walk.scores
