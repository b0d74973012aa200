"""From a reader's array order to the order a radiologist sees, and back.

MONAI readers give ``(C, x, y)`` or ``(C, x, y, z)``. Networks, boxes and pictures want ``(C, rows, columns)`` with the
patient upright, and CT as ``(C, slices, rows, columns)``. `DisplayOrderd` is a pipeline's last geometric transform.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import MetaKeys, SpaceKeys, TraceKeys

CT_DISPLAY_AXES = "SPL"
"""CT: slices run from feet to head, rows from front to back, columns from the patient's right to left."""

PATIENT_ORIENTATION_KEYS = ("PatientOrientation", "0020|0020", "00200020")  # ours, ITK's, unpruned pydicom's
_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "H": 2, "F": 2}


class AxisOrder(NamedTuple):
    """How output axes come from input axes; all counted over the spatial axes only."""

    source: tuple[int, ...]  # for each output axis, the input axis it comes from
    flipped: tuple[bool, ...]  # for each output axis, whether it runs against its input axis


def patient_orientation(meta: Mapping[Any, Any]) -> tuple[str, str] | None:
    """The directions in which columns and rows of a radiograph run, from a reader's metadata.

    Args:
        meta: a MetaTensor's metadata; PatientOrientation (0020,0020) is looked for under our, ITK's and pydicom's key.

    Returns:
        the principal letter (one of R, L, A, P, H, F) toward which the column index and the row index grow, or ``None``
        when the metadata do not say or say something that is not two different axes.

    References:
        DICOM PS3.3 C.7.6.1.1.1 (Patient Orientation)
    """
    value = next((meta[key] for key in PATIENT_ORIENTATION_KEYS if key in meta), None)
    if isinstance(value, Mapping):
        value = value.get("Value", ())
    if isinstance(value, str):
        value = value.split("\\")
    letters = [str(part).strip().upper()[:1] for part in value or ()]
    if len(letters) != 2 or any(letter not in _AXIS for letter in letters) or _AXIS[letters[0]] == _AXIS[letters[1]]:
        return None
    return letters[0], letters[1]


def ras_affine(image: MetaTensor) -> np.ndarray:
    """Affine of an image from its indices to RAS mm, whichever of RAS and LPS its metadata names."""
    affine = np.asarray(torch.as_tensor(image.affine).cpu(), dtype=float)
    return orientation_ras_lps(affine) if image.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS else affine


def _upright_directions(affine: np.ndarray) -> tuple[str, str] | None:
    """Directions of x and y when an affine (4, 4) in RAS says that one of them is head to foot; else ``None``."""
    if affine.shape != (4, 4) or not np.linalg.norm(affine[:3, :2], axis=0).all():
        return None
    world = np.abs(affine[:3, :2]).argmax(axis=0)  # which of R/L, A/P, H/F each array axis runs along
    x, y = (("LR", "PA", "FH")[axis][int(affine[axis, i] > 0)] for i, axis in enumerate(world))
    return (x, y) if (_AXIS[x] == 2) != (_AXIS[y] == 2) else None


def radiograph_axis_order(image: MetaTensor) -> AxisOrder:
    """The order that makes a radiograph (C, x, y[, 1]) upright as (C, rows, columns).

    Rows run from head to foot; columns from the patient's right to left, or, on a lateral film, as they were stored.
    The source is PatientOrientation where the metadata have it; else an affine whose x or y axis is head to foot (a
    coronal or sagittal NIfTI); else x is taken as columns and y as rows, as every PNG, JPEG and standard film has them.

    Args:
        image: radiograph (C, x, y) or (C, x, y, 1).

    Returns:
        the order of the two displayed axes.
    """
    x, y = patient_orientation(image.meta) or _upright_directions(ras_affine(image)) or ("L", "F")
    if x in "HF":  # stored lying down: x runs along the body
        return AxisOrder(source=(0, 1), flipped=(x == "H", y == "R"))
    return AxisOrder(source=(1, 0), flipped=(y == "H", x == "R"))


def volume_axis_order(image: MetaTensor, axcodes: str = CT_DISPLAY_AXES) -> AxisOrder:
    """The order that brings a volume (C, x, y, z) closest to `axcodes`, read from its affine in RAS.

    Args:
        image: volume (C, x, y, z) with an affine.
        axcodes: direction toward which slices, rows and columns run.
    """
    wanted = nib.orientations.axcodes2ornt(axcodes)
    ornt = nib.orientations.ornt_transform(nib.io_orientation(to_affine_nd(3, ras_affine(image))), wanted)
    source = np.argsort(ornt[:, 0]).astype(int)
    return AxisOrder(tuple(source.tolist()), tuple(bool(ornt[axis, 1] < 0) for axis in source))


