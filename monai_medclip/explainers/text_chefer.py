"""Chefer's generic attention relevance from the text side: attention times its gradient, carried back to the words."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.base import gradients
from monai_medclip.explainers.text_path import TextExplainer, TextWalk

__all__ = ["TextChefer"]


class TextChefer(TextExplainer):
    """R = I; per block R += mean_h(ReLU(G * A)) R; a word's weight is R[pooled, token], G = dS/dA.

    The pooled token is EOT in a causal CLIP tower, CLS in BERT; with mean pooling rows of all tokens are averaged, and
    what a token owes to itself alone (the identity) is left out. The ReLU leaves out what speaks against the score:
    weights are never negative, and a word of weight 0 may well pull the score down. Use TextGradECLIP for that.

    Args:
        blocks: how many of the last blocks; None for all.
        target, merge, verify: see `TextExplainer`; logits and cosines give different weights over several blocks.

    References:
        Chefer et al., Generic Attention-model Explainability, ICCV 2021, Eq. 5-6.
    """

    name = "Chefer, text"

    def __init__(
        self, *, blocks: int | None = None, target: str = "logit", merge: str = "sum", verify: bool = False
    ) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, merge=merge, verify=verify)

    def _weights(self, walk: TextWalk) -> Tensor:
        grads = gradients(walk.score, [stage.attention for stage in walk.stages])  # (1, 1, H, N, N) each
        tokens = grads[0].shape[-1]
        start = torch.full((tokens,), 1 / tokens, device=walk.visible.device)
        if walk.pooled is not None:
            start = F.one_hot(torch.tensor(walk.pooled, device=start.device), tokens).to(start)
        row = start  # (N,) of R: only what pooling reads is carried, from the last block to the first
        for stage, gradient in zip(reversed(walk.stages), reversed(grads), strict=True):
            row = row + row @ F.relu(gradient[0, 0] * stage.attention[0].detach()).mean(dim=0)
        return (row - start)[walk.visible]
