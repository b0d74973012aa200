"""Grad-ECLIP from the text side: which words pull the score of a report with an image up, and which down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import Stage, value_weights
from monai_medclip.explainers.base import gradients
from monai_medclip.explainers.grad_eclip import LOOSENING, min_max
from monai_medclip.explainers.text_path import TextExplainer, TextWalk

__all__ = ["TextGradECLIP"]


class TextGradECLIP(TextExplainer):
    """H_i = sum_c w_c v_ic lambda_i, w = dS/do at the pooled token, lambda_i = min-max of cos(q, k_i).

    The pooled token is EOT in a causal CLIP tower, CLS in BERT; with mean pooling w and q are sums over all tokens. The
    min-max runs over the visible tokens only, so that the one that meets the query least gets 0; with a single
    visible token, or tokens that are all alike, every weight is 0 and ``flat`` is true. Several blocks are added.

    Args:
        blocks: how many of the last blocks; None for all.
        loosening: ``"lambda"`` (the paper) or ``"none"``, which leaves lambda_i = 1: then H = sum_h G[h, pooled, i].
        signed: keep the sign, so that words that pull the score down are negative; False takes ReLU(H) per block, as
            the paper does.
        target, merge, verify: see `TextExplainer`.

    References:
        Zhao et al., Gradient-based Visual Explanation for Transformer-based CLIP, ICML 2024, Eq. 7-9.
    """

    name = "Grad-ECLIP, text"

    def __init__(
        self,
        *,
        blocks: int | None = 1,
        loosening: str = "lambda",
        signed: bool = True,
        target: str = "logit",
        merge: str = "sum",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, merge=merge, verify=verify)
        if loosening not in LOOSENING:
            raise ValueError(f"loosening={loosening!r}: use one of {', '.join(LOOSENING)}.")
        self.loosening = loosening
        self.signed = signed

    def _weights(self, walk: TextWalk) -> Tensor:
        total = torch.zeros(len(walk.visible), device=walk.visible.device)  # (V,)
        grads = gradients(walk.score, [stage.context for stage in walk.stages])  # (1, 1, N, D) each
        for stage, gradient in zip(walk.stages, grads, strict=True):
            values = value_weights(stage, walk.pooled_rows(gradient))[0, 0, walk.visible]
            if self.loosening == "lambda":
                values = values * _key_similarity(stage, walk)
            total = total + (values if self.signed else F.relu(values))
        return total


def _key_similarity(stage: Stage, walk: TextWalk) -> Tensor:
    """lambda_i (V,): cosine of query and key at full width, scaled to [0, 1] over the visible tokens."""
    query = walk.pooled_rows(stage.qkv.q).sum(dim=2).flatten(1)  # (1, D)
    keys = stage.qkv.k[0, :, walk.visible].transpose(0, 1).flatten(1)  # (V, D)
    return min_max(F.cosine_similarity(query, keys, dim=-1)).detach()
