"""Can one number from the chart, such as a nodule's diameter, do what the model does?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from monai_medclip.data.labels import look_up
from monai_medclip.metrics import RetrievalReport, retrieval

__all__ = ["CovariateBaseline", "covariate_baseline", "item_values"]


class CovariateBaseline(NamedTuple):
    """What a single number per item reaches on the test items, without a pixel."""

    column: str
    names: tuple[str, ...]  # F findings
    auc: tuple[float, ...]  # F, by the number or its negative, as the training items say; NaN where a class is missing
    retrieval: RetrievalReport  # images by their number, texts by the rounded number of their items

    def as_dict(self) -> dict[str, float]:
        """Flat names: ``auc/FINDING``, and the retrieval's own."""
        return {f"auc/{name}": auc for name, auc in zip(self.names, self.auc)} | self.retrieval.as_dict()

    def __str__(self) -> str:
        """Two lines for a summary."""
        found = self.retrieval.deduplicated.image_to_text
        recalls = ", ".join(f"recall@{k} {value:.3f}" for k, value in found.recall.items())
        aucs = [f"{name} {auc:.3f}" for name, auc in zip(self.names, self.auc)]
        return "\n".join([f"{self.column}: AUC {', '.join(aucs)}", f"image to text, deduplicated: {recalls}"])


def covariate_baseline(
    train: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    *,
    column: str,
    names: Sequence[str],
    rounding: float = 1.0,
) -> CovariateBaseline:
    """Zero-shot classification and retrieval by one number per item.

    For retrieval a text stands at the mean number of its items, rounded as a caption would have it, and an image is
    nearest to the text whose number is closest to its own.

    Args:
        train: items with ``label`` (F values); they say which way a finding goes with the number.
        test: items with ``label`` and ``positives``.
        column: where items hold the number, such as ``"meta.diameter_mm"``.
        names: F findings in the order of the labels.
        rounding: what a text's number is rounded to, in the number's unit.

    Raises:
        ValueError: an item has no such number.
    """
    size, fit = (np.array(list(item_values(items, column).values())) for items in (test, train))
    truth, known = (np.array([item["label"] for item in items], float) for items in (test, train))
    auc = []
    for f in range(len(names)):
        direction = 1.0 if not _auc(fit, known[:, f]) < 0.5 else -1.0
        auc.append(_auc(direction * size, truth[:, f]))
    groups = torch.tensor([int(item["positives"]) for item in test])
    members = groups.unique(return_inverse=True)[1].numpy()
    mean = np.bincount(members, size) / np.bincount(members)
    told = np.round(mean / rounding)[members] * rounding
    found = retrieval(_on_circle(size, size), _on_circle(told, size), groups)
    return CovariateBaseline(column, tuple(names), tuple(auc), found)


def item_values(items: Sequence[Mapping[str, Any]], column: str) -> dict[str, float]:
    """Item id -> number in ``column``, such as ``"meta.diameter_mm"``.

    Raises:
        ValueError: an item has no such number; it is named.
    """
    values = {}
    for item in items:
        try:
            values[str(item["id"])] = float(look_up(item, column))
        except (TypeError, ValueError) as error:
            found = look_up(item, column)
            raise ValueError(
                f"item {item['id']} has {found!r} in {column!r}, which is no number: fill it in, or drop it"
            ) from error
    return values


def _auc(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    told = ~np.isnan(truth)
    if len(set(truth[told])) < 2:
        return math.nan
    return float(roc_auc_score(truth[told], scores[told]))


def _on_circle(values: NDArray[np.float64], scale: NDArray[np.float64]) -> torch.Tensor:
    """Unit vectors (B, 2) whose cosine falls as numbers differ: points on a quarter of a circle."""
    low, high = float(scale.min()) - 1, float(scale.max()) + 1  # a rounded number may lie beyond
    angle = torch.from_numpy((values - low) / (high - low)) * math.pi / 2
    return torch.stack([angle.cos(), angle.sin()], dim=1)
