"""Maps on the scanner's grid are brought to the order of the source's slices, or refused if they lie elsewhere."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.maps import ras_affine

__all__ = ["values_on_slices"]

_OFF_GRID = 0.01  # of the smallest voxel edge: rounding in headers and float32 affines stays far below


def values_on_slices(source: DicomSource, maps: MetaTensor) -> list[NDArray[np.float32]]:
    """Values of maps, frame by frame of their source.

    A reader may run through the same voxels in another order (x to the right, head first): such maps are turned.

    Args:
        source: what the maps belong to.
        maps: (F, x, y[, z]) with the affine of their reader.

    Returns:
        per map, values (slices, rows, columns), float32, without a copy: what it says of the source's pixels.

    Raises:
        ValueError: the maps lie on another grid, or are not finite.
        TypeError: a plain tensor, of which nobody knows where it lies.
    """
    if not isinstance(maps, MetaTensor):
        raise TypeError("a plain tensor has no affine: give maps as scanner_maps makes them, a MetaTensor.")
    values = maps.detach().cpu().float().as_tensor().numpy()
    values = values[..., None] if values.ndim == 3 else values  # (F, x, y) -> (F, x, y, 1)
    if values.ndim != 4:
        raise ValueError(f"maps have shape {tuple(maps.shape)}, not (F, x, y[, z]): decollate a batch first.")
    if not np.isfinite(values).all():
        raise ValueError("a map has NaN or infinity: nothing honest can be written from that.")
    affine = ras_affine(maps)
    if source.stack is None:
        affine = _film(affine, source)
    turn = nib.io_orientation(np.linalg.inv(source.affine) @ affine)
    shape = values.shape[1:]
    if not np.isnan(turn).any():
        affine = affine @ nib.orientations.inv_ornt_aff(turn, shape)
        turned = [nib.orientations.apply_orientation(one, turn) for one in values]
        if turned and _same_grid(affine, turned[0].shape, source):
            return [one.transpose(2, 1, 0) for one in turned]  # (x, y, z) -> (z, y, x)
    raise ValueError(
        f"the maps have shape {shape} and affine {np.round(affine, 3).tolist()}, the source {source.grid} and "
        f"{np.round(source.affine, 3).tolist()}: bring them back with scanner_maps and name the image they came from."
    )


def _film(affine: NDArray[np.float64], source: DicomSource) -> NDArray[np.float64]:
    """A film's affine with the nominal third axis, which its readers fill as they like."""
    flat = source.affine.copy()
    flat[:2, :2], flat[:2, 3] = affine[:2, :2], affine[:2, 3]
    return flat


def _same_grid(affine: NDArray[np.float64], shape: tuple[int, ...], source: DicomSource) -> bool:
    """Whether the corner voxels are the source's, and so all of them."""
    if tuple(shape) != source.grid:
        return False
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in shape))])
    off_mm = np.linalg.norm((corners @ (affine - source.affine).T)[:, :3], axis=1)
    return bool(off_mm.max() <= _OFF_GRID * np.linalg.norm(source.affine[:3, :3], axis=0).min())
