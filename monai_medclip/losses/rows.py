"""What the pairwise losses share: rows of the similarity matrix, a chunk at a time, across processes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from monai_medclip.outputs import CLIPOutput

__all__ = ["Rows", "gather_rows", "in_full_precision", "mean_over_processes", "sum_of_rows"]


Forward = Callable[[Any, CLIPOutput, Tensor | None], Tensor]


def in_full_precision(forward: Forward) -> Forward:
    """Run a loss outside of autocast: similarities of bfloat16 are too coarse for a softmax at scale 100."""

    @functools.wraps(forward)
    def outside_autocast(self: Any, output: CLIPOutput, positives: Tensor | None = None) -> Tensor:
        with torch.autocast(output.image.device.type, enabled=False):
            return forward(self, output, positives)

    return outside_autocast


class Rows(NamedTuple):
    """This process's items (the rows) and everybody's (the columns), in float32."""

    image: Tensor  # (B, E)
    text: Tensor  # (B, E)
    groups: Tensor  # (B,) int64, equal where items are right answers for each other
    all_image: Tensor  # (K, E), K = B times the number of processes
    all_text: Tensor  # (K, E)
    all_groups: Tensor  # (K,)


def gather_rows(output: CLIPOutput, positives: Tensor | None, *, gather: bool, needs: bool) -> Rows:
    """Check shapes and put rows and columns side by side.

    Args:
        output: embeddings of both sides.
        positives: (B,) group of every item; None makes every item its own group.
        gather: columns come from every process.
        needs: positives must not be None.
    """
    image, text = output.image.float(), output.text.float()  # sums of exponentials do not fit bfloat16
    if image.shape != text.shape or image.ndim != 2:
        raise ValueError(f"image {tuple(image.shape)} and text {tuple(text.shape)} embeddings must both be (B, E).")
    if positives is None and needs:
        raise ValueError("positives is None: give (B,) group numbers, or set multi_positive=False.")
    if positives is not None and positives.shape != image.shape[:1]:
        raise ValueError(f"positives has shape {tuple(positives.shape)}, but there are {len(image)} pairs.")
    world, rank = (dist.get_world_size(), dist.get_rank()) if gather else (1, 0)
    own = torch.arange(len(image), device=image.device) + rank * len(image)
    groups = own if positives is None else positives.to(image.device)
    if world == 1:
        return Rows(image, text, groups, image, text, groups)
    _check_equal_batches(len(image), image.device)
    return Rows(image, text, groups, _all_gather(image), _all_gather(text), _all_gather(groups))


def sum_of_rows(
    row_losses: Callable[[Tensor, Tensor], Tensor], queries: Tensor, groups: Tensor, *, chunk_size: int | None
) -> Tensor:
    """Sum `row_losses` over queries (B, E), holding the similarities of at most `chunk_size` rows at a time.

    A chunk's similarities are dropped after its sum and computed again in backward, so value and gradient are those of
    the whole matrix while memory grows with chunk_size times K.
    """
    if chunk_size is None or chunk_size >= len(queries):
        return row_losses(queries, groups).sum()
    total = queries.new_zeros(())
    for rows, own in zip(queries.split(chunk_size), groups.split(chunk_size)):
        total = total + checkpoint(row_losses, rows, own, use_reentrant=False).sum()
    return total


def mean_over_processes(loss: Tensor) -> Tensor:
    """The mean loss of all processes as value, this process's own share as gradient."""
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    return loss + (mean / dist.get_world_size() - loss.detach())


class _AllGather(torch.autograd.Function):
    """Concatenate every process's rows; in backward sum what every process asks of this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Any) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def _all_gather(rows: Tensor) -> Tensor:
    return _AllGather.apply(rows)


def _check_equal_batches(size: int, device: torch.device) -> None:
    sizes = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor(size, device=device))
    found = [int(other) for other in sizes]
    if len(set(found)) > 1:
        raise ValueError(f"Processes hold batches of different sizes {found}: set drop_last=True in the data loader.")
