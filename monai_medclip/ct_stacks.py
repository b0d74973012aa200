"""Which CT slices under a folder make one volume, read from DICOM headers alone, for every room that asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from tqdm import tqdm

__all__ = ["CTFrame", "CTScan", "CTStack", "scan_ct"]

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_MACROS = {  # where a multi-frame object keeps what a slice has at its root (PS3.3 C.7.6.16 and C.8.15.3)
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
}
# Legacy converted objects put there what has no macro of its own (PS3.3 C.7.6.16.2.25 and C.7.6.16.2.26).
_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")
_AT_ROOT = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality", "ImageType"),
    *("SeriesDescription", "Manufacturer", "Rows", "Columns", "NumberOfFrames", "InstanceNumber", "AcquisitionNumber"),
    *("TemporalPositionIdentifier", "ConcatenationUID", "InConcatenationTotalNumber"),
)
_TAGS = [*_AT_ROOT, *_GROUPS, *_MACROS]
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_SAME_GEOMETRY = 1e-3  # direction cosines and mm; slices of one stack differ by rounding alone
_SAME_PLACE_MM = 0.01


class CTFrame(NamedTuple):
    """One slice: where its pixels are, where it lies in the patient, and how its values become HU."""

    file: str
    frame: int  # number in the file, from 0
    number: int  # InstanceNumber, or the frame's number; 0 if unknown
    shape: tuple[int, int]  # rows, columns
    position_mm: tuple[float, ...] | None  # LPS, center of the first pixel
    orientation: tuple[float, ...]  # LPS direction along a row, then along a column
    pixel_mm: tuple[float, float]  # from row to row, from column to column
    thickness_mm: float  # 0 if unknown
    kernel: str
    stack_id: str  # of a multi-frame object
    temporal: str
    acquisition: str
    slope: float
    intercept: float
    rescale_type: str

    @property
    def along_normal_mm(self) -> float:
        """Position along the slice's normal (PS3.3 C.7.6.2.1.1); 0 without a position."""
        return float(np.dot(_normal(self.orientation), self.position_mm or (0.0, 0.0, 0.0)))


class CTStack(NamedTuple):
    """Slices of one series with one kernel, orientation and grid, each place once: one volume, if none is missing."""

    uid: str  # SeriesInstanceUID; with _1, _2, ... where the series holds several stacks
    series_uid: str
    study_uid: str
    patient_id: str
    description: str
    manufacturer: str
    frames: tuple[CTFrame, ...]  # along the normal; by number where a slice has no position

    @property
    def kernel(self) -> str:
        """ConvolutionKernel; empty if unknown."""
        return self.frames[0].kernel

    @property
    def thickness_mm(self) -> float:
        """SliceThickness; 0 if unknown."""
        return self.frames[0].thickness_mm

    @property
    def slices(self) -> int:
        """Their number."""
        return len(self.frames)

    @property
    def files(self) -> tuple[str, ...]:
        """Each file once, in the order of the slices."""
        return tuple(dict.fromkeys(frame.file for frame in self.frames))

    @property
    def placed(self) -> bool:
        """Whether every slice says where it lies."""
        return all(frame.position_mm is not None for frame in self.frames)

    @property
    def affine(self) -> NDArray[np.float64]:
        """From (column, row, slice) indices to RAS in mm, (4, 4); sheared where the gantry was tilted.

        Slices without positions count as axial, one thickness apart, from the origin.
        """
        first, last = self.frames[0], self.frames[-1]
        lps = np.eye(4)
        row, column = np.reshape(first.orientation, (2, 3))
        lps[:3, 0], lps[:3, 1] = row * first.pixel_mm[1], column * first.pixel_mm[0]
        lps[:3, 2] = _normal(first.orientation) * (first.thickness_mm or 1.0)
        if first.position_mm is not None and last.position_mm is not None and self.placed:
            lps[:3, 3] = first.position_mm
            if len(self.frames) > 1:
                lps[:3, 2] = (np.array(last.position_mm) - first.position_mm) / (len(self.frames) - 1)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between columns, rows and slices."""
        x_mm, y_mm, z_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x_mm), float(y_mm), float(z_mm)


class CTScan(NamedTuple):
    """What `scan_ct` found."""

    stacks: tuple[CTStack, ...]  # by uid
    left_out: dict[str, int]  # other objects: Modality or what else they are -> how many
    refused: dict[str, str]  # damaged files and parts of concatenations -> the reason


def scan_ct(path: str | Path, *, progress: bool = False) -> CTScan:
    """Sort the CT slices of a folder into stacks, by their headers; pixels stay on disk.

    A stack has one SeriesInstanceUID, ConvolutionKernel, ImageOrientationPatient, grid, and, in multi-frame objects,
    StackID. Where places repeat, the series is taken apart by temporal position, else acquisition number, else both; if
    they repeat still, it stays one stack, which `LoadCTd` refuses. Copies (one SOPInstanceUID) are read once.

    Args:
        path: a file, or a folder, searched with its subfolders; hidden files and what is not DICOM are passed over.
        progress: whether to show a progress bar.

    Returns:
        The stacks; counts of localizers, copies and objects that are no CT; and damaged files and parts of
        concatenations, with the reason.

    References:
        DICOM PS3.3 C.8.2.1 (CT Image), C.8.15 (Enhanced CT), C.7.6.16 (Multi-frame Functional Groups)
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("[!.]*"))
    left_out: Counter[str] = Counter()
    refused: dict[str, str] = {}
    series: dict[str, tuple[Dataset, list[CTFrame]]] = {}  # with the header of its first file
    seen: set[tuple[str, str]] = set()
    for file in tqdm([file for file in files if file.is_file()], "Reading CT headers", disable=not progress):
        try:
            header = _header(file)
            if header is None or (kind := _other(header)):
                left_out.update([] if header is None else [kind])
                continue
            uid, instance = str(header.get("SeriesInstanceUID", "")), str(header.get("SOPInstanceUID", ""))
            if instance and (uid, instance) in seen:
                left_out["copy of another file"] += 1
                continue
            frames = list(_frames(header, str(file)))
        except Exception as error:  # what pydicom raises depends on where a file was cut
            refused[str(file)] = f"unusable header: {str(error) or type(error).__name__}"
            continue
        seen.add((uid, instance))
        slices = [frame for frame in frames if frame is not None]
        left_out.update(["localizer"] * (len(frames) - len(slices)))
        series.setdefault(uid, (header, []))[1].extend(slices)
    stacks = tuple(stack for uid in sorted(series) for stack in _stacks(uid, *series[uid]))
    return CTScan(stacks, dict(left_out), refused)


