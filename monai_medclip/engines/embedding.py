"""Embeddings of a whole data set: each image and each text once, with what is needed to judge them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from .autocast import AutocastInferer
from .prepare_batch import ContrastivePrepareBatch

__all__ = ["Embeddings", "embed"]


class Embeddings(NamedTuple):
    """Both sides of a data set in the shared space, on the CPU, in the loader's order."""

    image: Tensor  # (N, E) float32, unit length
    text: Tensor  # (N, E) float32, unit length
    positives: Tensor  # (N,) int64, equal for items that are the same
    label: Tensor  # (N, F) float32 of 0, 1 and NaN for unknown; F is 0 without labels
    ids: tuple[str, ...]  # N item ids; numbers when items carry none
    patients: tuple[str, ...]  # N patient ids, for resampling patients; item ids when items carry none


def embed(
    clip: nn.Module,
    loader: Iterable[Mapping[str, Any]],
    *,
    device: str | torch.device = "cpu",
    amp: bool = False,
    prepare_batch: ContrastivePrepareBatch | None = None,
) -> Embeddings:
    """Embeds every item of a loader.

    Args:
        clip: network ``(image, input_ids, attention_mask) -> CLIPOutput``; moved to the device, its mode is restored.
        loader: collated batches; it must not shuffle if the order matters to the caller.
        device: where the network runs.
        amp: bfloat16 inside the network.
        prepare_batch: names the image entry, for instance ``ContrastivePrepareBatch("features")``.

    Raises:
        ValueError: when the loader is empty, or the network gives an embedding that is not finite.
    """
    prepare = prepare_batch or ContrastivePrepareBatch()
    infer = AutocastInferer(enabled=amp)
    clip = clip.to(device)
    parts: list[Embeddings] = []
    with eval_mode(clip):  # no gradients either
        for batch in loader:
            image, positives, tokens, _ = prepare(batch, device)
            output = infer(image, clip, *tokens)
            size, first = len(image), sum(len(part.ids) for part in parts)
            label = torch.as_tensor(batch["label"]).float().cpu() if "label" in batch else torch.zeros(size, 0)
            ids = tuple(str(entry) for entry in batch.get("id", range(first, first + size)))
            patients = tuple(str(entry) for entry in batch.get("patient_id", ids))
            parts.append(Embeddings(output.image.cpu(), output.text.cpu(), positives.cpu(), label, ids, patients))
    if not parts:
        raise ValueError("There is nothing to embed: the loader is empty. Check the split's name in the manifest.")
    return _joined(parts)


def _joined(parts: list[Embeddings]) -> Embeddings:
    image, text, positives, label = (torch.cat(tensors) for tensors in list(zip(*parts))[:4])
    ids, patients = (tuple(name for part in parts for name in part[field]) for field in (4, 5))
    check_finite(image, text, ids)
    return Embeddings(image, text, positives, label, ids, patients)


def check_finite(image: Tensor, text: Tensor, ids: Sequence[str]) -> None:
    """Raises a ValueError that names the items whose embeddings, (N, E) each, are not finite."""
    bad = ~(image.isfinite().all(dim=1) & text.isfinite().all(dim=1))  # (N,)
    if bad.any():
        names = [name for name, is_bad in zip(ids, bad.tolist()) if is_bad]
        raise ValueError(
            f"{len(names)} of {len(ids)} embeddings are not finite, first {names[:3]}: the weights have diverged or "
            "the images hold NaN. Check both, and try without amp."
        )
