"""Lung nodules: crops of a fixed size in mm around a nodule of a CT volume, in 2D planes or 3D, and the way back.

How large a nodule is decides half of what readers say about it. So every crop shows the same number of millimetres,
whatever the scanner's pixels or the array's size, and no resizing to a grid can hide or invent a size.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, ensure_tuple_rep
from torch import Tensor

from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["CropNoduled"]

_PLANES_MM = (-2.5, 0.0, 2.5)


class CropNoduled(MapTransform, InvertibleTransform):
    """Cut a box of a fixed size in mm around a nodule out of a volume: axial planes as channels (2D), or a volume (3D).

    The result, (planes, rows, columns) or (C, slices, rows, columns), is in display order whatever the volume's axes
    are: slices run from feet to head, rows from front to back, columns from the patient's right to left. Stock
    `Spacingd` + `Orientationd` + a crop would resample the whole volume, and center the crop on a voxel; this samples
    only what it shows, linearly, at the exact center.

    What lies outside the volume repeats its border, so that no black frame betrays how the file was cut.

    Undone, a map (F, rows, columns) or (F, slices, rows, columns) becomes a volume on the scanner's grid: it fills the
    slab that the planes stand for, or the box, and is zero elsewhere.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spatial_dims: int = 2,
        size: int | Sequence[int] = 40,
        pixel_mm: float | Sequence[float] = 0.7,
        offsets_mm: Sequence[float] | None = None,
        center_key: str = "center_mm",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the field of view: ``size * pixel_mm``, 28 mm by default.

        Args:
            keys: volumes (C, x, y, z) as `LoadCTd` makes them, in any axis order, with an affine in RAS mm.
            spatial_dims: 2 for planes as channels, 3 for a volume.
            size: rows and columns, for 3D slices, rows and columns; or one number for all.
            pixel_mm: width of a pixel or voxel, along the same axes.
            offsets_mm: 2D only: where the planes lie relative to the center, toward the head, ascending; C channels
                each; (-2.5, 0, 2.5) by default.
            center_key: the item's center (x, y, z) in RAS mm; see `NoduleCenterd`.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        if spatial_dims not in (2, 3) or (spatial_dims == 3 and offsets_mm is not None):
            raise ValueError(
                f"spatial_dims {spatial_dims}, offsets_mm {offsets_mm}: choose 2 and offsets_mm, or 3, where size and "
                "pixel_mm say where the slices lie."
            )
        self.spatial_dims, self.center_key = spatial_dims, center_key
        self.size = tuple(int(n) for n in ensure_tuple_rep(size, spatial_dims))
        self.pixel_mm = tuple(float(mm) for mm in ensure_tuple_rep(pixel_mm, spatial_dims))
        slices_mm = _PLANES_MM if offsets_mm is None else offsets_mm
        if spatial_dims == 3:
            slices_mm = [(k - (self.size[0] - 1) / 2) * self.pixel_mm[0] for k in range(self.size[0])]
        self.offsets_mm = tuple(float(offset) for offset in slices_mm)
        ascending = bool(self.offsets_mm) and list(self.offsets_mm) == sorted(set(self.offsets_mm))
        if min(self.size) < 1 or min(self.pixel_mm) <= 0 or not ascending:
            raise ValueError(
                f"size {self.size} and pixel_mm {self.pixel_mm} must be positive, and offsets_mm {self.offsets_mm} "
                "ascending."
            )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with crops (C * planes, rows, columns), or (C, slices, rows, columns).

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
        affine = torch.as_tensor(volume.affine, dtype=torch.float64).cpu()
        frame = self.frame(center)
        _check_inside(volume, affine, center, name)
        offsets = torch.tensor(self.offsets_mm, dtype=torch.float64)
        rows, columns = (torch.arange(n, dtype=torch.float64) for n in self.size[-2:])
        at = indices_at([offsets, rows, columns], torch.linalg.solve(affine, frame))  # (planes, rows, columns, 3)
        crop = sample_at(volume.as_tensor(), at)  # (C, planes, rows, columns)
        crop = crop.flatten(0, 1) if self.spatial_dims == 2 else crop
        out = MetaTensor(crop, meta=volume.meta, applied_operations=volume.applied_operations)
        extra = {"affine": affine.tolist(), "frame": frame.tolist()}
        out = self.push_transform(out, orig_size=tuple(volume.shape[1:]), extra_info=extra)
        out.affine = frame @ self._index_to_frame()
        return out

    def frame(self, center: np.ndarray) -> Tensor:
        """(4, 4) from (mm toward the head, row, column) to RAS mm; rows go backward, columns to the patient's left."""
        row_mm, column_mm = self.pixel_mm[-2:]
        matrix = torch.zeros(4, 4, dtype=torch.float64)
        matrix[2, 0], matrix[1, 1], matrix[0, 2], matrix[3, 3] = 1.0, -row_mm, -column_mm, 1.0
        half_mm = [(n - 1) / 2 * mm for n, mm in zip(self.size[-2:], (row_mm, column_mm), strict=True)]
        matrix[:3, 3] = torch.tensor([center[0] + half_mm[1], center[1] + half_mm[0], center[2]])
        return matrix

    def _index_to_frame(self) -> Tensor:
        """(4, 4) from (slice, row, column) to the frame; for planes from (row, column, mm): they have no third axis."""
        matrix = torch.eye(4, dtype=torch.float64)
        if self.spatial_dims == 2:
            return matrix[[2, 0, 1, 3]]
        matrix[0, 0], matrix[0, 3] = self.pixel_mm[0], self.offsets_mm[0]
        return matrix

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its crops or maps back on the volume's grid."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._uncrop(item[key])
        return item

    def _uncrop(self, image: MetaTensor) -> MetaTensor:
        """Only the voxels around the box are looked at: a grid of a whole CT takes gigabytes."""
        operation = self.pop_transform(image)
        extra, shape = operation[TraceKeys.EXTRA_INFO], [int(n) for n in operation[TraceKeys.ORIG_SIZE]]
        affine, frame = (torch.tensor(extra[name], dtype=torch.float64) for name in ("affine", "frame"))
        to_frame = torch.linalg.solve(frame, affine)
        low, high = self._faces(to_frame)
        box = _voxels_around(low, high, torch.linalg.inv(to_frame), shape)
        at = indices_at([torch.arange(*side.indices(n), dtype=torch.float64) for side, n in zip(box, shape)], to_frame)
        inside = ((at >= low) & (at <= high)).all(-1)
        if self.spatial_dims == 2:
            maps, at[..., 0] = image.as_tensor()[:, None], 0  # one plane, which stands for all of the slab
        else:
            maps, at[..., 0] = image.as_tensor(), (at[..., 0] - self.offsets_mm[0]) / self.pixel_mm[0]
        whole = maps.new_zeros(len(maps), *shape)
        whole[(slice(None), *box)] = sample_at(maps, at) * inside.to(maps)
        out = MetaTensor(whole, meta=image.meta, applied_operations=image.applied_operations)
        out.affine = affine
        return out

    def _faces(self, to_frame: Tensor) -> tuple[Tensor, Tensor]:
        """The faces (3,) of the box in the frame, pixel edges included; `to_frame` comes from the scanner's voxels.

        Planes stand for the tissue halfway to the next one, and for no less than the scanner's slice.
        """
        thickness_mm = self.pixel_mm[0]
        if self.spatial_dims == 2:
            step_mm = float(np.diff(self.offsets_mm).mean()) if len(self.offsets_mm) > 1 else self.pixel_mm[0]
            slice_mm = 1 / float(torch.linalg.inv(to_frame)[:3, 0].abs().max())  # from one to the next, toward the head
            thickness_mm = max(step_mm, slice_mm)
        low = [self.offsets_mm[0] - thickness_mm / 2, -0.5, -0.5]
        high = [self.offsets_mm[-1] + thickness_mm / 2, *(n - 0.5 for n in self.size[-2:])]
        return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def _check_inside(volume: MetaTensor, affine: Tensor, center: np.ndarray, name: str) -> None:
    voxel = torch.linalg.solve(affine, torch.tensor([*center, 1.0], dtype=torch.float64))[:3]
    if not bool(((voxel > -1) & (voxel < torch.tensor(volume.shape[1:]))).all()):
        reason = f"the center {center.round(1).tolist()} mm lies outside the volume of {tuple(volume.shape[1:])}"
        raise BadInputError(name, reason, "Give it in RAS mm (DICOM's LPS has x and y of opposite sign).")


