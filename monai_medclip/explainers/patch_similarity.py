"""Patch similarity: what the classifier would say of each patch token alone, as if it were the pooled one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_medclip.explainers.attention_path import AttentionExplainer, on_grid
from monai_medclip.networks import attend

__all__ = ["PatchSimilarity"]


class PatchSimilarity(AttentionExplainer):
    """Score of every token that leaves the last attention block, through pooling and projection alone.

    No gradient and no attention is read, and no claim is made that the pooled score is a sum of these. Scores may be
    negative: such a patch speaks against the finding.

    Args:
        target, verify: see `Explainer`.

    References:
        Zhou et al., Extract Free Dense Labels from CLIP (MaskCLIP), ECCV 2022 (its last attention is not changed here).
    """

    name = "patch similarity"

    def __init__(self, *, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=1, target=target, verify=verify)

    def _check(self, classifier: Any) -> None:
        super()._check(classifier)
        if classifier.context_keys:
            raise TypeError(f"{self.name} asks the classifier about single patches: it takes no further context.")

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = classifier.image_encoder
        with torch.no_grad():
            walk = self.walk(classifier, image, context)
            last = encoder.num_blocks - 1
            if walk.stages[-1].own_queries:  # one patch at a time through the pooling attention: its value, projected
                values = walk.stages[-1].qkv.v.transpose(1, 2).flatten(2)[:, walk.stages[-1].prefix_tokens :]
                leaving = encoder.leave(walk.tokens[:, -values.shape[1] :], values, last)
            else:
                full = encoder.qkv(walk.tokens, last)
                leaving = encoder.leave(walk.tokens, attend(full)[1], last)[:, encoder.num_prefix_tokens :]
            batch, patches = leaving.shape[:2]
            # Nothing but one patch, at the prefix tokens' places too: some poolings read those, others leave them out.
            alone = leaving.reshape(batch * patches, 1, -1).expand(-1, 1 + encoder.num_prefix_tokens, -1)
            scores = self._scores(classifier, classifier.score_features(encoder.pool(alone)))
            maps = scores.reshape(batch, patches, -1).transpose(1, 2)
            return on_grid(encoder, maps), walk.scores
