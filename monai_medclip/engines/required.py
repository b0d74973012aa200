"""Figures that a run must reach: what its metrics.json says against what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["RequiredFigure", "required_figures"]

_RETRIEVAL = "tie_aware_text_to_image"


class RequiredFigure(NamedTuple):
    """One figure and its lower limit."""

    name: str  # path in metrics.json, such as ``zero_shot/macro_auc``
    value: float  # NaN where the run has no such figure
    at_least: float

    @property
    def reached(self) -> bool:
        """Whether the value is there and large enough."""
        return self.value >= self.at_least

    def __str__(self) -> str:
        """Name, value and limit in one line."""
        verdict = "reached" if self.reached else "MISSED"
        return f"{self.name} is {self.value:.3f}, at least {self.at_least:g} is required: {verdict}"


def required_figures(
    folder: str | Path,
    *,
    zero_shot_auc: float | None = None,
    nodule_auc: float | None = None,
    recall_over_chance: float | None = None,
) -> list[RequiredFigure]:
    """The figures of a run on its test items, each beside its limit.

    Args:
        folder: output folder of a run that was evaluated.
        zero_shot_auc: limit of the mean zero-shot AUC over findings, 0 to 1.
        nodule_auc: limit of the zero-shot AUC of the finding ``nodule``.
        recall_over_chance: limit of tie-aware text-to-image recall@5 divided by its chance.

    Returns:
        One entry per limit that is given, in this order.

    Raises:
        FileNotFoundError: the folder has no ``metrics.json``.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: evaluate that run first (evaluate.json writes it).")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    zero_shot, retrieval = metrics.get("zero_shot", {}), metrics.get("retrieval", {})
    chance = _number(retrieval, f"{_RETRIEVAL}_chance@5")
    recall = _number(retrieval, f"{_RETRIEVAL}_recall@5")
    asked = (
        ("zero_shot/macro_auc", _number(zero_shot, "macro_auc"), zero_shot_auc),
        ("zero_shot/nodule_auc", _number(zero_shot, "nodule_auc"), nodule_auc),
        (f"{_RETRIEVAL} recall@5 over chance", recall / chance if chance else float("nan"), recall_over_chance),
    )
    return [RequiredFigure(name, value, limit) for name, value, limit in asked if limit is not None]


def _number(figures: dict[str, Any], name: str) -> float:
    value = figures.get(name)
    return float("nan") if value is None else float(value)
