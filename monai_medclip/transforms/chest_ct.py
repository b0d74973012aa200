"""Chest CT: volumes in Hounsfield units, windows as channels, and slices as 2D images that find their way back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import MetaKeys, TraceKeys, ensure_tuple

from monai_medclip.transforms.body import padding_mask
from monai_medclip.transforms.ct_series import (
    SERIES_RULES,
    check_ct_series,
    check_rescale_type,
    choose_ct_stack,
    find_ct_stacks,
    is_series_uid,
)
from monai_medclip.transforms.ct_volume import CTVolume, StoredUnits, read_ct_nifti, read_ct_stack, stored_units
from monai_medclip.transforms.dicom import is_dicom
from monai_medclip.transforms.intensity import check_finite
from monai_medclip.transforms.rejects import BadInputError, item_name

LUNG_WINDOW_HU = (-1000.0, 400.0)  # air to soft tissue
MEDIASTINUM_WINDOW_HU = (-160.0, 240.0)  # width 400 at level 40
BONE_WINDOW_HU = (-500.0, 1300.0)  # width 1800 at level 400
WINDOWS_HU = {"lung": LUNG_WINDOW_HU, "mediastinum": MEDIASTINUM_WINDOW_HU, "bone": BONE_WINDOW_HU}

LOWEST_HU = -1024.0  # scanners mark what lies outside their field of view with -2000, -3024 and the like
_AERATED_HU = -300.0  # a chest CT without any voxel below this has no lung in it, or is not in HU
_AIR_ONLY_HU = -900.0  # and one without any above this shows nothing but air
_BELOW_AIR_HU = -1200.0  # noise in air does not reach here
_BELOW_AIR_SHARE = 0.02  # but streaks of metal do, in few voxels


def check_hounsfield(values: np.ndarray, file: str) -> None:
    """Refuse voxels that cannot be a chest CT in Hounsfield units, where air is near -1000.

    Args:
        values: voxels of any shape; padding, see `padding_mask`, is left out.
        file: their file, for the message.

    Raises:
        BadInputError: with the range found.
    """
    values = values.ravel(order="K")  # a view, also of the Fortran order that slices and NIfTI come in
    check_finite(values, file)
    lowest, highest = float(values.min()), float(values.max())
    if lowest < _BELOW_AIR_HU:
        seen = np.logical_not(padding := padding_mask(values), out=padding)
        count = int(np.count_nonzero(seen))
        lowest = float(values.min(where=seen, initial=np.inf)) if count else lowest
        below = values < _BELOW_AIR_HU
        share = np.count_nonzero(np.logical_and(below, seen, out=below)) / count if count else 1.0
        if share > _BELOW_AIR_SHARE:
            reason = f"{share:.0%} of the values lie below {_BELOW_AIR_HU:g}, far below air (-1000), but are no padding"
            raise BadInputError(file, reason, "Apply the rescale intercept once, not twice, or export the CT again.")
    if lowest > _AERATED_HU or highest < _AIR_ONLY_HU:
        reason = f"values from {lowest:g} to {highest:g} are not a chest CT in HU (air is near -1000, tissue near 0)"
        raise BadInputError(file, reason, "Apply the rescale slope and intercept, or export the CT without windowing.")


class LoadCTd(MapTransform):
    """Load chest CT (DICOM folder, slice or multi-frame object, or NIfTI) as (1, x, y, z), float32, HU, -1024 or more.

    Stock `LoadImaged` stacks whatever a folder holds, mixes series, misses no missing slice, and shows padding as what
    it happens to be stored as. Pixel padding becomes -1024 here. NIfTI of stored values with an empty header, as in
    CT-RATE's first release, becomes HU by the item's ``meta``, see `stored_units`.
    MONAI Label puts `image_path` into items; MONAI 1.6's `Spacingd` then fails on NIfTI: delete that key first.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        series: str | Sequence[str] | None = None,
        check_units: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the loader.

        Args:
            keys: paths.
            series: which stack of a DICOM folder is meant, where it may hold several: a SeriesInstanceUID (or a stack's
                uid, see `CTStack`), the item's key that holds one, or a rule: "most slices", "thinnest", "soft" or
                "lung" (by kernel, see `kernel_kind`). Several are applied in turn: ["soft", "thinnest"]. ``None``:
                the folder must hold exactly one. NIfTI files hold one volume each, which is not asked.
            check_units: refuse values that cannot be a chest CT in HU: see `check_hounsfield`, and Rescale Type.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a path that is missing, damaged, not CT, with gaps, not in HU, or of which
                it is not clear which stack is meant: the message lists them.
            ValueError: when called with an item that lacks the key in `series`.
        """
        super().__init__(keys, allow_missing_keys)
        self.series = () if series is None else tuple(ensure_tuple(series))
        self.check_units = check_units

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its paths replaced by volumes; ``series_uid`` in their meta names the stack."""
        item = dict(data)
        paths = {key: str(item[key]) for key in self.key_iterator(item)}
        stored = stored_units(item.get("meta") or {}, item_name(item))
        series = [self._named(rule, item) for rule in self.series]
        for key, path in paths.items():
            item[key] = self._load(path, series, stored)
        return item

    def _named(self, rule: str, item: Mapping[Hashable, Any]) -> str:
        """A rule, or a UID from the item."""
        if rule in SERIES_RULES or is_series_uid(rule):
            return rule
        if rule not in item:
            rules = ", ".join(repr(name) for name in SERIES_RULES)
            raise ValueError(
                f"series {rule!r} is no rule ({rules}), no UID, and no key of {item_name(item)}. Choose one of these."
            )
        return str(item[rule])

    def _load(self, path: str, series: Sequence[str], stored: StoredUnits | None) -> MetaTensor:
        if not Path(path).exists():
            raise BadInputError(path, "there is no such file or folder", "Correct the path or the image root.")
        try:
            if Path(path).is_dir() or is_dicom(path):
                return self._volume(*self._read_dicom(path, series), path)
            return self._volume(read_ct_nifti(path, stored), {}, path)
        except BadInputError:
            raise
        except Exception as error:  # what pydicom, nibabel and their decoders raise differs by version
            reason = f"the CT cannot be read ({type(error).__name__}: {error})"
            raise BadInputError(path, reason, "Export it again as DICOM or NIfTI.") from error

    def _read_dicom(self, path: str, series: Sequence[str]) -> tuple[CTVolume, dict[str, str]]:
        stack = choose_ct_stack(find_ct_stacks(path), series, path)
        check_ct_series(stack, path)
        if self.check_units:
            check_rescale_type(stack, path)
        return read_ct_stack(stack), {"series_uid": stack.uid}

    def _volume(self, volume: CTVolume, told: Mapping[str, str], path: str) -> MetaTensor:
        if self.check_units:
            check_hounsfield(volume.hu, path)
        hu = torch.from_numpy(np.maximum(volume.hu, LOWEST_HU, out=volume.hu))[None]
        meta = {MetaKeys.SPATIAL_SHAPE: np.asarray(hu.shape[1:]), MetaKeys.ORIGINAL_AFFINE: volume.affine, **told}
        return MetaTensor(hu, affine=torch.as_tensor(volume.affine), meta={**meta, "filename_or_obj": path})


