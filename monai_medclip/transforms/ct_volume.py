"""One CT becomes an array of Hounsfield units and an affine: from DICOM slices or frames, or from NIfTI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from monai.data import NibabelReader
from numpy.typing import NDArray

from monai_medclip.ct_stacks import CTFrame, CTStack
from monai_medclip.transforms.dicom import padded_pixels, read_dicom, stored_pixels
from monai_medclip.transforms.rejects import BadInputError

__all__ = ["CTVolume", "StoredUnits", "read_ct_nifti", "read_ct_stack", "stored_units"]

PADDING_HU = -2000.0  # what padding becomes here: `padding_mask` knows it, and no tissue reaches it


class CTVolume(NamedTuple):
    """A CT in memory."""

    hu: NDArray[np.float32]  # (x, y, z), HU; padding at -2000 or wherever the file has it
    affine: NDArray[np.float64]  # (4, 4), indices to RAS in mm


def read_ct_stack(stack: CTStack) -> CTVolume:
    """Read the pixels of a stack, each file once, into one array.

    Every slice has its own slope and intercept; pixel padding, wherever it would lie in HU, becomes -2000.

    Raises:
        BadInputError: a file has no pixels, or none that can be decoded.
    """
    rows, columns = stack.frames[0].shape
    volume = np.empty((stack.slices, rows, columns), np.float32)
    places: dict[str, list[int]] = {}
    for z, frame in enumerate(stack.frames):
        places.setdefault(frame.file, []).append(z)
    for file, slices in places.items():
        _read_into(volume, {z: stack.frames[z] for z in slices}, file)
    return CTVolume(volume.transpose(2, 1, 0), stack.affine)


def _read_into(volume: NDArray[np.float32], frames: Mapping[int, CTFrame], file: str) -> None:
    """Fill the slices (z, y, x) that one file holds."""
    dataset = read_dicom(file)
    stored = stored_pixels(dataset, file).reshape(-1, *volume.shape[1:])
    del dataset.PixelData  # a multi-frame object has the whole volume in there
    for z, frame in frames.items():
        plane = stored[frame.frame]
        volume[z] = plane
        volume[z] *= frame.slope
        volume[z] += frame.intercept
        volume[z][np.broadcast_to(padded_pixels(plane, dataset), plane.shape)] = PADDING_HU


class StoredUnits(NamedTuple):
    """What a NIfTI file without rescale and spacing lacks: CT-RATE's first release keeps both in a table."""

    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float]  # x, y, z


def stored_units(meta: Mapping[str, Any], name: str) -> StoredUnits | None:
    """What an item's ``meta`` says about stored values.

    Args:
        meta: with ``in_hounsfield`` = 0, and then ``rescale_slope``, ``rescale_intercept`` and ``spacing_mm`` = [x, y,
            z], as `read_ct_rate` of the first release gives them.
        name: the item's name, for the message.

    Returns:
        slope, intercept and spacing; ``None`` where ``in_hounsfield`` is absent or 1.

    Raises:
        BadInputError: ``in_hounsfield`` is neither 0 nor 1, or it is 0 and one of the others is missing.
    """
    told = meta.get("in_hounsfield", 1)
    if str(told) not in ("0", "1", "0.0", "1.0", "False", "True"):
        raise BadInputError(name, f"meta.in_hounsfield is {told!r}", "Set it to 1 (values in HU) or 0 (stored values).")
    if str(told) in ("1", "1.0", "True"):
        return None
    try:
        x_mm, y_mm, z_mm = (float(step) for step in meta["spacing_mm"])
        return StoredUnits(float(meta["rescale_slope"]), float(meta["rescale_intercept"]), (x_mm, y_mm, z_mm))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"meta.in_hounsfield is 0, but its rescale or spacing cannot be used ({type(error).__name__}: {error})"
        remedy = "Give meta.rescale_slope, meta.rescale_intercept and meta.spacing_mm = [x, y, z]."
        raise BadInputError(name, reason, remedy) from error


def read_ct_nifti(path: str, stored: StoredUnits | None = None) -> CTVolume:
    """Read a NIfTI file.

    Args:
        path: the file.
        stored: applied, once, to a file whose header is still as empty as it came. One that has this spacing already
            was rewritten with the authors' script, which rescales too, and is left as it is.

    Returns:
        the values and the affine; with `stored`, x runs to the patient's left, y to the back, z to the head, as that
        script places an axial scan.

    Raises:
        BadInputError: the image does not have three axes.
    """
    image = NibabelReader().read(path, mmap=False)
    if len(image.shape) != 3:
        raise BadInputError(path, f"the image has shape {image.shape}, a volume has three axes", "Save one volume.")
    values = np.require(image.get_fdata(dtype=np.float32, caching="unchanged"), requirements="W")
    affine = np.asarray(image.affine, dtype=float)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if stored is None or np.allclose(spacing_mm, stored.spacing_mm, rtol=0, atol=1e-3):
        return CTVolume(values, affine)
    values *= stored.slope
    values += stored.intercept
    x_mm, y_mm, z_mm = stored.spacing_mm
    return CTVolume(values, np.diag([-x_mm, -y_mm, z_mm, 1.0]))
