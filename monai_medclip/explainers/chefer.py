"""Chefer's generic attention relevance: attention times its gradient, carried from the score back to the patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import AttentionExplainer, Stage, Walk, on_grid
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
            walk = self.walk(classifier, image[one], {name: tensor[one] for name, tensor in context.items()})
            parts.append((on_grid(classifier.image_encoder, relevance(walk)).detach(), walk.scores.detach()))
        maps, scores = zip(*parts, strict=True)
        return torch.cat(maps), torch.cat(scores)


def relevance(walk: Walk) -> Tensor:
    """R[pooled, patches] over the stages of a walk, without what a patch owes to itself: (B, F, P)."""
    grads = gradients(walk.scores, [stage.attention for stage in walk.stages])  # (B, F, H, Nq, N) each
    relevant = [
        F.relu(gradient * stage.attention.detach().unsqueeze(1)).mean(dim=2)  # (B, F, Nq, N)
        for stage, gradient in zip(walk.stages, grads, strict=True)
    ]
    start = row = _pooled_row(relevant[-1], walk.stages[-1])
    for stage, matrix in zip(reversed(walk.stages), reversed(relevant), strict=True):
        queries = matrix.shape[-2]
        row = F.pad(row, (max(queries - row.shape[-1], 0), 0))  # a pooling attention may have left prefix tokens out
        carried = torch.einsum("bfq,bfqn->bfn", row[..., :queries], matrix)
        row = carried if stage.own_queries else row + carried
    itself = 0.0 if walk.stages[-1].own_queries else start[..., -1:]
    return row[..., walk.stages[0].prefix_tokens :] - itself


def _pooled_row(relevant: Tensor, stage: Stage) -> Tensor:
    """Which tokens pooling reads: the first, all alike, or (B, F, Nq) the learned queries of a pooling attention."""
    queries, tokens = relevant.shape[-2:]
    if stage.own_queries:
        return relevant.new_full((*relevant.shape[:2], queries), 1 / queries)
    row = relevant.new_zeros(*relevant.shape[:2], tokens)
    if queries == 1:
        row[..., 0] = 1.0
    else:
        row[...] = 1 / tokens
    return row
