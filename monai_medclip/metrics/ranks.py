"""Where right answers stand among all answers, item by item, when identical texts and equal scores count fairly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ProtocolRanks", "QueryRanks", "RetrievalRanks", "retrieval_ranks"]

TIE = 1e-6  # cosines closer than this are the same score: identical texts differ by rounding only


class QueryRanks(NamedTuple):
    """Where the best right answer of each query stands; equal scores share their places at random."""

    above: Tensor  # (Q,) wrong answers that score strictly higher
    right: Tensor  # (Q,) right answers at the best right score, >= 1
    wrong: Tensor  # (Q,) wrong answers at that same score
    answers: Tensor  # (Q,) right answers in the whole gallery
    gallery: int

    def rank(self) -> Tensor:
        """Expected rank of the first right answer, (Q,) float64 from 1 to the gallery's size."""
        # Of right + wrong ties in random order the first right one stands at (right + wrong + 1) / (right + 1)
        return self.above + (self.right + self.wrong + 1) / (self.right + 1)

    def within(self, k: int) -> Tensor:
        """Probability that a right answer is among the first k, (Q,) float64: 1 - C(wrong, t) / C(right + wrong, t).

        Here t = k - above are the places that the ties share out.
        """
        missed = torch.ones_like(self.above)
        for step in range(k):
            drawn = step < k - self.above
            left = (self.right + self.wrong - step).clamp(min=1)
            missed = torch.where(drawn, missed * ((self.wrong - step) / left).clamp(min=0), missed)
        return 1 - missed

    def reciprocal(self) -> Tensor:
        """Expected 1 / rank of the first right answer, (Q,) float64 above 0, at most 1."""
        unique, query = torch.stack(self[:3], dim=1).unique(dim=0, return_inverse=True)  # ties are few or all alike
        above, right, wrong = unique.unbind(dim=1)
        missed, expected = torch.ones_like(above), torch.zeros_like(above)
        for step in range(int(wrong.max()) + 1):
            still = missed * ((wrong - step) / (right + wrong - step).clamp(min=1)).clamp(min=0)
            expected += (missed - still) / (above + step + 1)
            missed = still
            if not missed.any():
                break
        return expected[query]

    def uninformed(self) -> QueryRanks:
        """The same queries on a gallery in random order."""
        return self._replace(above=torch.zeros_like(self.above), right=self.answers, wrong=self.gallery - self.answers)

    def of(self, queries: Tensor) -> QueryRanks:
        """Some of the queries, by number or mask; the gallery stays."""
        above, right, wrong, answers = (column[queries] for column in self[:4])
        return QueryRanks(above, right, wrong, answers, self.gallery)


class ProtocolRanks(NamedTuple):
    """Both directions, item by item, under one definition of a right answer."""

    image_to_text: QueryRanks
    text_to_image: QueryRanks


class RetrievalRanks(NamedTuple):
    """Every item as a query; the gallery holds them all."""

    strict: ProtocolRanks  # only the item's own pair is right
    tie_aware: ProtocolRanks  # any pair of the same group is right

    def columns(self) -> dict[str, Tensor]:
        """Expected ranks by names such as ``tie_aware_text_to_image_rank``: (B,) float64 each, 1 is best."""
        return {
            f"{protocol}_{direction}_rank": ranks.rank()
            for protocol, both in self._asdict().items()
            for direction, ranks in both._asdict().items()
        }


class MatchedPairs(NamedTuple):
    """Checked input of everything that compares images with their texts."""

    image: Tensor  # (B, E) unit length
    text: Tensor  # (B, E) unit length
    member: Tensor  # (B,) number of the item's text, 0 to G - 1


def retrieval_ranks(image: Tensor, text: Tensor, groups: Tensor | None = None, *, chunk: int = 1024) -> RetrievalRanks:
    """Where each item's right answer stands: what `retrieval` averages, item by item.

    Args:
        image: (B, E) embeddings, scaled to unit length here.
        text: (B, E) embeddings of the matching texts.
        groups: (B,) integers; items with equal ones have the same text. None: all differ.
        chunk: queries scored at a time; memory is chunk x B.

    Returns:
        Both protocols and directions, each (B,) in the items' order.

    Raises:
        ValueError: as `retrieval`.
    """
    pairs = matched_pairs(image, text, groups)
    own = torch.arange(len(pairs.image), device=pairs.image.device)
    return RetrievalRanks(*(both_ranks(pairs.image, pairs.text, of, of, chunk) for of in (own, pairs.member)))


def matched_pairs(image: Tensor, text: Tensor, groups: Tensor | None) -> MatchedPairs:
    """Plain unit embeddings of the same B items and their texts' numbers.

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
    return MatchedPairs(image, text, groups.unique(return_inverse=True)[1])


def both_ranks(image: Tensor, texts: Tensor, of_image: Tensor, of_text: Tensor, chunk: int) -> ProtocolRanks:
    """Images (B, E) and texts (G, E) asked for each other; equal numbers in `of_image` and `of_text` are right."""
    return ProtocolRanks(_ranks(image, texts, of_image, of_text, chunk), _ranks(texts, image, of_text, of_image, chunk))


def _unit(embeddings: Tensor, name: str) -> Tensor:
    embeddings = torch.as_tensor(embeddings).detach().as_subclass(Tensor)
    if embeddings.ndim != 2 or not torch.isfinite(embeddings).all():
        raise ValueError(
            f"{name} embeddings {tuple(embeddings.shape)} must be (B, E) and finite. "
            "NaN here means that training diverged: lower the learning rate."
        )
    return F.normalize(embeddings.float(), dim=-1)


def _ranks(queries: Tensor, gallery: Tensor, of_query: Tensor, of_gallery: Tensor, chunk: int) -> QueryRanks:
    places = zip(*_places(queries, gallery, of_query, of_gallery, chunk), strict=True)
    above, right, wrong = (torch.cat(parts).double() for parts in places)
    answers = of_gallery.bincount(minlength=int(of_query.max()) + 1)[of_query].double()
    return QueryRanks(above, right, wrong, answers, len(gallery))


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
