"""Lung nodules: 2D crops of a fixed field of view in mm around a nodule of a CT volume, and the way back.

How large a nodule is decides half of what readers say about it. So every crop shows the same number of millimetres,
whatever the scanner's pixels or the array's size, and no resizing to a grid can hide or invent a size.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys
from nibabel.affines import apply_affine
from torch import Tensor

from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["CropNoduled", "NoduleCenterd"]


class NoduleCenterd(MapTransform):
    """Find the middle of a nodule: the centroid of its mask, in mm.

    An item that already has the center (a click, a table of coordinates) keeps it, and needs no mask.
    """

    def __init__(
        self,
        keys: KeysCollection = "masks",
        *,
        label: str = "nodule",
        center_key: str = "center_mm",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set where masks are found and the center goes.

        Args:
            keys: the item's mask file, or a mapping from label to mask file, as `read_manifest` makes it.
            label: which mask of a mapping.
            center_key: where the center (x, y, z) in RAS mm is written.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.label, self.center_key = label, center_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the nodule's center (3,) float64 in RAS mm.

        Raises:
            BadInputError: there is no mask of that label, or it is empty or unreadable.
        """
        item = dict(data)
        if item.get(self.center_key) is None:
            for key in self.key_iterator(item):
                item[self.center_key] = mask_center_mm(self._mask_file(item, key))
        return item

    def _mask_file(self, item: Mapping[Hashable, Any], key: Hashable) -> str:
        masks = item[key]
        file = masks.get(self.label) if isinstance(masks, Mapping) else masks
        if not file:
            known = sorted(masks) if isinstance(masks, Mapping) else []
            remedy = f"List a mask of it, or give the item {self.center_key!r} (x, y, z) in RAS mm."
            raise BadInputError(item_name(item), f"it has no {self.label!r} mask, only {known}", remedy)
        return str(file)


def mask_center_mm(file: str | Path) -> np.ndarray:
    """Centroid (3,) in RAS mm of the voxels above 0 of a NIfTI mask.

    Raises:
        BadInputError: the mask is unreadable, not a volume, or empty.
    """
    try:
        mask = nib.load(file)
        voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)  # (V, 3)
    except Exception as error:  # what nibabel raises differs by format
        reason = f"the mask cannot be read ({type(error).__name__}: {error})"
        raise BadInputError(file, reason, "Save it as a NIfTI volume on the image's grid.") from error
    if not len(voxels) or voxels.shape[1] != 3:
        reason = f"the mask has shape {mask.shape} and {len(voxels)} voxels above 0"
        raise BadInputError(file, reason, "Mark the nodule in a volume with three axes.")
    return apply_affine(mask.affine, voxels.mean(axis=0))


