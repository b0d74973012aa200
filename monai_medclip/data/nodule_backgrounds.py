"""Places in a CT that are no nodule: what a classifier of nodule crops has to tell from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from monai_medclip.data.manifest import text_key

__all__ = ["BACKGROUND_TEXT", "nodule_backgrounds"]

Item = dict[str, Any]
Mask = NDArray[np.bool_]

BACKGROUND_TEXT = "Chest CT: lung without a nodule."

_AERATED_HU = -500.0  # lung is below, vessels, pleura and chest wall are above
_FORGOTTEN = ("sections", "labels", "label", "boxes", "diameter_mm", "nodule_id")  # what was said of the nodule


def nodule_backgrounds(
    items: Sequence[Item],
    *,
    count: int,
    seed: int,
    gap_mm: float = 8.0,
    border_mm: float = 4.0,
    dense_share: float = 0.5,
    text: str = BACKGROUND_TEXT,
) -> list[Item]:
    """Items for `CropNoduled` whose centers lie in the lung or at its border, away from every nodule.

    Half of them, by default, lie on something dense (vessels, pleura, chest wall): most of the lung is air, which is
    told from a nodule too easily.

    Args:
        items: CTs (x, y, z) in HU as NIfTI, with ``masks``: ``nodule``, all nodules of the volume on its grid, and
            ``lungs``, likewise, if there is one; without it what holds air is lung, as in a volume cut around a nodule.
        count: places per item; fewer where there are not so many voxels to choose from.
        seed: of the choice; an item's places do not depend on the other items.
        gap_mm: from the nearest voxel of a nodule, at least.
        border_mm: how far outside the lung a place may lie.
        dense_share: share of the places above -500 HU, as far as there are such.
        text: what is said of these places.

    Returns:
        Copies of the items, in their order, with ``id`` (the item's, ``_background_`` and a number from 1),
        ``center_mm`` = [x, y, z] in RAS, the text, which they share as ``positives``, and an empty ``meta``; what was
        said of the nodule is gone, patient and split stay.

    Raises:
        ValueError: a count below 1, a share outside 0 to 1, an item without a nodule mask, or masks on another grid.
    """
    if count < 1 or not 0 <= dense_share <= 1:
        raise ValueError(f"count {count} must be 1 or more, and dense_share {dense_share} from 0 to 1.")
    found = []
    for item in items:
        generator = np.random.default_rng([seed, text_key(str(item["id"]))])
        volume_hu, affine = _volume(str(item["image"]))
        allowed = _allowed(item, volume_hu, affine, gap_mm, border_mm)
        chosen = _chosen(allowed, volume_hu > _AERATED_HU, count, dense_share, generator)
        centers = apply_affine(affine, chosen).tolist()
        found += [_background(item, number, center, text) for number, center in enumerate(centers, start=1)]
    return found


def _volume(file: str | Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    image = nib.load(file)
    return np.asanyarray(image.dataobj), np.asarray(image.affine, float)


def _allowed(item: Item, volume_hu: NDArray[Any], affine: NDArray[np.float64], gap_mm: float, border_mm: float) -> Mask:
    """Voxels in the lung or at its border, away from the nodules."""
    masks, spacing_mm = item.get("masks") or {}, voxel_sizes(affine)
    if "nodule" not in masks:
        raise ValueError(f"{item['id']} has no 'nodule' mask, only {sorted(masks)}: where it lies must be known.")
    nodule = _mask(masks["nodule"], volume_hu.shape)
    lungs = _mask(masks["lungs"], volume_hu.shape) if "lungs" in masks else volume_hu < _AERATED_HU
    return _farther(nodule, gap_mm, spacing_mm) & ~_farther(lungs, border_mm, spacing_mm)


def _mask(file: str | Path, shape: tuple[int, ...]) -> Mask:
    mask = _volume(file)[0] > 0
    if mask.shape != shape:
        raise ValueError(f"{file} has shape {mask.shape}, its image {shape}: bring the mask onto the image's grid.")
    return np.asarray(mask)


def _farther(mask: Mask, mm: float, spacing_mm: NDArray[np.float64]) -> Mask:
    """Voxels farther than so many mm from every voxel of a mask; all if it is empty."""
    if not mask.any():
        return np.ones(mask.shape, bool)
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing_mm) > mm)


def _chosen(
    allowed: Mask, dense: Mask, count: int, dense_share: float, generator: np.random.Generator
) -> NDArray[np.int_]:
    """(V, 3) indices of different voxels; where one kind runs short, the other fills up."""
    kinds = [np.argwhere(allowed & dense), np.argwhere(allowed & ~dense)]
    hard, easy = (generator.permutation(kind) for kind in kinds)
    wanted = round(count * dense_share)
    hard_count = min(len(hard), max(wanted, count - len(easy)))
    return np.concatenate([hard[:hard_count], easy[: count - hard_count]])


def _background(item: Item, number: int, center: list[float], text: str) -> Item:
    kept = {key: value for key, value in item.items() if key not in _FORGOTTEN}
    about = {"text": text, "positives": text_key(text), "labels": [], "meta": {}}
    return kept | about | {"id": f"{item['id']}_background_{number}", "center_mm": center}
