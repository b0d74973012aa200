"""One map's quick test: does the score fall when the hottest places go, more than when others go?"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["MASKED_SHARE", "Faithfulness", "faithfulness"]

MASKED_SHARE = 0.1


class Faithfulness(NamedTuple):
    """Scores of one prompt, logits."""

    score: float  # of the image as it is
    hottest_masked: float  # the hottest tenth of the places set to the image's mean
    elsewhere_masked: float  # as many places, in the same shape, half a picture away
    masked_share: float  # of all places

    @property
    def supports(self) -> bool:
        """Whether the score falls more without the hottest places than without others."""
        return self.hottest_masked < self.elsewhere_masked


def faithfulness(classifier: Any, image: Tensor, heat: Tensor, prompt: int, *, score: float) -> Faithfulness:
    """Mask the hottest tenth of an image, and the same shape elsewhere, and ask again.

    Args:
        classifier: any `Classifier`.
        image: (C, *spatial) as it takes it.
        heat: (*spatial), high supports the prompt.
        prompt: which of the classifier's scores.
        score: that score of the image as it is, which the map explains.

    Returns:
        Scores; in a map without contrast the masked places are arbitrary.
    """
    image, heat = (torch.as_tensor(getattr(tensor, "as_tensor", lambda t=tensor: t)()) for tensor in (image, heat))
    count = max(1, round(MASKED_SHARE * heat.numel()))
    mask = torch.zeros(heat.numel(), dtype=torch.bool)
    mask[heat.flatten().cpu().topk(count).indices] = True
    mask = mask.view(heat.shape)
    away = mask.roll([size // 2 for size in heat.shape], dims=list(range(heat.ndim)))
    mean = image.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
    masked = [torch.where(one.to(image.device), mean, image) for one in (mask, away)]
    with torch.no_grad():
        hottest, elsewhere = (float(classifier(one[None])[0, prompt]) for one in masked)
    return Faithfulness(score, hottest, elsewhere, MASKED_SHARE)
