"""Chest CT: volumes in Hounsfield units, windows as channels, and slices as 2D images that find their way back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import MetaKeys, TraceKeys
from pydicom.dataset import Dataset

from monai_medclip.transforms.body import padding_mask
from monai_medclip.transforms.dicom import is_dicom, read_dicom, stored_pixels
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
    check_finite(values, file)
    lowest, highest = float(values.min()), float(values.max())
    if lowest < _BELOW_AIR_HU:
        seen = values[~padding_mask(values)]
        lowest = float(seen.min()) if seen.size else lowest
        share = float((seen < _BELOW_AIR_HU).mean()) if seen.size else 1.0
        if share > _BELOW_AIR_SHARE:
            reason = f"{share:.0%} of the values lie below {_BELOW_AIR_HU:g}, far below air (-1000), but are no padding"
            raise BadInputError(file, reason, "Apply the rescale intercept once, not twice, or export the CT again.")
    if lowest > _AERATED_HU or highest < _AIR_ONLY_HU:
        reason = f"values from {lowest:g} to {highest:g} are not a chest CT in HU (air is near -1000, tissue near 0)"
        raise BadInputError(file, reason, "Apply the rescale slope and intercept, or export the CT without windowing.")


def check_ct_series(headers: Sequence[Dataset], folder: str | Path) -> None:
    """Refuse a set of slices that is not one gapless CT volume.

    Raises:
        BadInputError: for another modality, several series, slices of several sizes, or a missing or doubled slice.
    """
    modalities = {str(header.get("Modality", "") or "CT") for header in headers}  # minimal headers may leave it out
    if modalities != {"CT"}:
        remedy = "Read radiographs with LoadRadiographd; keep one CT series per folder."
        raise BadInputError(folder, f"Modality is {', '.join(sorted(modalities))}, not CT", remedy)
    series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
    sizes = {(int(header.Rows), int(header.Columns)) for header in headers}
    if len(series) > 1 or len(sizes) > 1:
        reason = f"the folder holds {len(series)} series with {len(sizes)} slice sizes"
        raise BadInputError(folder, reason, "Put each series into a folder of its own.")
    if len(headers) < 3 or any("ImagePositionPatient" not in header for header in headers):
        return
    positions = np.sort([_along_normal(header) for header in headers])
    gaps_mm = np.diff(positions)
    typical_mm = float(np.median(gaps_mm))
    if np.abs(gaps_mm - typical_mm).max() > 0.1 * typical_mm + 0.01:
        reason = (
            f"slices lie {typical_mm:.2f} mm apart, but once {gaps_mm[np.abs(gaps_mm - typical_mm).argmax()]:.2f} mm"
        )
        raise BadInputError(folder, reason, "A slice is missing or doubled: export the series again.")


def _along_normal(header: Dataset) -> float:
    """Position of a slice along its normal, in mm (PS3.3 C.7.6.2.1.1)."""
    row, column = np.reshape([float(v) for v in header.get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))], (2, 3))
    return float(np.cross(row, column) @ np.array([float(v) for v in header.ImagePositionPatient]))


class LoadCTd(MapTransform):
    """Load chest CT (a DICOM series folder, one DICOM slice, NIfTI) as (1, x, y, z), float32, in HU, -1024 or more.

    Stock `LoadImaged` stacks whatever a folder holds, mixes series, and does not miss a slice that is missing.
    MONAI Label puts `image_path` into items; MONAI 1.6's `Spacingd` then fails on NIfTI: delete that key first.
    """

    def __init__(self, keys: KeysCollection, *, check_units: bool = True, allow_missing_keys: bool = False) -> None:
        """Set the loader.

        Args:
            keys: paths.
            check_units: refuse values that cannot be a chest CT in HU, see `check_hounsfield`.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a path that is missing, damaged, not CT, with gaps, or not in HU.
        """
        super().__init__(keys, allow_missing_keys)
        self.check_units = check_units

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its paths replaced by volumes."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._load(str(item[key]))
        return item

    def _load(self, path: str) -> MetaTensor:
        if not Path(path).exists():
            raise BadInputError(path, "there is no such file or folder", "Correct the path or the image root.")
        dicom = Path(path).is_dir() or is_dicom(path)
        try:
            values, affine = read_ct_dicom(path) if dicom else _read_nifti(path)
        except BadInputError:
            raise
        except Exception as error:  # what pydicom, nibabel and their decoders raise differs by version
            reason = f"the CT cannot be read ({type(error).__name__}: {error})"
            raise BadInputError(path, reason, "Export it again as DICOM or NIfTI.") from error
        values = values.astype(np.float32)
        if self.check_units:
            check_hounsfield(values, path)
        volume = torch.from_numpy(np.maximum(values, LOWEST_HU))[None]
        meta = {MetaKeys.SPATIAL_SHAPE: np.asarray(values.shape), MetaKeys.ORIGINAL_AFFINE: affine}
        return MetaTensor(volume, affine=torch.as_tensor(affine), meta={**meta, "filename_or_obj": path})


def read_ct_dicom(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a series folder or one slice.

    Args:
        path: folder with one series and nothing else that is DICOM, or a file.

    Returns:
        values (x, y, z) and the affine (4, 4) in RAS, mm.
    """
    files = sorted(file for file in Path(path).iterdir() if is_dicom(file)) if Path(path).is_dir() else [Path(path)]
    if not files:
        raise BadInputError(path, "the folder has no DICOM files", "Name the folder of one CT series.")
    slices = [read_dicom(file) for file in files]
    check_ct_series(slices, path)
    placed = all("ImagePositionPatient" in header for header in slices)
    slices.sort(key=_along_normal if placed else _instance_number)
    planes = [_hounsfield_plane(header) for header in slices]
    return np.stack(planes, axis=-1), _ct_affine(slices, placed)


def _instance_number(header: Dataset) -> float:
    return float(header.get("InstanceNumber", 0) or 0)


def _hounsfield_plane(header: Dataset) -> np.ndarray:
    stored = stored_pixels(header, str(getattr(header, "filename", "")))
    return stored.T.astype(np.float32) * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))


def _ct_affine(slices: Sequence[Dataset], placed: bool) -> np.ndarray:
    """Affine from (x, y, z) indices to RAS in mm (PS3.3 C.7.6.2.1.1); slices without a position are taken as axial."""
    first, last = slices[0], slices[-1]
    row_mm, column_mm = (float(v) for v in first.get("PixelSpacing", (1, 1)))
    row, column = np.reshape([float(v) for v in first.get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))], (2, 3))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * column_mm, column * row_mm
    lps[:3, 2] = np.cross(row, column) * (float(first.get("SliceThickness", 0) or 0) or 1.0)
    if placed:
        lps[:3, 3] = [float(v) for v in first.ImagePositionPatient]
    if placed and len(slices) > 1:
        lps[:3, 2] = (np.array([float(v) for v in last.ImagePositionPatient]) - lps[:3, 3]) / (len(slices) - 1)
    return np.diag([-1.0, -1, 1, 1]) @ lps


def _read_nifti(path: str) -> tuple[np.ndarray, np.ndarray]:
    reader = NibabelReader()
    values, meta = reader.get_data(reader.read(path))
    if values.ndim != 3:
        raise BadInputError(path, f"the image has shape {values.shape}, a volume has three axes", "Save one volume.")
    return values, np.asarray(meta[MetaKeys.AFFINE], dtype=float)


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
            channels = [((image - low) / (high - low)).clamp(0, 1) for low, high in self.windows_hu]
            item[key] = torch.cat(channels)
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