def _header(file: Path) -> Dataset | None:
    """The header; ``None`` for what is not DICOM and does not claim to be."""
    try:
        return pydicom.dcmread(str(file), stop_before_pixels=True, specific_tags=_TAGS)
    except InvalidDicomError as error:
        if file.suffix.lower() in (".dcm", ".dicom"):
            raise ValueError("not a DICOM file: no DICM prefix") from error
        return None


def _other(header: Dataset) -> str:
    """What an object is that holds no CT slice; empty for one that does. Minimal headers may leave Modality out."""
    modality = str(header.get("Modality", "") or "CT").upper()
    if modality != "CT":
        return f"Modality {modality}"
    if "Rows" not in header:
        return "no image"
    sop_class = str(header.get("SOPClassUID", "") or CT_CLASSES[0])
    return "" if sop_class in CT_CLASSES else str(UID(sop_class).name)


def _frames(header: Dataset, file: str) -> Iterator[CTFrame | None]:
    """The frames of one object; ``None`` for a localizer."""
    parts = int(header.get("InConcatenationTotalNumber", 0) or 0)
    if header.get("ConcatenationUID") and parts != 1:
        raise ValueError(f"one of {parts or 'several'} parts of a concatenation: export it as one object")
    frames = int(header.get("NumberOfFrames", 1) or 1)
    per_frame: list[tuple[Dataset, ...]] = [(group,) for group in header.get(_GROUPS[0]) or ()]
    per_frame = per_frame or [()] * (frames == 1)
    shared = tuple(header.get(_GROUPS[1]) or ())
    if len(per_frame) != frames:
        raise ValueError(f"{frames} frames, but functional groups for {len(per_frame)}")
    for index, group in enumerate(per_frame):
        frame = _Attributes(header, (*group, *shared))
        kinds = {str(kind).upper() for tag in ("ImageType", "FrameType") for kind in _values(frame.get(tag))}
        yield None if "LOCALIZER" in kinds else _frame(frame, file, index)


class _Attributes(NamedTuple):
    """A frame's attributes, wherever its object keeps them."""

    header: Dataset
    groups: tuple[Dataset, ...]  # functional groups, the frame's own first; none in a classic object

    def get(self, attribute: str) -> Any:
        """The frame's own value, else the one it shares, else the object's; ``None`` without any."""
        for sequence in (_MACROS.get(attribute, _CONVERTED[0]), *_CONVERTED) if self.groups else ():
            for group in self.groups:
                items = group.get(sequence)
                if items and items[0].get(attribute) not in (None, ""):
                    return items[0].get(attribute)
        value = self.header.get(attribute)
        return None if value == "" else value

    def first(self, *attributes: str) -> str:
        """The first of several attributes that has a value, as text; empty without any."""
        return next((str(value) for value in map(self.get, attributes) if value is not None), "")

    def number(self, attribute: str, default: float) -> float:
        """A number."""
        value = self.get(attribute)
        return default if value is None else float(value)

    def numbers(self, attribute: str, count: int) -> tuple[float, ...]:
        """So many numbers, or none."""
        found = tuple(float(one) for one in _values(self.get(attribute)))
        if len(found) not in (0, count):
            raise ValueError(f"{attribute} has {len(found)} values, not {count}")
        return found


