"""Labels as the target: the image-only baseline learns from them what a CLIP learns from reports."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LabelLoss"]


class LabelLoss(nn.Module):
    """Mean binary cross-entropy over the known labels; torch's own turns NaN when a label is unknown."""

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss, () in nats; zero, with zero gradient, where no label of the batch is known.

        Args:
            logits: (B, F).
            label: (B, F) of 1, 0 and NaN for unknown.
        """
        known = ~label.isnan()
        if not known.any():
            return logits.sum() * 0.0
        return F.binary_cross_entropy_with_logits(logits[known].float(), label[known].float())
