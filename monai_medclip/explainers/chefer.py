"""Chefer's generic attention relevance: attention times its gradient, carried from the score back to the patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import AttentionExplainer, Walk, carried_back, on_grid
from monai_medclip.explainers.base import gradients

__all__ = ["Chefer"]


class Chefer(AttentionExplainer):
    """R = I; per block R += mean_h(ReLU(G * A)) R; the map is R[cls, patches], G = dS/dA.

    Only the row that is read is carried, from the last block to the first, so nothing of size N x N is multiplied.
    A pooling attention comes last, with its own queries. Without either, rows of all tokens are averaged. Images of a
    batch are explained one after the other, so that memory does not grow with the batch.

    Args:
        blocks: how many of the last attention stages; None for all.
        target, verify: see `Explainer`; logits and cosines give different maps over several blocks.

    References:
        Chefer et al., Generic Attention-model Explainability, ICCV 2021, Eq. 5-6.
    """

    name = "Chefer"

    def __init__(self, *, blocks: int | None = None, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, verify=verify)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        parts = []
        for item in range(len(image)):  # all blocks' activations are kept, so of one image at a time
            one = slice(item, item + 1)
            parts.append(self._of_one(classifier, image[one], {name: value[one] for name, value in context.items()}))
        maps, scores = zip(*parts, strict=True)
        return torch.cat(maps), torch.cat(scores)

    def _of_one(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Map and scores of a batch of one, without the graph: the next image's walk must not find this one's."""
        walk = self.walk(classifier, image, context)
        return on_grid(classifier.image_encoder, relevance(walk)).detach(), walk.scores.detach()


def relevance(walk: Walk) -> Tensor:
    """R[pooled, patches] over the stages of a walk, without what a patch owes to itself: (B, F, P)."""
    grads = gradients(walk.scores, [stage.attention for stage in walk.stages])  # (B, F, H, Nq, N) each
    relevant = [
        F.relu(gradient * stage.attention.detach().unsqueeze(1)).mean(dim=2)  # (B, F, Nq, N)
        for stage, gradient in zip(walk.stages, grads, strict=True)
    ]
    read, row = carried_back(walk.stages, relevant)
    return row[..., walk.stages[0].prefix_tokens :] - (0.0 if walk.stages[-1].own_queries else read[..., -1:])