class WindowHUd(MapTransform):
    """Turn Hounsfield units into one channel per window, each from 0 to 1."""

    def __init__(
        self,
        keys: KeysCollection,
        windows: Sequence[str | Sequence[float]] = ("lung",),
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the windows.

        Args:
            keys: images (1, *spatial) in HU.
            windows: "lung", "mediastinum", "bone", or (lowest, highest) HU; three of them make a three-channel image.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        named = [name for name in windows if isinstance(name, str)]
        if not windows or set(named) - set(WINDOWS_HU):
            raise ValueError(f"windows are {windows}; choose from {list(WINDOWS_HU)} or give (lowest, highest) in HU.")
        limits = [WINDOWS_HU[window] if isinstance(window, str) else tuple(window) for window in windows]
        self.windows_hu = [(float(low), float(high)) for low, high in limits]
        if any(low >= high for low, high in self.windows_hu):
            raise ValueError(f"windows {self.windows_hu} must each have their lowest HU first.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with windowed images (len(windows), *spatial)."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if image.shape[0] != 1:
                raise ValueError(
                    f"{item_name(item)} has {image.shape[0]} channels; window the one channel of HU first."
                )
            channels = [(image - low).div_(high - low).clamp_(0, 1) for low, high in self.windows_hu]
            item[key] = torch.cat(channels) if len(channels) > 1 else channels[0]  # one would be copied
        return item


class TakeSliced(MapTransform, InvertibleTransform):
    """Take one slice of a volume in display order, or it and its neighbors as channels, as a 2D image.

    Undone, a map of the slice (F, rows, columns) becomes a volume that is zero but in that slice.
    """

    def __init__(
        self,
        keys: KeysCollection,
        index: int | str | None = None,
        *,
        offsets: Sequence[int] = (0,),
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the slice.

        Args:
            keys: volumes (C, slices, rows, columns), after ``DisplayOrderd(spatial_dims=3)``.
            index: slice number, the item's key that holds it, or ``None`` for the middle.
            offsets: slices relative to it, each giving C channels; (-1, 0, 1) makes three channels of adjacent slices.
                Beyond the volume the last slice is repeated.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.index, self.offsets = index, tuple(int(offset) for offset in offsets)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with 2D images (C * len(offsets), rows, columns)."""
        item = dict(data)
        for key in self.key_iterator(item):
            volume, index = item[key], item[self.index] if isinstance(self.index, str) else self.index
            index = volume.shape[1] // 2 if index is None else int(index)
            if volume.ndim != 4 or not 0 <= index < volume.shape[1]:
                raise ValueError(f"{item_name(item)} has shape {tuple(volume.shape)} and no slice {index}.")
            item[key] = self._take(volume, index)
        return item

    def _take(self, volume: MetaTensor, index: int) -> MetaTensor:
        last = volume.shape[1] - 1
        image = torch.cat([volume[:, min(max(index + offset, 0), last)] for offset in self.offsets])
        affine = torch.as_tensor(volume.affine)
        extra = {"index": index, "affine": affine.tolist()}
        image = self.push_transform(image, orig_size=tuple(volume.shape[1:]), extra_info=extra)
        origin = affine @ torch.tensor([index, 0, 0, 1], dtype=affine.dtype)
        image.affine = torch.stack([affine[:, 1], affine[:, 2], affine[:, 0], origin], dim=1)  # (row, column, slice)
        return image

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the slices back in their volumes."""
        item = dict(data)
        for key in self.key_iterator(item):
            operation = self.pop_transform(item[key])
            image, extra = item[key], operation[TraceKeys.EXTRA_INFO]
            volume = image.new_zeros(image.shape[0], *(int(n) for n in operation[TraceKeys.ORIG_SIZE]))
            volume[:, int(extra["index"])] = image
            volume.affine = torch.tensor(extra["affine"], dtype=torch.float64)
            item[key] = volume
        return item