def _index_transform(order: AxisOrder, shape: Sequence[int]) -> np.ndarray:
    """Homogeneous matrix from output indices to input indices, for input spatial `shape`."""
    matrix = np.zeros((len(shape) + 1, len(shape) + 1))
    matrix[-1, -1] = 1
    for out_axis, (in_axis, flipped) in enumerate(zip(order.source, order.flipped)):
        matrix[in_axis, out_axis] = -1 if flipped else 1
        matrix[in_axis, -1] = shape[in_axis] - 1 if flipped else 0
    return matrix


class DisplayOrderd(MapTransform, InvertibleTransform):
    """Bring images into display order: (C, rows, columns) upright, or (C, slices, rows, columns).

    MONAI's `Transposed` leaves the affine behind and `Orientationd` needs an anatomical affine, which films and PNG do
    not have; this one reads PatientOrientation too, drops the third axis of length one that ITK and NIfTI give a film,
    keeps the affine true, and is undone by `monai.transforms.Invertd` down to the native order, shape and affine.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        spatial_dims: int = 2,
        axcodes: str = CT_DISPLAY_AXES,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the order.

        Args:
            keys: images, masks or heatmaps as MetaTensor (C, x, y[, z]).
            spatial_dims: 2 for films and photographs (a third axis must have length one), 3 for CT volumes.
            axcodes: direction of slices, rows and columns for ``spatial_dims=3``; the default "SPL" starts at the feet,
                at the front, at the patient's right.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            ValueError: when an image has other axes than `spatial_dims` says.
        """
        super().__init__(keys, allow_missing_keys)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}; display order exists for 2 (films) and 3 (CT volumes).")
        self.spatial_dims = spatial_dims
        self.axcodes = axcodes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images in display order."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._forward(item[key])
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its images back in the reader's order."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._backward(item[key])
        return item

    def _forward(self, image: Any) -> MetaTensor:
        image = image if isinstance(image, MetaTensor) else MetaTensor(image)
        shape = tuple(image.shape[1:])
        if len(shape) != self.spatial_dims and not (self.spatial_dims == 2 and len(shape) == 3 and shape[2] == 1):
            raise ValueError(
                f"{image.meta.get('filename_or_obj', 'An image')} has shape {tuple(image.shape)}, channels first, but "
                f"spatial_dims is {self.spatial_dims}. Set spatial_dims={len(shape)}, or take a slice first."
            )
        order = radiograph_axis_order(image) if self.spatial_dims == 2 else volume_axis_order(image, self.axcodes)
        extra = {"source": list(order.source), "flipped": [int(f) for f in order.flipped]}
        flat = image.squeeze(-1) if len(shape) > self.spatial_dims else image  # (C, x, y, 1) -> (C, x, y)
        out = _permute_flip(flat, order)
        matrix = _index_transform(order, shape[: self.spatial_dims])
        return self.push_transform(out, affine=matrix, orig_size=shape, extra_info=extra)

    def _backward(self, image: MetaTensor) -> MetaTensor:
        operation = self.pop_transform(image)
        extra, shape = operation[TraceKeys.EXTRA_INFO], [int(n) for n in operation[TraceKeys.ORIG_SIZE]]
        order = AxisOrder(tuple(int(a) for a in extra["source"]), tuple(bool(f) for f in extra["flipped"]))
        back_source = tuple(int(a) for a in np.argsort(order.source))
        back = AxisOrder(back_source, tuple(order.flipped[axis] for axis in back_source))
        out = _permute_flip(image, back)
        matrix = _index_transform(back, image.shape[1:])
        out.affine = image.affine @ torch.as_tensor(to_affine_nd(image.affine.shape[-1] - 1, matrix)).to(image.affine)
        return out.unsqueeze(-1) if len(shape) > out.ndim - 1 else out  # (C, x, y) -> (C, x, y, 1)


def _permute_flip(image: MetaTensor, order: AxisOrder) -> MetaTensor:
    out = image.permute(0, *(axis + 1 for axis in order.source))
    axes = [axis + 1 for axis, flipped in enumerate(order.flipped) if flipped]
    return out.flip(axes) if axes else out
