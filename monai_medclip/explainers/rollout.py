"""Attention rollout: where attention flows, whatever is asked. A baseline: it cannot tell one finding from another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_medclip.explainers.attention_path import AttentionExplainer, carried_back, on_grid

__all__ = ["AttentionRollout"]


class AttentionRollout(AttentionExplainer):
    """Rows of the product of (A + I) / 2 over the blocks, A averaged over heads; the same map for every finding.

    Args:
        blocks: how many of the last attention stages; None for all.
        target, verify: see `Explainer`.

    References:
        Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, Eq. 1.
    """

    name = "attention rollout"

    def __init__(self, *, blocks: int | None = None, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, verify=verify)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            walk = self.walk(classifier, image, context)
            stages = walk.stages
            _, row = carried_back(stages, [stage.attention.mean(dim=1, keepdim=True) for stage in stages])  # (B, 1, N)
            row = row * 0.5 ** sum(not stage.own_queries for stage in stages)
            maps = row[..., stages[0].prefix_tokens :].expand(-1, walk.scores.shape[1], -1)
            return on_grid(classifier.image_encoder, maps.contiguous()), walk.scores
