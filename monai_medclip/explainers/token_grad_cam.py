"""Grad-CAM on patch tokens: the tokens that enter the last attention, weighted by their channels' mean gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import AttentionExplainer, Stage, Walk, on_grid, reads_first_only
from monai_medclip.explainers.base import gradients
from monai_medclip.networks import AttentionAccess

__all__ = ["TokenGradCAM"]


class TokenGradCAM(AttentionExplainer):
    """ReLU(sum_c w_c x_ic) of the tokens x ENTERING the last attention, w_c = mean over patches of dS/dx_ic.

    At the output of a CLS-pooled network's last block patch tokens get no gradient at all: a map there is exactly zero.

    Args:
        include_prefix: average the gradient over CLS and registers too, as a public implementation does.
        target, verify: see `Explainer`.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Eq. 1-2, on tokens as in the dermoscopy study (seed 2).
    """

    name = "patch-token Grad-CAM"

    def __init__(self, *, include_prefix: bool = False, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=1, target=target, verify=verify)
        self.include_prefix = include_prefix

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        walk = self.walk(classifier, image, context)
        prefix = classifier.image_encoder.num_prefix_tokens
        weights = entering_gradients(walk, 0 if self.include_prefix else prefix)  # (B, F, D)
        maps = F.relu(torch.einsum("bfd,bpd->bfp", weights, walk.tokens[:, prefix:]))
        return on_grid(classifier.image_encoder, maps), walk.scores

    def _stage(self, encoder: AttentionAccess, entering: Tensor, block: int) -> Stage:
        """Where the encoder can, without keys and values, which this method does not read: a cheaper way back."""
        attended = encoder.attend_first(entering, block) if reads_first_only(encoder, block) else None
        if attended is None:
            return super()._stage(encoder, entering, block)
        first = encoder.qkv(entering[:, :1], block)  # of the pooled token only
        return Stage(first, *attended, encoder.prefix_tokens(block), False, residual=entering[:, :1])


def entering_gradients(walk: Walk, first: int) -> Tensor:
    """dS/dx of the tokens that enter the last stage, averaged over all from the first on: (B, F, D).

    All findings go back from the scores to the heads' output together: few tokens, large matrices. From there on, where
    every token counts, one after the other: (B, F, N, D) never exists, and what does stays in the cache.
    """
    stage = walk.stages[-1]
    ends = [stage.context] if stage.residual is None else [stage.context, stage.residual]
    per_finding = zip(*(gradient.unbind(1) for gradient in gradients(walk.scores, ends)), strict=True)
    means = [
        torch.autograd.grad(ends, walk.tokens, vectors, retain_graph=True)[0][:, first:].mean(dim=1)
        for vectors in per_finding
    ]
    return torch.stack(means, dim=1)
