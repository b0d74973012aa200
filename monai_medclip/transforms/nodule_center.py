"""Where the middle of a nodule is: given in RAS or LPS mm, or the centroid of its mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["NoduleCenterd"]

_SPECK_MM3 = 14.1  # a ball of 3 mm, the smallest that LIDC-IDRI's readers outlined
_SPECK_SHARE = 0.1  # of the largest part; what is smaller than both belongs to it: a spur that one reader drew
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_SAME_MM = 0.1  # the same place, rounded twice


class NoduleCenterd(MapTransform):
    """Find the middle of a nodule, in RAS mm: as the item gives it, else the centroid of its mask.

    An item that already has the center (a click, a table of coordinates) keeps it, and needs no mask. A mask may lie on
    another grid than the image, as its own affine says where it is.
    """

    def __init__(
        self,
        keys: KeysCollection = "masks",
        *,
        label: str = "nodule",
        value: int | str | None = None,
        center_key: str = "center_mm",
        lps_key: str = "center_lps_mm",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set where masks and given centers are found, and where the center goes.

        Args:
            keys: the item's mask file, or a mapping from label to mask file, as `read_manifest` makes it.
            label: which mask of a mapping.
            value: which voxels are the nodule, in a mask that numbers several: a number, or the item's key that holds
                it; ``None`` takes all above 0, which must be one nodule.
            center_key: where the center (x, y, z) in RAS mm is found, and else written.
            lps_key: where a center (x, y, z) in LPS mm is found (DICOM's space, ITK's and LUNA16's); it is turned to
                RAS.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.label, self.value = label, value
        self.center_key, self.lps_key = center_key, lps_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the nodule's center (3,) float64 in RAS mm; one that is given in RAS stays as it is.

        Raises:
            BadInputError: centers given in RAS and LPS are two places; there is no mask of that label; or it is empty,
                unreadable, or holds several nodules and none is named.
        """
        item = dict(data)
        given = self._from_lps(item)
        if item.get(self.center_key) is not None:
            self._check_same(item, given)
        elif given is not None:
            item[self.center_key] = given
        else:
            for key in self.key_iterator(item):
                item[self.center_key] = mask_center_mm(self._mask_file(item, key), value=self._value(item))
        return item

    def _from_lps(self, item: Mapping[Hashable, Any]) -> NDArray[np.float64] | None:
        lps = item.get(self.lps_key)
        return None if lps is None else np.asarray(lps, dtype=float).reshape(3) * _LPS_TO_RAS

    def _check_same(self, item: Mapping[Hashable, Any], given: NDArray[np.float64] | None) -> None:
        ras = np.asarray(item[self.center_key], dtype=float).reshape(3)
        if given is not None and not np.allclose(ras, given, rtol=0, atol=_SAME_MM):
            reason = (
                f"its {self.center_key!r} {ras.round(1).tolist()} in RAS is another place than its {self.lps_key!r}, "
                f"which is {given.round(1).tolist()} in RAS"
            )
            raise BadInputError(item_name(item), reason, "Give one of the two.")

    def _value(self, item: Mapping[Hashable, Any]) -> int | None:
        value = item.get(self.value) if isinstance(self.value, str) else self.value
        if value is None and self.value is not None:
            reason = f"it does not say under {self.value!r} which voxels of its mask are the nodule"
            raise BadInputError(item_name(item), reason, "Put the number there, or set value to a number.")
        return None if value is None else int(value)

    def _mask_file(self, item: Mapping[Hashable, Any], key: Hashable) -> str:
        masks = item[key]
        file = masks.get(self.label) if isinstance(masks, Mapping) else masks
        if not file:
            known = sorted(masks) if isinstance(masks, Mapping) else []
            remedy = f"List a mask of it, or give the item {self.center_key!r} (x, y, z) in RAS mm."
            raise BadInputError(item_name(item), f"it has no {self.label!r} mask, only {known}", remedy)
        return str(file)


def mask_center_mm(file: str | Path, *, value: int | None = None) -> NDArray[np.float64]:
    """Centroid (3,) in RAS mm of a nodule in a NIfTI mask.

    Args:
        file: the mask, on any grid.
        value: the voxels of this value; ``None`` takes all above 0.

    Raises:
        BadInputError: the mask is unreadable, not a volume, or has no such voxel; or, without `value`, it has two or
            more nodules, in parts apart or numbered, whose centroid would lie between them.
    """
    try:
        mask = nib.load(file)
        voxels = np.asanyarray(mask.dataobj)
    except Exception as error:  # what nibabel raises differs by format
        reason = f"the mask cannot be read ({type(error).__name__}: {error})"
        raise BadInputError(file, reason, "Save it as a NIfTI volume on the image's grid.") from error
    inside = voxels > 0 if value is None else voxels == value
    if inside.ndim != 3 or not inside.any():
        wanted = "above 0" if value is None else f"of value {value}"
        reason = f"the mask has shape {mask.shape} and {int(inside.sum())} voxels {wanted}"
        raise BadInputError(file, reason, "Mark the nodule in a volume with three axes.")
    places = np.argwhere(inside)  # (V, 3)
    if value is None:
        box = tuple(slice(a, b + 1) for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True))
        _check_single(voxels[box], inside[box], mask.affine, file)
    return np.asarray(apply_affine(mask.affine, places.mean(axis=0)), dtype=float)


def _check_single(
    voxels: NDArray[Any], inside: NDArray[np.bool_], affine: NDArray[np.float64], file: str | Path
) -> None:
    """Refuse a mask of several nodules: several whole numbers, or several parts (26 neighbors) of some size."""
    numbers = np.unique(voxels[inside])
    if len(numbers) > 1 and np.array_equal(numbers, numbers.round()):
        remedy = f"Set value to one of them ({', '.join(f'{number:g}' for number in numbers[:10])})."
        raise BadInputError(file, f"the mask numbers {len(numbers)} nodules", remedy)
    parts, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    sizes_mm3 = np.bincount(parts.ravel())[1:] * abs(np.linalg.det(affine[:3, :3]))
    nodules = sizes_mm3[sizes_mm3 >= min(_SPECK_MM3, _SPECK_SHARE * sizes_mm3.max())]
    if len(nodules) > 1:
        sizes = ", ".join(f"{size:.0f}" for size in np.sort(nodules)[::-1][:10])
        remedy = "Make one item per nodule with a center of its own (read_nodule_masks), or number them and set value."
        raise BadInputError(file, f"the mask has {len(nodules)} parts of {sizes} mm3", remedy)