def _voxels_around(low: Tensor, high: Tensor, to_voxel: Tensor, shape: Sequence[int]) -> tuple[slice, ...]:
    """The voxels between two opposite corners (3,) of a box, as slices of a volume of `shape`; they may be empty."""
    corners = torch.tensor([[*corner, 1.0] for corner in product(*zip(low.tolist(), high.tolist()))]).double()
    at = (corners @ to_voxel.T)[:, :3]
    first, last = at.amin(0).floor().int().tolist(), at.amax(0).ceil().int().tolist()
    return tuple(slice(min(max(a, 0), n), min(max(b + 1, 0), n)) for a, b, n in zip(first, last, shape, strict=True))


def indices_at(axes: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """Where every point of a grid of three axes goes by a matrix (4, 4): (a, b, c, 3)."""
    points = torch.stack([*torch.meshgrid(*axes, indexing="ij")], dim=-1)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def sample_at(volume: Tensor, index: Tensor) -> Tensor:
    """Values of a volume (C, a, b, c) at fractional indices (*out, 3), linearly, its border repeated: (C, *out)."""
    sizes = torch.tensor(volume.shape[1:], dtype=index.dtype)
    scaled = 2 * index / (sizes - 1).clamp(min=1) - 1  # align_corners: -1 and 1 are the outer voxels' centers
    grid = scaled.flip(-1).to(volume)[None]  # grid_sample counts from the last axis
    return F.grid_sample(volume[None], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
