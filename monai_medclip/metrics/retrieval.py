"""Retrieval: does an image find its report, and a report its image, when identical reports are counted fairly?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DirectionReport", "ProtocolReport", "RetrievalReport", "retrieval"]

TIE = 1e-6  # cosines closer than this are the same score: identical texts differ by rounding only


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
        """Flat names such as ``tie_aware_text_to_image_recall@5``, ``..._chance@5``, ``strict_ceiling@5``."""
        flat: dict[str, float] = {"items": float(self.items), "unique_texts": float(self.unique_texts)}
        for protocol, both in zip(self._fields, self[:3], strict=False):
            for direction, report in both._asdict().items():
                name = f"{protocol}_{direction}"
                flat |= {f"{name}_recall@{k}": value for k, value in report.recall.items()}
                flat |= {f"{name}_chance@{k}": value for k, value in report.chance.items()}
                flat |= {f"{name}_median_rank": report.median_rank, f"{name}_mrr": report.mrr}
        return flat | {f"strict_ceiling@{k}": value for k, value in self.ceiling.items()}


class _Place(NamedTuple):
    """Where the best right answer of each query stands; equal scores share their places at random."""

    above: Tensor  # (Q,) wrong answers that score strictly higher
    right: Tensor  # (Q,) right answers at the best right score, >= 1
    wrong: Tensor  # (Q,) wrong answers at that same score


def retrieval(
    image: Tensor, text: Tensor, groups: Tensor | None = None, *, ks: Sequence[int] = (1, 5, 10), chunk: int = 1024
) -> RetrievalReport:
    """Recall at k, median rank and mean reciprocal rank, both directions, under three protocols.

    Where scores tie, every figure is the expectation over a random order of the ties, so that a model which answers
    the same to everything gets chance, not 1.

    Args:
        image: (B, E) embeddings, scaled to unit length here.
        text: (B, E) embeddings of the matching texts.
        groups: (B,) integers; items with equal ones have the same text. None: all differ.
        ks: cut-offs for recall, each at least 1.
        chunk: queries scored at a time; memory is chunk x B.

    Returns:
        The report; a strict recall is to be read beside its ``ceiling``, every recall beside its ``chance``.

    Raises:
        ValueError: shapes that do not agree, no items, or embeddings that are not finite.
    """
    image, text = _unit(image, "image"), _unit(text, "text")
    groups = torch.arange(len(image)) if groups is None else torch.as_tensor(groups)
    groups = groups.as_subclass(Tensor).to(image.device).flatten()  # a MetaTensor would slow every line
    if image.shape != text.shape or len(groups) != len(image) or not len(image):
        raise ValueError(
            f"image {tuple(image.shape)}, text {tuple(text.shape)} and groups {tuple(groups.shape)} must be "
            "(B, E), (B, E) and (B,) of the same B > 0."
        )
    unique, member = groups.unique(return_inverse=True)  # (G,), (B,)
    own = torch.arange(len(image), device=image.device)
    single = F.normalize(torch.zeros(len(unique), text.shape[1]).to(text).index_add_(0, member, text), dim=-1)  # (G, E)
    group = torch.arange(len(unique), device=image.device)

    def both(texts: Tensor, of_image: Tensor, of_text: Tensor) -> ProtocolReport:
        return ProtocolReport(
            _direction(image, texts, of_image, of_text, ks, chunk),
            _direction(texts, image, of_text, of_image, ks, chunk),
        )

    sizes = member.bincount()[member]  # (B,) how many items share the text
    return RetrievalReport(
        strict=both(text, own, own),
        tie_aware=both(text, member, member),
        deduplicated=both(single, member, group),
        ceiling={k: float((k / sizes.double()).clamp(max=1).mean()) for k in ks},
        items=len(image),
        unique_texts=len(unique),
    )


def _unit(embeddings: Tensor, name: str) -> Tensor:
    embeddings = torch.as_tensor(embeddings).detach().as_subclass(Tensor)
    if embeddings.ndim != 2 or not torch.isfinite(embeddings).all():
        raise ValueError(
            f"{name} embeddings {tuple(embeddings.shape)} must be (B, E) and finite. "
            "NaN here means that training diverged: lower the learning rate."
        )
    return F.normalize(embeddings.float(), dim=-1)


def _direction(
    queries: Tensor, gallery: Tensor, of_query: Tensor, of_gallery: Tensor, ks: Sequence[int], chunk: int
) -> DirectionReport:
    places = list(_places(queries, gallery, of_query, of_gallery, chunk))
    place = _Place(*(torch.cat(parts).double() for parts in zip(*places, strict=True)))
    right = of_gallery.bincount(minlength=int(of_query.max()) + 1)[of_query].double()
    random = _Place(torch.zeros_like(right), right, len(gallery) - right)
    # Of right + wrong tied answers in random order, the first right one stands at (right + wrong + 1) / (right + 1).
    rank = place.above + (place.right + place.wrong + 1) / (place.right + 1)
    return DirectionReport(
        recall={k: float(_within(place, k).mean()) for k in ks},
        chance={k: float(_within(random, k).mean()) for k in ks},
        median_rank=float(rank.quantile(0.5)),
        mrr=float(_reciprocal(place).mean()),
        queries=len(queries),
        gallery=len(gallery),
    )


def _places(
    queries: Tensor, gallery: Tensor, of_query: Tensor, of_gallery: Tensor, chunk: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for rows, names in zip(queries.split(chunk), of_query.split(chunk), strict=True):
        scores = rows @ gallery.T  # (chunk, B)
        others = names[:, None] != of_gallery  # (chunk, B)
        rights = scores.masked_fill(others, -torch.inf)
        best = rights.amax(dim=1, keepdim=True)
        above, tied, right = (_count(m) for m in (scores > best + TIE, scores >= best - TIE, rights >= best - TIE))
        yield above, right, tied - above - right


def _count(mask: Tensor) -> Tensor:
    return mask.sum(dim=1, dtype=torch.int32)  # several times faster than the default int64


def _within(place: _Place, k: int) -> Tensor:
    """Probability that a right answer is among the first k: 1 - C(wrong, t) / C(right + wrong, t), t = k - above."""
    missed = torch.ones_like(place.above)
    for step in range(k):
        drawn = step < k - place.above
        left = (place.right + place.wrong - step).clamp(min=1)
        missed = torch.where(drawn, missed * ((place.wrong - step) / left).clamp(min=0), missed)
    return 1 - missed


def _reciprocal(place: _Place) -> Tensor:
    """Expected 1 / rank of the first right answer."""
    unique, query = torch.stack(place, dim=1).unique(dim=0, return_inverse=True)  # ties are few or all alike
    above, right, wrong = unique.unbind(dim=1)
    missed, expected = torch.ones_like(above), torch.zeros_like(above)
    for step in range(int(wrong.max()) + 1):
        still = missed * ((wrong - step) / (right + wrong - step).clamp(min=1)).clamp(min=0)
        expected += (missed - still) / (above + step + 1)
        missed = still
        if not missed.any():
            break
    return expected[query]
