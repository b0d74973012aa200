"""How close images are to their own texts: the CLIP score, and the in-batch accuracy that some papers report."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.metrics.classification import (
    Interval,
    flat_figure,
    mean_interval,
    patient_numbers,
    patient_resamples,
)
from monai_medclip.metrics.ranks import both_ranks, matched_pairs

__all__ = ["CLIPScore", "InBatchTop1", "clip_score", "in_batch_top1"]


class CLIPScore(NamedTuple):
    """Mean cosines; the score says little alone, as all cosines of a CLIP may be high: read it beside `mismatched`."""

    score: float  # of an image with its own text, -1 to 1
    mismatched: float  # of an image with another text, -1 to 1; NaN if all texts are the same
    score_interval: Interval | None
    mismatched_interval: Interval | None
    items: int

    def as_dict(self) -> dict[str, float]:
        """Flat names: ``clip_score``, ``clip_score_low``, ``clip_score_mismatched``, ..."""
        flat = flat_figure("clip_score", self.score, self.score_interval)
        return flat | flat_figure("clip_score_mismatched", self.mismatched, self.mismatched_interval)


class InBatchTop1(NamedTuple):
    """Finding the own text among those of a small random batch: no retrieval figure, and easier by far."""

    accuracy: float  # 0 to 1
    chance: float  # 1 / batch size
    loss: float  # InfoNCE of the batch, image to text, in nats, 0 or more
    loss_chance: float  # ln of the batch size
    batches: int
    batch_size: int

    def as_dict(self) -> dict[str, float]:
        """Flat names: ``in_batch_top1_accuracy``, ``in_batch_top1_chance``, ..."""
        return {f"in_batch_top1_{field}": float(value) for field, value in self._asdict().items()}


def clip_score(
    image: Tensor,
    text: Tensor,
    groups: Tensor | None = None,
    *,
    patients: ArrayLike | None = None,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
) -> CLIPScore:
    """Mean cosine of the matched pairs, and beside it that of all mismatched ones.

    The plain cosine: neither times 2.5 nor cut off at 0, as the captioning metric of that name is (Hessel et al., EMNLP
    2021). It compares models only where the mismatched cosine is alike.

    Args:
        image: (B, E) embeddings, scaled to unit length here.
        text: (B, E) embeddings of the matching texts.
        groups: (B,) integers; items with equal ones have the same text, and are no mismatch. None: all differ.
        patients: (B,) whom the bootstrap resamples, with them their images; the other texts stay. None: every item is
            its own.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        Both means; intervals are 2.5 and 97.5 percentiles.

    Raises:
        ValueError: shapes that do not agree, no items, or embeddings that are not finite.

    References:
        MedGrad E-CLIP, Eq. 4.
    """
    image, text, member = matched_pairs(image, text, groups)
    image, text = image.double(), text.double()
    counts = patient_resamples(patient_numbers(patients, len(image)), bootstrap, generator)  # (R, B)
    matched = (image * text).sum(dim=1).cpu().numpy()  # (B,)
    same = torch.zeros(int(member.max()) + 1, text.shape[1]).to(text).index_add_(0, member, text)[member]  # (B, E)
    other = (image * (text.sum(dim=0) - same)).sum(dim=1).cpu().numpy()  # (B,) cosines summed over other texts
    others = (len(text) - member.bincount()[member]).double().cpu().numpy()  # (B,) how many these are
    has = others > 0
    return CLIPScore(
        float(matched.mean()),
        float(other.sum() / others.sum()) if has.any() else math.nan,
        mean_interval(matched, counts),
        mean_interval(other[has] / others[has], counts[:, has] * others[has]),
        len(image),
    )


def in_batch_top1(
    image: Tensor,
    text: Tensor,
    *,
    batch_size: int = 64,
    logit_scale: float | Tensor = 1 / 0.07,
    generator: np.random.Generator | int = 0,
) -> InBatchTop1:
    """How often an image is closest to its own text within random batches: the figure of published training scripts.

    Only the own pair is right, and equal cosines share the place. A batch is a gallery of ``batch_size`` texts, however
    many items there are: not to be compared with `retrieval`, nor between batch sizes.

    Args:
        image: (B, E) embeddings, scaled to unit length here.
        text: (B, E) embeddings of the matching texts.
        batch_size: items in each batch, at least 2; what is left over after the last full one is dropped.
        logit_scale: 1 / temperature of the loss, above 0: the trained model's, or as here CLIP's initial one.
        generator: numpy generator or its seed, for the order of the items.

    Returns:
        Means over the batches.

    Raises:
        ValueError: shapes that do not agree, embeddings that are not finite, fewer items than a batch, or a scale that
            is not above 0.
    """
    image, text, _ = matched_pairs(image, text, None)
    if batch_size < 2 or len(image) < batch_size:
        raise ValueError(
            f"{len(image)} items do not fill one batch of {batch_size}: give more items, or a batch_size from 2 to "
            f"{len(image)}; its chance of 1 / batch_size rises with that."
        )
    scale = float(torch.as_tensor(logit_scale).detach())
    if not 0 < scale < math.inf:
        raise ValueError(f"logit_scale={scale} must be above 0 and finite: it is 1 / temperature.")
    batches = len(image) // batch_size
    order = np.random.default_rng(generator).permutation(len(image))[: batches * batch_size]
    own = torch.arange(batch_size, device=image.device)
    found, losses = [], []
    for rows in torch.from_numpy(order).to(image.device).split(batch_size):
        ranks = both_ranks(image[rows], text[rows], own, own, batch_size)
        found.append(ranks.image_to_text.within(1).mean())
        losses.append(F.cross_entropy(scale * image[rows] @ text[rows].T, own))  # (N, N) rows: image to text
    accuracy, loss = (float(torch.stack(values).double().mean()) for values in (found, losses))
    return InBatchTop1(accuracy, 1 / batch_size, loss, math.log(batch_size), batches, batch_size)
