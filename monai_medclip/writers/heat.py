"""One map and what has to be said about it: question, method, score, units, raw or scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

__all__ = ["Heat", "heats_of", "min_max_scaled"]

RAW, MIN_MAX = "raw", "min-max scaled"


class Heat(NamedTuple):
    """A map in display order; high supports the prompt."""

    values: np.ndarray  # (rows, columns) or (slices, rows, columns) float, finite
    prompt: str
    method: str
    score: float  # what the map explains
    units: str = "logit"  # of the values, before any scaling
    score_units: str = "logit"
    scaling: str = RAW  # or MIN_MAX: then values run from 0 to 1 and cannot be compared with another map's

    @property
    def unit_label(self) -> str:
        """The unit that a legend has to name."""
        return self.units if self.scaling == RAW else f"share of this map's range, {MIN_MAX}"

    @property
    def score_label(self) -> str:
        """The score with its unit."""
        return f"{number(self.score)} {self.score_units}"

    @property
    def total(self) -> float:
        """Total heat: the sum over all pixels or voxels."""
        return float(self.values.sum(dtype=np.float64))


def heats_of(
    heatmap: Tensor,
    scores: Tensor,
    prompts: Sequence[str],
    *,
    method: str,
    units: str = "logit",
    score_units: str = "logit",
) -> list[Heat]:
    """An image's maps, one `Heat` per prompt.

    Args:
        heatmap: (F, *spatial), raw, in display order.
        scores: (F,), what they explain.
        prompts: F questions.
        method: the explainer's name.
        units: of the map.
        score_units: of the score.

    Raises:
        ValueError: maps, scores and prompts are not equally many, or a map is not finite.
    """
    if not len(heatmap) == len(scores) == len(prompts):
        raise ValueError(f"{len(heatmap)} maps, {len(scores)} scores, {len(prompts)} prompts: give one of each.")
    values = heatmap.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        bad = [prompt for prompt, map_ in zip(prompts, values) if not np.isfinite(map_).all()]
        raise ValueError(f"{method} gave NaN or infinity for {', '.join(bad)}: nothing honest can be drawn from that.")
    return [
        Heat(map_, prompt, method, float(score), units, score_units)
        for map_, score, prompt in zip(values, scores, prompts)
    ]


def min_max_scaled(heat: Heat) -> Heat:
    """The map scaled to [0, 1]: shows its shape, hides its strength. Zeros for a map without contrast."""
    low, high = float(heat.values.min()), float(heat.values.max())
    values = (heat.values - low) / (high - low) if high > low else np.zeros_like(heat.values)
    return heat._replace(values=values, scaling=MIN_MAX)


def number(value: float) -> str:
    """Three significant digits, without an exponent where a reader can do without: 0.00123, 2.5, 1230, 4.56e-07."""
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return np.format_float_positional(value, 3, unique=False, fractional=False, trim="-")
    return f"{value:.2e}"
