"""The DICOM images that maps belong to: their headers, their slices in order, and the grid that these span."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from monai_medclip.ct_stacks import CTStack
from monai_medclip.transforms import BadInputError, check_ct_series, choose_ct_stack, find_ct_stacks
from monai_medclip.transforms.dicom import check_radiograph, pixel_spacing, read_dicom
from monai_medclip.writers.dicom_uids import derived_uid

__all__ = ["DicomSlice", "DicomSource", "dicom_source"]

_FILM_ORIENTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_NOMINAL_THICKNESS_MM = 1.0
_UNCHECKED = threading.Lock()  # pydicom's settings belong to all threads
_IDENTIFYING = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class DicomSlice(NamedTuple):
    """One slice of the source: where its pixels are and where it lies."""

    header: int  # number in the source's headers, from 0
    frame: int | None  # number in a multi-frame object, from 1 as DICOM counts; None in an object of one frame
    position_mm: tuple[float, ...]  # LPS (x, y, z), center of the first pixel


class DicomSource(NamedTuple):
    """A radiograph or a CT stack as results refer to it; pixels stay on disk.

    A radiograph has no place in the patient. Viewers show maps of it only with one, so it gets a nominal place here, in
    memory: rows along x, columns along y, from the origin; its files stay as they are.
    """

    path: str
    headers: tuple[Dataset, ...]  # of each file once, in the order of the slices; text as Unicode
    slices: tuple[DicomSlice, ...]  # along the normal; one for a radiograph
    affine: NDArray[np.float64]  # (4, 4), from (column, row, slice) indices to RAS in mm
    orientation: tuple[float, ...]  # LPS direction along a row, then along a column
    pixel_mm: tuple[float, float]  # from row to row, from column to column
    thickness_mm: float  # positive; nominal where the source does not say
    frame_of_reference_uid: str  # the source's; derived from its own UIDs where it has none
    stack: CTStack | None  # None: a radiograph

    @property
    def grid(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        return int(self.headers[0].Columns), int(self.headers[0].Rows), len(self.slices)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (x, y[, z]) of one map: two axes for a radiograph."""
        return self.grid if self.stack else self.grid[:2]

    @property
    def slice_spacing_mm(self) -> float | None:
        """Distance of slices along their normal; ``None`` for a single one."""
        if len(self.slices) < 2:
            return None
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        along = [float(np.dot(normal, one.position_mm)) for one in (self.slices[0], self.slices[-1])]
        return (along[1] - along[0]) / (len(self.slices) - 1)


def dicom_source(path: str | Path, *, series: Sequence[str] = ()) -> DicomSource:
    """Read the headers of what maps belong to.

    Args:
        path: a radiograph's file, a CT slice, a multi-frame CT, or a folder with a CT series.
        series: which stack of a folder is meant, as `LoadCTd` takes it: UIDs or rules, applied in turn.

    Raises:
        BadInputError: neither a radiograph nor one gapless CT stack, or the headers lack the UIDs to refer to.
    """
    path = Path(path)
    if not path.exists():
        raise BadInputError(path, "there is no such file or folder", "Name a DICOM file or the folder of a CT series.")
    if path.is_file():
        header = _header(path)
        if str(header.get("Modality", "") or "CT").upper() != "CT":
            check_radiograph(header, path)
            return _radiograph(header, path)
    stack = choose_ct_stack(find_ct_stacks(path), series, path)
    check_ct_series(stack, path)
    return _volume(stack, path)


def _header(path: str | Path) -> Dataset:
    header = read_dicom(path, header_only=True)
    missing = [tag for tag in _IDENTIFYING if not header.get(tag)]
    if missing:
        reason = f"the header has no {' and no '.join(missing)}"
        raise BadInputError(path, reason, "Results cannot refer to it: export the image from the archive.")
    with _UNCHECKED, disable_value_validation():  # pydicom logs the values that it finds odd: a birth date, for one
        header.decode()  # results are written in Unicode, whatever ISO_IR the source has
    return header


def _radiograph(header: Dataset, path: Path) -> DicomSource:
    spacing = pixel_spacing(header)
    frame_of_reference = header.get("FrameOfReferenceUID") or derived_uid("frame of reference", header.SOPInstanceUID)
    return DicomSource(
        path=str(path),
        headers=(header,),
        slices=(DicomSlice(0, None, (0.0, 0.0, 0.0)),),
        affine=np.diag([-spacing.column_mm, -spacing.row_mm, _NOMINAL_THICKNESS_MM, 1.0]),
        orientation=_FILM_ORIENTATION,
        pixel_mm=(spacing.row_mm, spacing.column_mm),
        thickness_mm=_NOMINAL_THICKNESS_MM,
        frame_of_reference_uid=str(frame_of_reference),
        stack=None,
    )


def _volume(stack: CTStack, path: Path) -> DicomSource:
    headers = tuple(_header(file) for file in stack.files)
    number = {file: index for index, file in enumerate(stack.files)}
    affine, slices = stack.affine, []
    for index, frame in enumerate(stack.frames):
        on_line = np.diag([-1.0, -1.0, 1.0]) @ (affine[:3, 3] + index * affine[:3, 2])  # RAS to LPS
        position = frame.position_mm if stack.placed and frame.position_mm else tuple(on_line.tolist())
        multi_frame = "NumberOfFrames" in headers[number[frame.file]]
        slices.append(DicomSlice(number[frame.file], frame.frame + 1 if multi_frame else None, position))
    frame_of_reference = headers[0].get("FrameOfReferenceUID") or derived_uid("frame of reference", stack.uid)
    source = DicomSource(
        path=str(path),
        headers=headers,
        slices=tuple(slices),
        affine=affine,
        orientation=stack.frames[0].orientation,
        pixel_mm=stack.frames[0].pixel_mm,
        thickness_mm=stack.thickness_mm,
        frame_of_reference_uid=str(frame_of_reference),
        stack=stack,
    )
    return source._replace(thickness_mm=stack.thickness_mm or source.slice_spacing_mm or _NOMINAL_THICKNESS_MM)
