"""Grad-ECLIP: value features of the last attention, weighted by the score's gradient and by how keys meet the query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import (
    AttentionExplainer,
    Stage,
    context_gradients,
    on_grid,
    read_rows,
    value_weights,
)
from monai_medclip.networks import QKV

__all__ = ["GradECLIP"]

LOOSENING = ("lambda", "none")


class GradECLIP(AttentionExplainer):
    """H_i = ReLU(sum_c w_c v_ic lambda_i), w = dS/do at the pooled token, lambda_i = min-max of cos(q, k_i).

    With a CLS token its row is read in every block; without one, w and q are sums over all queries. Maps of several
    blocks are added, each after its own ReLU.

    Args:
        blocks: how many of the last attention stages; None for all.
        loosening: ``"lambda"`` (the paper) or ``"none"``, which leaves lambda_i = 1: then H = ReLU(sum_h G[h, cls, i]).
        heads: ``"native"``, or ``"published"`` as the authors' code does it: the last blocks are run with one head of
            full width, so that another model than the one at hand is explained.
        target, verify: see `Explainer`.

    References:
        Zhao et al., Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024, Eq. 7-9.
    """

    name = "Grad-ECLIP"

    def __init__(
        self,
        *,
        blocks: int | None = 1,
        loosening: str = "lambda",
        heads: str = "native",
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, verify=verify)
        if loosening not in LOOSENING or heads not in ("native", "published"):
            raise ValueError(f"loosening={loosening!r}, heads={heads!r}: use lambda or none, native or published.")
        self.loosening = loosening
        self.heads = heads
        self.explains_own_score = heads == "native"

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        walk = self.walk(classifier, image, context)
        maps = torch.stack(
            [
                F.relu(value_weights(stage, gradient) * self._lambda(stage))
                for stage, gradient in zip(walk.stages, context_gradients(walk), strict=True)
            ]
        ).sum(0)  # (B, F, P)
        return on_grid(classifier.image_encoder, maps), walk.scores

    def _lambda(self, stage: Stage) -> Tensor | float:
        return key_similarity(stage) if self.loosening == "lambda" else 1.0

    def _heads(self, qkv: QKV) -> QKV:
        if self.heads == "native":
            return qkv
        return QKV(*(heads.transpose(1, 2).flatten(2).unsqueeze(1) for heads in qkv))  # (B, 1, N, D)


def key_similarity(stage: Stage) -> Tensor:
    """lambda_i: cosine of query and key at full width over the patches, scaled to [0, 1] per image: (B, 1, P).

    Zeros where all patches are alike.
    """
    query = read_rows(stage, stage.qkv.q).sum(dim=2).flatten(1).unsqueeze(1)  # (B, 1, D)
    keys = stage.qkv.k[:, :, stage.prefix_tokens :].transpose(1, 2).flatten(2)  # (B, P, D)
    return min_max(F.cosine_similarity(query, keys, dim=-1)).detach().unsqueeze(1)


def min_max(values: Tensor) -> Tensor:
    """Each row (..., P) scaled to [0, 1]; zeros for a row without contrast."""
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return torch.where(high > low, (values - low) / (high - low).clamp_min(1e-12), 0.0)
