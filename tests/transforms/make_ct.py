"""Small CT series with known values and places, as single slices and as multi-frame objects, for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from .make_dicom import write_dicom

ROWS, COLUMNS = 6, 8
AXIAL = [1, 0, 0, 0, 1, 0]
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.2"


def ramp(slices: int = 4) -> np.ndarray:
    """Stored values (slices, rows, columns), 24 + 100 * slice + 10 * row + column: 1024 above their HU."""
    z, y, x = np.mgrid[:slices, :ROWS, :COLUMNS]
    return (24 + 100 * z + 10 * y + x).astype(np.int16)


def write_series(
    folder: Path, positions_mm: Sequence[Any] = (0.0, 2.5, 5.0, 7.5), *, name: str = "", **tags: Any
) -> str:
    """Slices of `ramp` in the order of their positions, z or (x, y, z), numbered from head to feet."""
    folder.mkdir(exist_ok=True)
    for number, (place, stored) in enumerate(zip(positions_mm, ramp(len(positions_mm)), strict=True)):
        header = {
            "ImagePositionPatient": [-10, -20, place] if np.isscalar(place) else list(place),
            "ImageOrientationPatient": AXIAL,
            "PixelSpacing": [0.5, 0.25],
            "InstanceNumber": len(positions_mm) - number,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "SeriesInstanceUID": "1.2.3",
        }
        write_dicom(folder / f"{name}{number}.dcm", stored, modality="CT", **{**header, **tags})
    return str(folder)


def group(**macros: dict[str, Any]) -> Dataset:
    """A functional group: one item per macro, with its attributes."""
    found = Dataset()
    for macro, attributes in macros.items():
        item = Dataset()
        for name, value in attributes.items():
            setattr(item, name, value)
        setattr(found, f"{macro}Sequence", [item])
    return found


def write_enhanced(
    path: Path,
    stored: np.ndarray,
    frames: Sequence[Dataset],
    shared: Dataset,
    *,
    sop_class: str = ENHANCED_CT,
    **tags: Any,
) -> str:
    """Stored values (frames, rows, columns) as one multi-frame object."""
    size = {"Rows": stored.shape[1], "Columns": stored.shape[2], "NumberOfFrames": len(stored)}
    header = {
        **{"SOPClassUID": sop_class, "SeriesInstanceUID": "1.2.3", "PixelData": stored.tobytes(), **size},
        **{"PerFrameFunctionalGroupsSequence": list(frames), "SharedFunctionalGroupsSequence": [shared]},
    }
    return write_dicom(path, stored[0], modality="CT", **{**header, **tags})
