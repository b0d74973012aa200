"""InfoNCE over image-report pairs: symmetric or one-way, with several right answers, chunked, across processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_medclip.losses.rows import gather_rows, in_full_precision, mean_over_processes, sum_of_rows
from monai_medclip.outputs import CLIPOutput

__all__ = ["ContrastiveLoss", "info_nce"]

DIRECTIONS = ("symmetric", "one-way")


class ContrastiveLoss(nn.Module):
    """Cross-entropy of finding each image's report among the batch's, and (symmetric) the reverse.

    Items whose `positives` agree (same report text, or two views of one study) are right answers for each other: the
    target of a row is uniform over them. When all are unique this is plain InfoNCE.

    Args:
        direction: "symmetric" (mean of both directions; CLIP) or "one-way" (image to text rows only).
        multi_positive: False counts only an item's own partner as right, whatever `positives` says.
        chunk_size: rows of the similarity matrix held at a time (recomputed in backward); None holds all of it.
        gather: compare with the items of every process of the default `torch.distributed` group. Gradients, averaged
            over processes as DistributedDataParallel does, are those of one process with the whole batch.

    References:
        Radford et al., "Learning transferable visual models from natural language supervision", 2021, figure 3;
        Zhang et al., "ConVIRT", 2020, Eq. 2; Khosla et al., "Supervised contrastive learning", 2020, Eq. 2.
    """

    def __init__(
        self,
        direction: str = "symmetric",
        *,
        multi_positive: bool = True,
        chunk_size: int | None = None,
        gather: bool = False,
    ) -> None:
        """See the class."""
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"direction={direction!r} is not one of {DIRECTIONS}.")
        self.direction = direction
        self.multi_positive = multi_positive
        self.chunk_size = chunk_size
        self.gather = gather

    @in_full_precision
    def forward(self, output: CLIPOutput, positives: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            output: unit embeddings (B, E) of both sides, and the logit scale.
            positives: (B,) int64; items with the same number are right answers for each other. May be None when
                `multi_positive` is False.

        Returns:
            () float32 in [0, inf); ln B when the embeddings say nothing.

        Raises:
            ValueError: shapes disagree, or positives are needed and missing.
        """
        rows = gather_rows(
            output, positives if self.multi_positive else None, gather=self.gather, needs=self.multi_positive
        )
        scale = output.logit_scale.float()

        def image_to_text(image: Tensor, own: Tensor) -> Tensor:
            return info_nce(scale * image @ rows.all_text.T, own[:, None] == rows.all_groups)

        def text_to_image(text: Tensor, own: Tensor) -> Tensor:
            return info_nce(scale * text @ rows.all_image.T, own[:, None] == rows.all_groups)

        loss = sum_of_rows(image_to_text, rows.image, rows.groups, chunk_size=self.chunk_size) / len(rows.image)
        if self.direction == "symmetric":
            reverse = sum_of_rows(text_to_image, rows.text, rows.groups, chunk_size=self.chunk_size) / len(rows.text)
            loss = (loss + reverse) / 2
        return mean_over_processes(loss) if self.gather else loss


def info_nce(logits: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of every row against a uniform target over its right answers.

    Args:
        logits: (R, K) similarity times scale.
        same: (R, K) bool, True where the column is a right answer; at least one per row.

    Returns:
        (R,) losses.
    """
    targets = same / same.sum(dim=1, keepdim=True)  # (R, K), rows sum to 1
    return torch.logsumexp(logits, dim=1) - (targets * logits).sum(dim=1)
