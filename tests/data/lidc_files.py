"""LIDC-IDRI written small: reading XML as published, and one DICOM slice per series for its geometry."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_medclip.data import NODULE_CHARACTERISTICS

NEUTRAL = dict(zip(NODULE_CHARACTERISTICS, (5, 1, 6, 5, 5, 1, 1, 5, 3), strict=True))  # a solid round one, sharp
Point = tuple[int, int]


def square(column: int, row: int, half: int = 2) -> list[Point]:
    """Corners of a square outline around a pixel."""
    return [(column + dx, row + dy) for dx, dy in ((-half, -half), (half, -half), (half, half), (-half, half))]


def mark(slices: dict[float, Iterable[Point]], *, name: str = "1", inclusion: str = "TRUE", **ratings: object) -> str:
    """One reader's nodule: outlines by z in mm, and ratings other than `NEUTRAL`'s."""
    rated = "".join(f"<{key}>{value}</{key}>" for key, value in (NEUTRAL | ratings).items())
    outlines = "".join(
        f"<roi><imageZposition>{z}</imageZposition><imageSOP_UID>1.2.3</imageSOP_UID><inclusion>{inclusion}</inclusion>"
        + "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
        + "</roi>"
        for z, points in slices.items()
    )
    return (
        f"<unblindedReadNodule><noduleID>{name}</noduleID><characteristics>{rated}</characteristics>{outlines}"
        "</unblindedReadNodule>"
    )


def small_mark(name: str = "9") -> str:
    """A nodule below 3 mm: one point and no ratings."""
    point = "<edgeMap><xCoord>1</xCoord><yCoord>1</yCoord></edgeMap>"
    roi = f"<roi><imageZposition>0</imageZposition><inclusion>TRUE</inclusion>{point}</roi>"
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{roi}</unblindedReadNodule>"


def write_readings(path: Path, series: str, readers: Iterable[Iterable[str]], root: str = "LidcReadMessage") -> Path:
    """Write a reading XML: one list of marks per reader."""
    sessions = "".join(f"<readingSession>{''.join(marks)}</readingSession>" for marks in readers)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} uid="1.3.6" xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid><StudyInstanceUID>{series}.0</StudyInstanceUID>"
        f"</ResponseHeader>{sessions}</{root}>"
    )
    return path


def write_slice(folder: Path, series: str, patient: str, **header: object) -> Path:
    """Write a slice without pixels: (0.5, 0.25) mm from row to row and column to column, 2 mm thick."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    one.Modality, one.PatientID, one.SeriesInstanceUID = "CT", patient, series
    one.ImagePositionPatient, one.ImageOrientationPatient = [-10, -20, 7], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [0.5, 0.25], 2
    for name, value in header.items():
        setattr(one, name, value)
    folder.mkdir(parents=True, exist_ok=True)
    one.save_as(folder / "000001.dcm")
    return folder
