"""Where nodules are: the parts, or the numbers, of a segmentation, as points in RAS mm."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from monai_medclip.data.nodule_points import NodulePoint, located

__all__ = ["read_nodule_masks"]

logger = logging.getLogger(__name__)

_SUFFIXES = (".nii.gz", ".nii")


def read_nodule_masks(
    masks: str | Path | Mapping[str, str | Path],
    *,
    by: str = "part",
    min_mm3: float = 14.1,
    suffix: str = "",
) -> list[NodulePoint]:
    """Find the nodules of NIfTI segmentations.

    Args:
        masks: a file; a folder of them, searched with its subfolders; or ``{image: file}``, such as the ``masks`` of a
            manifest's items by their ids.
        by: what one nodule is: ``"part"``, voxels above 0 that touch, if only at a corner (26 neighbors), or
            ``"value"``, voxels of one number, touching or not.
        min_mm3: what is smaller is left out, and counted in the log; by default a ball of 3 mm, the smallest that
            LIDC-IDRI's readers outlined. (Of its 788 masks in the project's test data none holds less, 25 have specks
            besides.)
        suffix: what a mask's file name has more than its image's, before ``.nii.gz``: ``"_nodule"``.

    Returns:
        Points with ``image`` (the file's name without suffix, or the mapping's key), the center of mass, the diameter
        of the ball of the same volume, the box around all voxels, and ``id``: the number, or for parts 1 for the
        largest and so on.

    Raises:
        ValueError: an unknown `by`; no mask there; one that is unreadable, not a volume, or has no whole numbers
            though they are asked for.
    """
    if by not in ("part", "value"):
        raise ValueError(f"by={by!r}: use 'part' or 'value'.")
    points: list[NodulePoint] = []
    specks = empty = 0
    files = _files(masks, suffix)
    for image, file in files.items():
        found = list(_nodules(image, file, by))
        kept = [point for point, mm3 in found if mm3 >= min_mm3]
        specks += len(found) - len(kept)
        empty += not kept
        points += kept
    told = (len(points), len(files), specks, min_mm3, empty)
    logger.info("%d nodules in %d masks; left out: %d parts below %g mm3; masks without a nodule: %d", *told)
    return points


def _files(masks: str | Path | Mapping[str, str | Path], suffix: str) -> dict[str, Path]:
    if isinstance(masks, Mapping):
        return {image: Path(file) for image, file in masks.items()}
    path = Path(masks)
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.name.endswith(_SUFFIXES))
    ends = tuple(suffix + end for end in _SUFFIXES)
    named: dict[str, Path] = {}
    for file in (file for file in found if file.name.endswith(ends)):
        name = file.name[: -len(next(end for end in ends if file.name.endswith(end)))]
        if name in named:
            raise ValueError(f"{named[name]} and {file} are both masks of {name!r}. Give {{image: file}}.")
        named[name] = file
    if not named:
        raise ValueError(f"{path} holds no mask whose name ends in {' or '.join(ends)}. Correct the path or suffix.")
    return named


def _nodules(image: str, file: Path, by: str) -> Iterator[tuple[NodulePoint, float]]:
    """Points and their volumes in mm3."""
    try:
        loaded = nib.load(file)
        voxels = np.asanyarray(loaded.dataobj)
    except Exception as error:  # what nibabel raises differs by format
        raise ValueError(f"{file} cannot be read ({type(error).__name__}: {error}). Save it as NIfTI.") from error
    if voxels.ndim != 3:
        raise ValueError(f"{file} has shape {voxels.shape}: a mask has three axes. Save one volume.")
    affine = np.asarray(loaded.affine, float)
    voxel_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    numbered = _parts(voxels) if by == "part" else _values(voxels, file)
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        if box is None:  # no voxel has this number
            continue
        inside = np.argwhere(numbered[box] == number) + [side.start for side in box]  # (V, 3)
        mm3 = len(inside) * voxel_mm3
        x, y, z = (float(mm) for mm in apply_affine(affine, inside.mean(axis=0)))
        middle = [(side.start + side.stop - 1) / 2 for side in box]
        _, box_mm, _ = located(middle, [side.stop - side.start for side in box], affine)
        diameter_mm = (6 * mm3 / np.pi) ** (1 / 3)
        yield NodulePoint(image, (x, y, z), float(diameter_mm), box_mm, id=str(number)), mm3


def _parts(voxels: NDArray[Any]) -> NDArray[np.int64]:
    """Connected parts, numbered from 1 by falling size."""
    parts, count = ndimage.label(voxels > 0, np.ones((3, 3, 3)))
    order = np.argsort(-np.bincount(parts.ravel(), minlength=count + 1)[1:], kind="stable")
    ranks = np.zeros(count + 1, dtype=int)
    ranks[order + 1] = np.arange(1, count + 1)
    return np.asarray(ranks[parts])


def _values(voxels: NDArray[Any], file: Path) -> NDArray[np.int64]:
    numbers = np.asarray(voxels).astype(int)
    if not np.array_equal(numbers, voxels):
        raise ValueError(f"{file} has values that are no whole numbers, such as probabilities. Use by='part'.")
    return np.maximum(numbers, 0)
