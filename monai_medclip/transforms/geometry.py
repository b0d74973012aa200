"""Size: any image onto the network's grid, its proportions kept, and exactly back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing, to_affine_nd
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, ensure_tuple_rep

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class FitImaged(MapTransform, InvertibleTransform):
    """Resize images to fit a grid and pad the rest, or stretch them over it; one recorded, invertible operation.

    Stock `Resized(size_mode="longest")` plus `SpatialPadd` does this for square grids only, and its anti-aliasing takes
    a second of CPU time for a full-size radiograph, some thirty times what PyTorch's antialiased interpolation takes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int],
        *,
        how: str = "pad",
        spacing_mm: Sequence[float] | None = None,
        mode: Sequence[str] | str = "linear",
        pad_value: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the grid.

        Args:
            keys: images or masks (C, *spatial).
            spatial_size: output size in the order of the array's axes: (columns, rows) before `DisplayOrderd`.
            how: "pad" keeps the proportions and centers the image; "stretch" fills the grid.
            spacing_mm: size of an output pixel or voxel along each axis: every image then has the same scale, is
                centered, and what lies outside the grid is cut off. An axis of n voxels gets the nearest whole number
                of output voxels, so that their size is right to half a voxel per field of view.
            mode: "linear" (averaging while an axis shrinks) or "nearest" (masks); one for all keys or one per key.
            pad_value: value of the padding.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        if how not in ("pad", "stretch"):
            raise ValueError(f"how is {how!r}; choose 'pad' or 'stretch'.")
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        if not set(self.mode) <= {"linear", "nearest"}:
            raise ValueError(f"mode is {mode!r}; choose 'linear' or 'nearest'.")
        self.spatial_size = tuple(int(n) for n in spatial_size)
        self.spacing_mm = None if spacing_mm is None else tuple(float(mm) for mm in spacing_mm)
        if self.spacing_mm is not None and (
            how != "pad" or len(self.spacing_mm) != len(self.spatial_size) or min(self.spacing_mm) <= 0
        ):
            raise ValueError(
                f"spacing_mm {spacing_mm} must be {len(self.spatial_size)} positive numbers, one per axis, with "
                "how='pad'."
            )
        self.how, self.pad_value = how, pad_value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images on the grid."""
        item = dict(data)
        for key, mode in self.key_iterator(item, self.mode):
            item[key] = self._forward(item[key], mode)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images on their own grid again."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._backward(item[key])
        return item

    def _forward(self, image: Any, mode: str) -> MetaTensor:
        image = image if isinstance(image, MetaTensor) else MetaTensor(image)
        shape = tuple(image.shape[1:])
        if len(shape) != len(self.spatial_size):
            raise ValueError(f"The image has shape {tuple(image.shape)}, but spatial_size is {self.spatial_size}.")
        inner = self._inner(image)
        before = tuple((out - n) // 2 for out, n in zip(self.spatial_size, inner))
        after = tuple(out - n - b for out, n, b in zip(self.spatial_size, inner, before))
        out = _pad(_interpolate(image, inner, mode), before, after, self.pad_value)
        interpolation = (
            _LINEAR[len(shape)] if mode == "linear" else "nearest"
        )  # Invertd may overwrite it with "nearest"
        extra = {"inner": list(inner), "before": list(before), "mode": interpolation}
        return self.push_transform(out, affine=_scaling(shape, inner, before), orig_size=shape, extra_info=extra)

    def _inner(self, image: MetaTensor) -> tuple[int, ...]:
        """Size of the image on the grid, before padding."""
        shape = tuple(image.shape[1:])
        if self.how == "stretch":
            return self.spatial_size
        if self.spacing_mm is None:
            scale = min(out / n for out, n in zip(self.spatial_size, shape))
            return tuple(max(1, round(n * scale)) for n in shape)
        own_mm = affine_to_spacing(torch.as_tensor(image.affine), len(shape)).tolist()
        return tuple(max(1, round(n * mm / wanted)) for n, mm, wanted in zip(shape, own_mm, self.spacing_mm))

    def _backward(self, image: MetaTensor) -> MetaTensor:
        operation = self.pop_transform(image)
        extra, shape = operation[TraceKeys.EXTRA_INFO], tuple(int(n) for n in operation[TraceKeys.ORIG_SIZE])
        inner, before = ([int(n) for n in extra[name]] for name in ("inner", "before"))
        after = [out - n - b for out, n, b in zip(image.shape[1:], inner, before)]
        window = _pad(image, [-pad for pad in before], [-pad for pad in after], 0.0)  # what was cut off is 0
        out = _interpolate(window, shape, "nearest" if "nearest" in extra["mode"] else "linear")
        matrix = np.linalg.inv(_scaling(shape, inner, before))
        out.affine = image.affine @ torch.as_tensor(to_affine_nd(image.affine.shape[-1] - 1, matrix)).to(image.affine)
        return out


def _pad(image: MetaTensor, before: Sequence[int], after: Sequence[int], value: float) -> MetaTensor:
    """Pad, or crop where negative; the image itself where nothing is to be done, which `F.pad` would copy."""
    pads = [pad for pair in zip(before[::-1], after[::-1]) for pad in pair]  # F.pad counts from the last axis
    return F.pad(image, pads, value=value) if any(pads) else image


def _interpolate(image: MetaTensor, size: Sequence[int], mode: str) -> MetaTensor:
    size = tuple(size)
    if tuple(image.shape[1:]) == size:
        return image.clone()
    if mode == "nearest":
        return F.interpolate(image[None], size, mode="nearest-exact")[0]
    linear = _LINEAR[len(size)]
    if linear == "bilinear":
        return F.interpolate(image[None], size, mode=linear, antialias=True, align_corners=False)[0]
    # PyTorch has no antialiased trilinear mode: average along the axes that shrink, then interpolate along the others.
    smaller = tuple(min(out, n) for out, n in zip(size, image.shape[1:]))
    image = image[None] if smaller == tuple(image.shape[1:]) else F.interpolate(image[None], smaller, mode="area")
    return (image if smaller == size else F.interpolate(image, size, mode=linear))[0]


def _scaling(shape: Sequence[int], inner: Sequence[int], before: Sequence[int]) -> np.ndarray:
    """Homogeneous matrix from indices of the padded output to indices of the input; pixel edges coincide."""
    ratio = np.asarray(shape, float) / np.asarray(inner, float)
    matrix = np.diag([*ratio, 1.0])
    matrix[:-1, -1] = (0.5 - np.asarray(before)) * ratio - 0.5
    return matrix
