"""Explanations in figures: one row per map, and of volumes one more per map and nodule."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..metrics import LesionHeat, lesion_heat, peak_mm
from ..writers import Heat, Truth
from .explained_case import Case

__all__ = ["ExplanationRows", "rows_of"]


class ExplanationRows(NamedTuple):
    """What the tables say of one case."""

    maps: list[dict[str, Any]]  # one per method and prompt
    nodules: list[dict[str, Any]]  # one per method, prompt and lesion of a volume's ground truth


def rows_of(case: Case) -> ExplanationRows:
    """The figures of all maps of a case, in the order of methods and prompts.

    Every map: score, total and largest heat, and where the largest is. With a ground truth: the share of the heat
    inside it, and whether the largest is. A volume: also where that is in RAS mm, and how far from the truth; and
    lesion by lesion the figures of `LesionHeat`.
    """
    found = ExplanationRows([], [])
    for method, heats in case.heats.items():
        for heat, truth in zip(heats, case.truths, strict=True):
            about = {"id": case.item["id"], "method": method, "prompt": heat.prompt}
            row = about | _of_map(heat, truth)
            if not case.flat:
                marked = None if truth is None else truth.mask
                lesions = [] if marked is None else lesion_heat(heat.values, marked, case.affine)
                row |= _of_volume(heat, lesions, case.affine)
                found.nodules.extend(about | _of_lesion(lesion) for lesion in lesions)
            found.maps.append(row)
    return found


def _of_map(heat: Heat, truth: Truth | None) -> dict[str, Any]:
    peak = np.unravel_index(int(heat.values.argmax()), heat.values.shape)
    row: dict[str, Any] = {"score": heat.score, "total_heat": heat.total, "largest_heat": float(heat.values.max())}
    row["peak"] = " ".join(map(str, peak))
    if truth is not None and truth.mask is not None:
        positive = np.maximum(heat.values, 0)
        row["share_in_truth"] = float(positive[truth.mask > 0].sum() / max(float(positive.sum()), 1e-12))
        row["peak_in_truth"] = int(truth.mask[peak] > 0)
    return row


def _of_volume(heat: Heat, lesions: list[LesionHeat], affine: np.ndarray) -> dict[str, Any]:
    place = peak_mm(heat.values, affine)
    row: dict[str, Any] = {"peak_mm": "" if np.isnan(place).any() else " ".join(f"{mm:.1f}" for mm in place)}
    if lesions:
        row["distance_mm"] = _known(min(lesion.distance_mm for lesion in lesions))
    return row


def _of_lesion(lesion: LesionHeat) -> dict[str, Any]:
    """A row whose columns begin with the nodule; a map without contrast has no distances."""
    figures: dict[str, Any] = lesion._asdict()
    row = {"nodule": figures.pop("number"), **figures}
    return {name: _known(value) if isinstance(value, float) else value for name, value in row.items()}


def _known(value: float) -> float | None:
    """A number, or nothing: JSON has no NaN, and a kept case has to give the same table as a new one."""
    return None if np.isnan(value) else value
