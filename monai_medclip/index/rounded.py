"""A copy of embeddings in one byte per number, and which of them it proves to be too far away to be found."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["RoundedCopy", "RoundedRows", "Shortlist"]

ROWS_AT_ONCE = 32_768  # their scores stay in the processor's cache
GROUP = 32  # neighbors whose largest score stands for them
STEPS = 127  # of a row's largest number; -128 is left out, so that signs are symmetric
LEAST_STEP = 1e-12  # also of a row of zeros; what is divided by it stays far from overflow
ABOVE = 1.001  # the norms behind the bounds are computed in float32: up to E = 30,000 no further off


class RoundedRows(NamedTuple):
    """Vectors as whole numbers of a step of their own: row = numbers * step + what rounding has lost."""

    numbers: Tensor  # (N, E) int8, -127 to 127
    steps: Tensor  # (N,) float32, above 0

    @classmethod
    def of(cls, rows: Tensor) -> RoundedRows:
        """Round float32 rows (N, E)."""
        steps = (rows.abs().amax(dim=1) / STEPS).clamp(min=LEAST_STEP)
        return cls((rows / steps[:, None]).round().clamp(-STEPS, STEPS).to(torch.int8), steps)

    def restored(self) -> Tensor:
        """What is left of the rows (N, E) float32."""
        return self.numbers * self.steps[:, None]


class Shortlist(NamedTuple):
    """C pairs of a query and a row; no pair that is not listed is among the k best of its query."""

    queries: Tensor  # (C,) int64, which query
    rows: Tensor  # (C,) int64, which row, ascending within a query
    scores: Tensor  # (C,) float32, about the cosine
    errors: Tensor  # (C,) float32, no cosine is further from its score


class RoundedCopy(NamedTuple):
    """Unit vectors x = center + rounded + lost, of which the rounded part is read, and one number: x.center.

    Embeddings of images of one kind lie in a narrow cone, so most of a vector is the center that all share: without it
    the steps are finer. The same holds for a query q = a center + p, p being orthogonal to the center and no longer
    than q, |q| = 1, and p = its rounded part + e:

        |x.q - (a x.center + center.p + rounded(x).rounded(p))| <= |lost| |p| + |rounded(x)| |e|    (Cauchy-Schwarz)

    and the products of whole numbers are exact.
    """

    vectors: RoundedRows  # (N, E)
    along: Tensor  # (N,) float32, x.center
    center: Tensor  # (E,) float32, any
    loss: float  # no row has |lost| above this many of its steps
    reach: float  # no row has |rounded| above this

    @classmethod
    def of(cls, rows: Tensor, center: Tensor) -> RoundedCopy:
        """Round rows (N, E) of unit length, N > 0."""
        vectors = RoundedRows.of(rows - center)
        left = vectors.restored()
        loss = (rows - center - left).norm(dim=1) / vectors.steps
        along = (rows.double() @ center.double()).float()
        return cls(vectors, along, center, float(loss.max()), float(left.norm(dim=1).max()))

    def shortlist(self, queries: Tensor, k: int) -> Shortlist:
        """The pairs that may be among the k best, k being at most N.

        Args:
            queries: (Q, E) float32, of unit length.
            k: how many are wanted of each.
        """
        asked = _Asked.of(queries, self)
        query, rows, scaled = self._scanned(asked, k)
        scores = asked.base[query] + asked.vectors.steps[query] * scaled
        errors = asked.slack[query] + asked.loss[query] * self.vectors.steps[rows]
        kth = torch.stack([(scores - errors)[query == one].topk(k).values[-1] for one in range(len(queries))])
        kept = scores + errors >= kth[query]
        return Shortlist(query[kept], rows[kept], scores[kept], errors[kept])

    def _scanned(self, asked: _Asked, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs and their scores, without base and in steps of the query, from one pass over all rows."""
        product = _product(self.vectors.numbers.shape[1])
        unit = asked.vectors.steps  # (Q,)
        best = torch.empty(len(unit), 0)  # (Q, up to k) scores that as many rows surely reach
        found = []
        parts = zip(*(part.split(ROWS_AT_ONCE) for part in (*self.vectors, self.along)), strict=True)
        for number, (numbers, steps, along) in enumerate(parts):
            scores = product(asked.vectors.numbers, numbers).float().mul_(steps)  # (Q, n)
            groups = _grouped(scores.addr_(asked.share / unit, along))  # (Q, G, GROUP)
            maxima = groups.amax(dim=2)  # (Q, G): the k-th largest of these is no larger than the k-th largest score
            error = (asked.loss * steps.max() + asked.slack) / unit  # (Q,)
            best = torch.cat([best, maxima - error[:, None]], dim=1)
            best = best.topk(min(k, best.shape[1]), dim=1).values
            least = best[:, -1] - error if best.shape[1] == k else torch.full_like(error, -torch.finfo(error.dtype).max)
            query, group = (maxima >= least[:, None]).nonzero().unbind(1)
            inside = groups[query, group]  # (H, GROUP)
            hit, place = (inside >= least[query, None]).nonzero().unbind(1)
            found.append((query[hit], number * ROWS_AT_ONCE + group[hit] * GROUP + place, inside[hit, place]))
        query, rows, scaled = (torch.cat(part) for part in zip(*found, strict=True))
        return query, rows, scaled


