"""Files that viewers load over an image: bands and raw maps as NRRD, on the grid of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray

__all__ = ["EXTENSIONS", "write_nrrd", "write_segments"]

EXTENSIONS = (".nrrd", ".seg.nrrd")
_COMPRESSION = 1  # bands are mostly zeros, raw maps hardly shrink: more of it costs time for few bytes

Array = NDArray[Any]


def write_nrrd(path: str | Path, values: Array, affine_ras: Array, *, fields: Mapping[str, str] | None = None) -> Path:
    """Write a volume that every ITK reader places as the image lies, sheared grids of tilted gantries included.

    Args:
        path: the file.
        values: (x, y, z), or (S, x, y, z) with S values a voxel; a film has z = 1.
        affine_ras: (4, 4) from indices to RAS in mm.
        fields: further header fields.

    Returns:
        The path.
    """
    directions = _directions(affine_ras)
    listed = values.ndim == 4
    header = {
        "space": "left-posterior-superior",
        "space origin": orientation_ras_lps(affine_ras)[:3, 3],
        "space directions": np.vstack([np.full((1, 3), np.nan), directions]) if listed else directions,
        "kinds": [*(["list"] if listed else []), "domain", "domain", "domain"],
        "encoding": "gzip",
        "endian": "little",
        **(fields or {}),
    }
    nrrd.write(str(path), values, header, compression_level=_COMPRESSION)
    return Path(path)


def write_segments(
    path: str | Path, labels: Array, affine_ras: Array, names: Sequence[str], colors: Sequence[Sequence[float]]
) -> Path:
    """Write labels 1 to K as a ``.seg.nrrd``, in which 3D Slicer finds names and colors.

    Args:
        path: the file.
        labels: (x, y, z) uint8.
        affine_ras: as for `write_nrrd`.
        names: K names.
        colors: K times red, green, blue from 0 to 1.
    """
    x, y, z = labels.shape
    fields: dict[str, str] = {}
    for number, (name, color) in enumerate(zip(names, colors, strict=True)):
        fields |= {
            f"Segment{number}_ID": f"Segment_{number + 1}",
            f"Segment{number}_Name": name,
            f"Segment{number}_Color": " ".join(f"{part:.6f}" for part in color),
            f"Segment{number}_LabelValue": str(number + 1),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": f"0 {x - 1} 0 {y - 1} 0 {z - 1}",
        }
    return write_nrrd(path, labels, affine_ras, fields=fields)


def _directions(affine_ras: Array) -> Array:
    """One row per axis: the step in LPS mm; the third axis of a film is no step of the image, so it is made one."""
    lps = orientation_ras_lps(affine_ras)[:3, :3].T
    if np.linalg.matrix_rank(lps) < 3:
        lps[2] = np.cross(lps[0], lps[1])
        lps[2] /= np.linalg.norm(lps[2])
    return lps
