"""Retrieval: does an image find its report, and a report its image, when identical reports are counted fairly?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.metrics.classification import (
    Interval,
    flat_figure,
    mean_interval,
    patient_numbers,
    patient_resamples,
    percentile_interval,
)
from monai_medclip.metrics.ranks import QueryRanks, both_ranks, matched_pairs

__all__ = ["DirectionReport", "ProtocolReport", "RetrievalReport", "retrieval"]

Array = NDArray[np.float64]


class DirectionReport(NamedTuple):
    """How one side finds the other."""

    recall: dict[int, float]  # k -> share of queries with a right answer among the first k, 0 to 1
    # The same for a gallery in random order. Tie-aware image to text: identical texts stand together whatever the
    # model, so that an uninformed one gets less than this.
    chance: dict[int, float]
    median_rank: float  # of the first right answer, 1 is best
    mrr: float  # mean of 1 / rank, 0 to 1
    queries: int
    gallery: int
    recall_interval: dict[int, Interval | None]  # None without a bootstrap
    median_rank_interval: Interval | None
    mrr_interval: Interval | None

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Flat names such as ``recall@5``, ``recall@5_low``, ``recall@5_high``, ``chance@5``, ``mrr``."""
        flat: dict[str, float] = {}
        for k, value in self.recall.items():
            flat |= flat_figure(f"{prefix}recall@{k}", value, self.recall_interval[k])
        flat |= {f"{prefix}chance@{k}": value for k, value in self.chance.items()}
        flat |= flat_figure(f"{prefix}median_rank", self.median_rank, self.median_rank_interval)
        return flat | flat_figure(f"{prefix}mrr", self.mrr, self.mrr_interval)


class ProtocolReport(NamedTuple):
    """Both directions under one definition of a right answer."""

    image_to_text: DirectionReport
    text_to_image: DirectionReport


class RetrievalReport(NamedTuple):
    """Three protocols side by side."""

    strict: ProtocolReport  # only the item's own pair is right
    tie_aware: ProtocolReport  # any pair of the same group is right
    deduplicated: ProtocolReport  # each group's text stands once, as a query and in the gallery
    ceiling: dict[int, float]  # k -> the best strict recall that duplicates allow, either direction
    items: int
    unique_texts: int

    def as_dict(self) -> dict[str, float]:
        """Flat names such as ``tie_aware_text_to_image_recall@5``, ``..._recall@5_low``, ``strict_ceiling@5``."""
        flat: dict[str, float] = {"items": float(self.items), "unique_texts": float(self.unique_texts)}
        for protocol, both in zip(self._fields, self[:3], strict=False):
            for direction, report in both._asdict().items():
                flat |= report.as_dict(f"{protocol}_{direction}_")
        return flat | {f"strict_ceiling@{k}": value for k, value in self.ceiling.items()}


def retrieval(
    image: Tensor,
    text: Tensor,
    groups: Tensor | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int = 1024,
    patients: ArrayLike | None = None,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
) -> RetrievalReport:
    """Recall at k, median rank and mean reciprocal rank, both directions, under three protocols.

    Where scores tie, every figure is the expectation over a random order of the ties, so that a model which answers
    the same to everything gets chance, not 1.

    The bootstrap draws patients and with them their queries; the gallery stays as it is, since ranks among fewer or
    repeated candidates would be ranks of another task. A text that stands once for several items counts as often as
    these items are drawn on average: not at all if none of its patients is drawn, and as any other query if it is one
    patient's. So without resampling every text counts once.

    Args:
        image: (B, E) embeddings, scaled to unit length here.
        text: (B, E) embeddings of the matching texts.
        groups: (B,) integers; items with equal ones have the same text. None: all differ.
        ks: cut-offs for recall, each at least 1.
        chunk: queries scored at a time; memory is chunk x B.
        patients: (B,) whom the bootstrap resamples. None: every item is its own.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        The report; a strict recall is to be read beside its ``ceiling``, every recall beside its ``chance``. Intervals
        are 2.5 and 97.5 percentiles.

    Raises:
        ValueError: shapes that do not agree, no items, or embeddings that are not finite.
    """
    pairs = matched_pairs(image, text, groups)
    own, member = torch.arange(len(pairs.image), device=pairs.image.device), pairs.member
    sizes = member.bincount()  # (G,) how many items share the text
    group = torch.arange(len(sizes), device=member.device)
    summed = torch.zeros(len(sizes), pairs.text.shape[1]).to(pairs.text).index_add_(0, member, pairs.text)
    single = F.normalize(summed, dim=-1)  # (G, E)
    by_item = patient_resamples(patient_numbers(patients, len(own)), bootstrap, generator)  # (R, B)
    by_text = _of_texts(by_item, member.cpu().numpy(), sizes.cpu().numpy())  # (R, G)

    def both(texts: Tensor, of_image: Tensor, of_text: Tensor, text_counts: Array) -> ProtocolReport:
        found = both_ranks(pairs.image, texts, of_image, of_text, chunk)
        return ProtocolReport(
            direction_report(found.image_to_text, ks, by_item), direction_report(found.text_to_image, ks, text_counts)
        )

    return RetrievalReport(
        strict=both(pairs.text, own, own, by_item),
        tie_aware=both(pairs.text, member, member, by_item),
        deduplicated=both(single, member, group, by_text),
        ceiling={k: float((k / sizes[member].double()).clamp(max=1).mean()) for k in ks},
        items=len(own),
        unique_texts=len(sizes),
    )


def direction_report(ranks: QueryRanks, ks: Sequence[int], counts: Array) -> DirectionReport:
    """Figures of Q queries, and their intervals where each query is drawn ``counts`` (R, Q) times, fractions too."""
    rank, within = ranks.rank(), {k: ranks.within(k) for k in ks}
    uninformed, reciprocal = ranks.uninformed(), ranks.reciprocal()
    return DirectionReport(
        recall={k: float(found.mean()) for k, found in within.items()},
        chance={k: float(uninformed.within(k).mean()) for k in ks},
        median_rank=float(rank.quantile(0.5)),
        mrr=float(reciprocal.mean()),
        queries=len(rank),
        gallery=ranks.gallery,
        recall_interval={k: mean_interval(found.cpu().numpy(), counts) for k, found in within.items()},
        median_rank_interval=percentile_interval(_medians(rank.cpu().numpy(), counts)),
        mrr_interval=mean_interval(reciprocal.cpu().numpy(), counts),
    )


def _medians(values: Array, counts: Array) -> Array:
    """Median of every resample, (R,): the mean of the two middle ones, as of each value repeated; NaN if none."""
    order = np.argsort(values)
    reached = np.cumsum(counts[:, order], axis=1)  # (R, Q)
    half, slack = reached[:, -1:] / 2, 1e-9 * reached[:, -1:]  # fractions add up with rounding
    lower, upper = (np.argmax(reached > half + side, axis=1) for side in (-slack, slack))
    middle = (values[order][lower] + values[order][upper]) / 2
    return np.where(reached[:, -1] > 0, middle, np.nan)


def _of_texts(counts: Array, member: NDArray[np.int64], sizes: NDArray[np.int64]) -> Array:
    """Mean count (R, G) of the items that share each text."""
    items = len(member)
    shares = csr_array((1 / sizes[member], (np.arange(items), member)), shape=(items, len(sizes)))
    return np.asarray(counts @ shares)
