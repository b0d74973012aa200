"""Which queries find their answer: retrieval by view, finding or any other property of the item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from monai_medclip.metrics.classification import patient_numbers, patient_resamples
from monai_medclip.metrics.ranks import RetrievalRanks
from monai_medclip.metrics.retrieval import DirectionReport, direction_report

__all__ = ["BreakdownRow", "retrieval_breakdown"]


class BreakdownRow(NamedTuple):
    """The items that share one value of one covariate, as queries; tie-aware."""

    covariate: str
    value: str
    items: int
    patients: int
    image_to_text: DirectionReport
    text_to_image: DirectionReport

    def as_dict(self) -> dict[str, Any]:
        """Flat names such as ``covariate``, ``items``, ``text_to_image_recall@5``, ``text_to_image_recall@5_low``."""
        flat: dict[str, Any] = {field: getattr(self, field) for field in self._fields[:4]}
        flat |= self.image_to_text.as_dict("image_to_text_")
        return flat | self.text_to_image.as_dict("text_to_image_")


def retrieval_breakdown(
    ranks: RetrievalRanks,
    covariates: Mapping[str, Sequence[Any]],
    *,
    ks: Sequence[int] = (1, 5, 10),
    patients: ArrayLike | None = None,
    bootstrap: int = 0,
    generator: np.random.Generator | int = 0,
) -> tuple[BreakdownRow, ...]:
    """Tie-aware recall at k, median rank and mean reciprocal rank of every value's items, among the whole gallery.

    Items whose text is frequent have more right answers, so that rows differ by chance alone: each recall is to be read
    beside the ``chance`` of its own row.

    Args:
        ranks: of all items, by `retrieval_ranks`.
        covariates: such as ``{"view": [...], "finding": [...]}``, B values each. An item whose value is a list, such as
            its findings, counts once in each of them; one whose value is None, NaN, empty or an empty list in none.
        ks: cut-offs for recall, each at least 1.
        patients: (B,) whom the bootstrap resamples. None: every item is its own.
        bootstrap: number of resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        Rows by covariate and value, in order of first appearance. Intervals are 2.5 and 97.5 percentiles, of the
        resamples that hold such an item.

    Raises:
        ValueError: a covariate, or the patients, that are not one per item.
    """
    both = ranks.tie_aware
    items = len(both.image_to_text.above)
    numbers = patient_numbers(patients, items)
    counts = patient_resamples(numbers, bootstrap, generator)  # (R, B)
    rows = []
    for covariate, given in covariates.items():
        if len(given) != items:
            raise ValueError(f"covariate {covariate!r} has {len(given)} values for {items} items: give one per item.")
        for value, members in _members(given).items():
            who = torch.tensor(members, device=both.image_to_text.above.device)
            directions = (direction_report(one.of(who), ks, counts[:, members]) for one in both)
            rows.append(BreakdownRow(covariate, value, len(members), len(set(numbers[members].tolist())), *directions))
    return tuple(rows)


def _members(values: Sequence[Any]) -> dict[str, list[int]]:
    """Value -> numbers of the items that have it."""
    found: dict[str, list[int]] = {}
    for number, value in enumerate(values):
        several = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        known = [str(one) for one in several if one is not None and one == one and str(one)]
        for name in dict.fromkeys(known):
            found.setdefault(name, []).append(number)
    return found
