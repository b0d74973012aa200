"""Heat lesion by lesion: which of a case's nodules does a map mean, and how far from each is its maximum?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label as numbered_regions

from monai_medclip.metrics.classification import as_array

__all__ = ["LesionHeat", "lesion_heat", "lesion_numbers", "peak_mm"]

Array = NDArray[np.float64]


class LesionHeat(NamedTuple):
    """What one map gives to one lesion."""

    number: int  # of the lesion, from 1 on
    voxels: int
    share: float  # of the positive heat, in [0, 1]; 0 for a map without any
    enrichment: float  # that share over the lesion's share of the volume: 1 is chance
    largest: float  # heat at its hottest voxel
    rank: int  # 1: nothing is hotter than that; k: k - 1 separate regions are
    distance_mm: float  # from the map's maximum to the lesion's nearest voxel; NaN for a map without contrast
    center_distance_mm: float  # from the map's maximum to the lesion's centroid; NaN likewise


def lesion_heat(heatmap: ArrayLike, lesions: ArrayLike, affine: ArrayLike) -> list[LesionHeat]:
    """The figures of one map for every lesion, in the order of their numbers.

    Args:
        heatmap: (*spatial), higher supports the finding, finite.
        lesions: (*spatial), 0 outside; see `lesion_numbers` for what is one lesion.
        affine: (D + 1, D + 1) from indices of the D axes to mm; distances heed its shear.

    Raises:
        ValueError: shapes that differ, an affine of another size, a map that is not finite.
    """
    heat, numbers, to_mm = _checked(heatmap, lesions, affine)
    positive, peak = np.maximum(heat, 0), peak_mm(heat, to_mm)
    total = float(positive.sum())
    found = []
    for number in np.unique(numbers[numbers > 0]).tolist():
        inside = numbers == number
        at = apply_affine(to_mm, np.argwhere(inside))  # (V, D) mm
        share = float(positive[inside].sum()) / total if total > 0 else 0.0
        largest = float(heat[inside].max())
        hotter = int(numbered_regions(heat > largest, connectivity=heat.ndim).max())
        nearest, middle = (float(np.linalg.norm(points - peak, axis=-1).min()) for points in (at, at.mean(axis=0)))
        enrichment = share / float(inside.mean())
        found.append(LesionHeat(number, len(at), share, enrichment, largest, 1 + hotter, nearest, middle))
    return found


def lesion_numbers(mask: ArrayLike) -> NDArray[np.int_]:
    """Which lesion each voxel belongs to: (*spatial), 0 outside, from 1 on inside.

    Args:
        mask: (*spatial). With several positive numbers, each is one lesion, whatever its pieces; with one, each
            separate region is, voxels that share a corner being connected.
    """
    numbers = np.maximum(np.rint(as_array(mask)), 0).astype(int)
    return numbers if len(np.unique(numbers)) > 2 else np.asarray(numbered_regions(numbers, connectivity=numbers.ndim))


def peak_mm(heatmap: ArrayLike, affine: ArrayLike) -> Array:
    """Where the maximum of a map (*spatial) lies, (D,) mm; of equal ones the first. NaN for a map without contrast."""
    heat, to_mm = as_array(heatmap), as_array(affine)
    if heat.max() <= heat.min():
        return np.full(heat.ndim, np.nan)
    return np.asarray(apply_affine(to_mm, np.unravel_index(int(heat.argmax()), heat.shape)))


def _checked(heatmap: ArrayLike, lesions: ArrayLike, affine: ArrayLike) -> tuple[Array, NDArray[np.int_], Array]:
    heat, numbers, to_mm = as_array(heatmap), lesion_numbers(lesions), as_array(affine)
    if heat.shape != numbers.shape or to_mm.shape != (heat.ndim + 1, heat.ndim + 1):
        raise ValueError(
            f"heatmap {heat.shape}, lesions {numbers.shape} and affine {to_mm.shape}: give one grid, and the affine of "
            "its axes."
        )
    if not np.isfinite(heat).all():
        raise ValueError("the heatmap holds NaN or infinity: see the explainer that made it.")
    return heat, numbers, to_mm