def _frame(frame: _Attributes, file: str, index: int) -> CTFrame:
    row_mm, column_mm = frame.numbers("PixelSpacing", 2) or (1.0, 1.0)
    if min(row_mm, column_mm) <= 0:
        raise ValueError(f"PixelSpacing is {row_mm} and {column_mm} mm: it must be positive")
    return CTFrame(
        file=file,
        frame=index,
        number=int(frame.number("InStackPositionNumber", 0) or index + frame.number("InstanceNumber", 0)),
        shape=(int(frame.header.Rows), int(frame.header.Columns)),
        position_mm=frame.numbers("ImagePositionPatient", 3) or None,
        orientation=frame.numbers("ImageOrientationPatient", 6) or _AXIAL,
        pixel_mm=(row_mm, column_mm),
        thickness_mm=frame.number("SliceThickness", 0.0),
        kernel="\\".join(str(part) for part in _values(frame.get("ConvolutionKernel"))),
        stack_id=frame.first("StackID"),
        temporal=frame.first("TemporalPositionIndex", "TemporalPositionIdentifier"),
        acquisition=frame.first("FrameAcquisitionNumber", "AcquisitionNumber"),
        slope=frame.number("RescaleSlope", 1.0),
        intercept=frame.number("RescaleIntercept", 0.0),
        rescale_type=frame.first("RescaleType"),
    )


def _values(value: Any) -> Sequence[Any]:
    """The values of an attribute with one, several or none."""
    return () if value is None else [value] if isinstance(value, str | float | int) else list(value)


def _normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:])


def _stacks(uid: str, header: Dataset, frames: Sequence[CTFrame]) -> Iterator[CTStack]:
    """The stacks of one series, in an order that does not depend on the files' names."""
    parts = [part for grid in _by_geometry(frames) for part in _by_time(grid)]
    parts.sort(key=lambda part: (part[0].kernel, part[0].stack_id, part[0].orientation, _time(part[0]), len(part)))
    for number, part in enumerate(parts, start=1):
        placed = all(frame.position_mm is not None for frame in part)
        yield CTStack(
            uid=uid if len(parts) == 1 else f"{uid}_{number}",
            series_uid=uid,
            study_uid=str(header.get("StudyInstanceUID", "")),
            patient_id=str(header.get("PatientID", "") or ""),
            description=str(header.get("SeriesDescription", "") or ""),
            manufacturer=str(header.get("Manufacturer", "") or ""),
            frames=tuple(sorted(part, key=lambda frame: frame.along_normal_mm if placed else frame.number)),
        )


def _by_geometry(frames: Iterable[CTFrame]) -> Iterable[list[CTFrame]]:
    grids: list[tuple[float, ...]] = []
    parts: dict[tuple[Any, ...], list[CTFrame]] = {}
    for frame in frames:
        grid = (*frame.orientation, *frame.pixel_mm)
        known = (n for n, other in enumerate(grids) if np.allclose(grid, other, rtol=0, atol=_SAME_GEOMETRY))
        number = next(known, len(grids))
        if number == len(grids):
            grids.append(grid)
        parts.setdefault((frame.kernel, frame.shape, frame.stack_id, number), []).append(frame)
    return parts.values()


def _time(frame: CTFrame) -> tuple[str, str]:
    return frame.temporal, frame.acquisition


def _by_time(frames: list[CTFrame]) -> Iterable[list[CTFrame]]:
    """Phases of a scan that visits its places more than once."""
    if not _repeats(frames):
        return [frames]
    for key in (lambda frame: frame.temporal, lambda frame: frame.acquisition, _time):
        parts: dict[Any, list[CTFrame]] = {}
        for frame in frames:
            parts.setdefault(key(frame), []).append(frame)
        if not any(_repeats(part) for part in parts.values()):
            return parts.values()
    return [frames]


def _repeats(frames: Iterable[CTFrame]) -> bool:
    places = sorted(frame.along_normal_mm for frame in frames if frame.position_mm is not None)
    return any(after - before < _SAME_PLACE_MM for before, after in pairwise(places))
