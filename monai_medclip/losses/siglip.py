"""SigLIP: every image-report pair of the batch is a yes-or-no question of its own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.losses.rows import gather_rows, in_full_precision, mean_over_processes, sum_of_rows
from monai_medclip.outputs import CLIPOutput

__all__ = ["SigLIPLoss"]


class SigLIPLoss(nn.Module):
    """Pairwise sigmoid loss with the model's learnable scale and bias.

    Args:
        multi_positive: pairs whose `positives` agree count as matches; False counts only an item's own partner.
        chunk_size: rows of the similarity matrix held at a time; None holds all of it.
        gather: compare with the items of every process (exact gradients under DistributedDataParallel's averaging).

    References:
        Zhai et al., "Sigmoid loss for language image pre-training", 2023, Eq. 1; start from scale 10 and bias -10.
    """

    def __init__(self, *, multi_positive: bool = True, chunk_size: int | None = None, gather: bool = False) -> None:
        """See the class."""
        super().__init__()
        self.multi_positive = multi_positive
        self.chunk_size = chunk_size
        self.gather = gather

    @in_full_precision
    def forward(self, output: CLIPOutput, positives: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            output: unit embeddings (B, E) of both sides, logit scale and logit bias.
            positives: (B,) int64; items with the same number match each other. May be None when
                `multi_positive` is False.

        Returns:
            () float32 in [0, inf): the sum over all pairs divided by B.
        """
        rows = gather_rows(
            output, positives if self.multi_positive else None, gather=self.gather, needs=self.multi_positive
        )
        scale, bias = output.logit_scale.float(), output.logit_bias.float()

        def pairs(image: Tensor, own: Tensor) -> Tensor:
            sign = (own[:, None] == rows.all_groups) * 2 - 1  # (R, K), +1 for a match and -1 for the others
            return -F.logsigmoid(sign * (scale * image @ rows.all_text.T + bias)).sum(dim=1)

        loss = sum_of_rows(pairs, rows.image, rows.groups, chunk_size=self.chunk_size) / len(rows.image)
        return mean_over_processes(loss) if self.gather else loss