class _Asked(NamedTuple):
    """Queries q = share * center + p, rounded."""

    vectors: RoundedRows  # (Q, E) of p
    share: Tensor  # (Q,) float32
    base: Tensor  # (Q,) float32, center.p: 0 but for rounding
    loss: Tensor  # (Q,) error of a score per step of the row
    slack: Tensor  # (Q,) error of a score besides

    @classmethod
    def of(cls, queries: Tensor, copy: RoundedCopy) -> _Asked:
        center = copy.center.double()
        share = (queries.double() @ center) / center.square().sum().clamp(min=1e-30)  # (Q,)
        rest = queries.double() - share[:, None] * center
        vectors = RoundedRows.of(rest.float())
        missing = (rest - vectors.restored()).norm(dim=1)
        # float32 sums of E products are off by E / 2^24 at most, here and where the exact cosines are computed; 16: for
        # the single operations around them.
        summation = (queries.shape[1] + 16) * 2.0**-22
        loss, slack = copy.loss * rest.norm(dim=1), copy.reach * missing
        base = (rest @ center).float()
        return cls(vectors, share.float(), base, ABOVE * loss.float(), ABOVE * slack.float() + summation)


def _grouped(scores: Tensor) -> Tensor:
    """Scores (Q, n) -> (Q, G, GROUP), the last group filled up with minus infinity."""
    if scores.shape[1] % GROUP:
        scores = F.pad(scores, (0, -scores.shape[1] % GROUP), value=-torch.inf)
    return scores.unflatten(1, (-1, GROUP))


def _by_float(queries: Tensor, rows: Tensor) -> Tensor:
    """Products of int8 (Q, E) and (n, E) -> (Q, n) float32, exact up to E = 1040: 127 * 127 * E is below 2^24."""
    asked = queries.float()
    return torch.cat([asked @ part.float().T for part in rows.split(1024)], dim=1)


@cache
def _product(width: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The quicker right product of int8 (Q, E) and (n, E) on this machine.

    PyTorch's own reads a quarter of the bytes, but it is not part of its public interface, and processors without VNNI
    or with it switched off may clip the sums of large products: it is tried with the largest there are.
    """
    own = getattr(torch, "_int_mm", None)
    if own is None:
        return _by_float
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(-STEPS, STEPS + 1, (4096, width), generator=generator, dtype=torch.int8)
    rows[::3], rows[1::3] = STEPS, -STEPS
    queries = torch.full((2, width), STEPS, dtype=torch.int8)
    queries[1, ::2] = -STEPS

    def by_integer(queries: Tensor, rows: Tensor) -> Tensor:
        return own(queries, rows.T)

    try:
        right = all(
            torch.equal(by_integer(asked, rows).long(), asked.long() @ rows.long().T)
            for asked in (queries, queries[:1])
        )
    except (RuntimeError, TypeError):  # no kernel for this machine, or another signature
        return _by_float
    quicker = _seconds(by_integer, queries, rows) < _seconds(_by_float, queries, rows)
    return by_integer if right and quicker else _by_float


def _seconds(product: Callable[[Tensor, Tensor], Tensor], queries: Tensor, rows: Tensor) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        product(queries, rows)
        taken.append(time.perf_counter() - start)
    return min(taken)