class CropNoduled(MapTransform, InvertibleTransform):
    """Cut axial planes of a fixed size in mm around a nodule out of a volume; the planes become channels.

    The result (planes, rows, columns) is in display order whatever the volume's axes are: rows run from front to back,
    columns from the patient's right to left. Stock `Spacingd` + `Orientationd` + a crop would resample the whole
    volume, and center the crop on a voxel; this samples only what it shows, at the exact center.

    What lies outside the volume repeats its border, so that no black frame betrays how the file was cut.

    Undone, a map (F, rows, columns) becomes a volume on the scanner's grid: it fills the slab that the planes stand for
    and is zero elsewhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: int = 40,
        pixel_mm: float = 0.7,
        offsets_mm: Sequence[float] = (-2.5, 0.0, 2.5),
        center_key: str = "center_mm",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the field of view: ``size * pixel_mm``, 28 mm by default.

        Args:
            keys: volumes (1, x, y, z) as `LoadCTd` makes them, in any axis order, with an affine in RAS mm.
            size: rows and columns.
            pixel_mm: width of a pixel.
            offsets_mm: where the planes lie relative to the center, toward the head, ascending; one channel each.
            center_key: the item's center (x, y, z) in RAS mm; see `NoduleCenterd`.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.offsets_mm = tuple(float(offset) for offset in offsets_mm)
        if size < 1 or pixel_mm <= 0 or not self.offsets_mm or list(self.offsets_mm) != sorted(set(self.offsets_mm)):
            raise ValueError(
                f"size {size} and pixel_mm {pixel_mm} must be positive, and offsets_mm {self.offsets_mm} ascending."
            )
        self.size, self.pixel_mm, self.center_key = int(size), float(pixel_mm), center_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with crops (planes, rows, columns).

        Raises:
            BadInputError: the item has no center, or it lies outside the volume.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._crop(item[key], self._center(item), item_name(item))
        return item

    def _center(self, item: Mapping[Hashable, Any]) -> np.ndarray:
        center = item.get(self.center_key)
        if center is None:
            remedy = f"Put NoduleCenterd before, or give {self.center_key!r} (x, y, z) in RAS mm."
            raise BadInputError(item_name(item), "the item has no nodule center", remedy)
        return np.asarray(center, dtype=float).reshape(3)

    def _crop(self, volume: MetaTensor, center: np.ndarray, name: str) -> MetaTensor:
        if volume.ndim != 4:
            raise ValueError(f"{name} has shape {tuple(volume.shape)}: crop a volume (C, x, y, z).")
        affine = torch.as_tensor(volume.affine, dtype=torch.float64)
        planes = self._plane_affine(center)  # (row, column, mm along z) -> RAS mm
        voxel = torch.linalg.solve(affine, planes @ torch.tensor([*[(self.size - 1) / 2] * 2, 0, 1]).double())[:3]
        inside = (voxel > -1) & (voxel < torch.tensor(volume.shape[1:]))
        if not bool(inside.all()):
            reason = f"the center {center.round(1).tolist()} mm lies outside the volume of {tuple(volume.shape[1:])}"
            raise BadInputError(name, reason, "Give it in RAS mm (DICOM's LPS has x and y of opposite sign).")
        pixels = torch.arange(self.size, dtype=torch.float64)
        offsets = torch.tensor(self.offsets_mm, dtype=torch.float64)
        k, i, j = torch.meshgrid(offsets, pixels, pixels, indexing="ij")
        points = torch.stack([i, j, k, torch.ones_like(k)], dim=-1)  # (planes, rows, columns, 4)
        grid = points @ torch.linalg.solve(affine, planes).T
        crop = _sample(volume.as_tensor(), grid[..., :3], padding="border")  # (C, planes, rows, columns)
        out = MetaTensor(crop.flatten(0, 1), meta=volume.meta, applied_operations=volume.applied_operations)
        extra = {"affine": affine.tolist(), "planes": planes.tolist()}
        out = self.push_transform(out, orig_size=tuple(volume.shape[1:]), extra_info=extra)
        out.affine = planes
        return out

    def _plane_affine(self, center: np.ndarray) -> Tensor:
        """(4, 4) from (row, column, mm toward the head) to RAS mm; rows go backward, columns to the patient's left."""
        half = (self.size - 1) / 2 * self.pixel_mm
        matrix = torch.zeros(4, 4, dtype=torch.float64)
        matrix[1, 0] = matrix[0, 1] = -self.pixel_mm
        matrix[2, 2] = matrix[3, 3] = 1.0
        matrix[:3, 3] = torch.tensor([center[0] + half, center[1] + half, center[2]])
        return matrix

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its crops or maps back on the volume's grid."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._uncrop(item[key])
        return item

    def _uncrop(self, image: MetaTensor) -> MetaTensor:
        operation = self.pop_transform(image)
        extra, shape = operation[TraceKeys.EXTRA_INFO], [int(n) for n in operation[TraceKeys.ORIG_SIZE]]
        affine, planes = (torch.tensor(extra[name], dtype=torch.float64) for name in ("affine", "planes"))
        index = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
        points = torch.stack([*index, torch.ones(shape, dtype=torch.float64)], dim=-1)  # (x, y, z, 4)
        at = points @ torch.linalg.solve(planes, affine).T  # row, column, mm along z
        step_mm = np.diff(self.offsets_mm).mean() if len(self.offsets_mm) > 1 else self.pixel_mm
        thickness_mm = max(float(step_mm), float(torch.linalg.norm(affine[:3, 2])))
        low, high = self.offsets_mm[0] - thickness_mm / 2, self.offsets_mm[-1] + thickness_mm / 2
        inside = (at[..., 2] >= low) & (at[..., 2] <= high)
        inside &= ((at[..., :2] >= -0.5) & (at[..., :2] <= self.size - 0.5)).all(-1)
        flat = torch.cat([torch.zeros_like(at[..., :1]), at[..., :2]], dim=-1)  # one plane: its number is 0
        maps = _sample(image.as_tensor()[:, None], flat, padding="border") * inside
        out = MetaTensor(maps, meta=image.meta, applied_operations=image.applied_operations)
        out.affine = affine
        return out


def _sample(volume: Tensor, index: Tensor, *, padding: str) -> Tensor:
    """Values of a volume (C, a, b, c) at fractional indices (*out, 3), linearly: (C, *out)."""
    sizes = torch.tensor(volume.shape[1:], dtype=index.dtype)
    scaled = 2 * index / (sizes - 1).clamp(min=1) - 1  # align_corners: -1 and 1 are the outer voxels' centers
    grid = scaled.flip(-1).to(volume.dtype)[None]  # grid_sample counts from the last axis
    return F.grid_sample(volume[None], grid, mode="bilinear", padding_mode=padding, align_corners=True)[0]
