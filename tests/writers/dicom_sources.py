"""Small DICOM sources whose pixels are known, and maps on their grid that equal these pixels, for the DICOM writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from pydicom.dataset import Dataset

from monai_medclip.transforms import LoadCTd, LoadRadiographd
from monai_medclip.writers import DicomStatements, Statement

from ..transforms.make_ct import group, ramp, write_enhanced, write_series
from ..transforms.make_dicom import ramp as film_ramp
from ..transforms.make_dicom import write_dicom

PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Jörg",
    "PatientID": "P-1",
    "PatientBirthDate": "19400102",
    "PatientSex": "M",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "StudyDate": "20200304",
    "StudyTime": "050607",
    "StudyID": "S1",
    "AccessionNumber": "A-77",
    "ReferringPhysicianName": "",
    "BodyPartExamined": "CHEST",
}
SERIES = "1.2.826.0.1.3680043.8.498.2"
FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.3"
COS, SIN = float(np.cos(0.35)), float(np.sin(0.35))
ORIENTATIONS = {
    "axial": [1, 0, 0, 0, 1, 0],
    "feet first, prone": [-1, 0, 0, 0, -1, 0],
    "feet first, from the feet": [-1, 0, 0, 0, 1, 0],
    "coronal": [1, 0, 0, 0, 0, -1],
    "oblique": [COS, 0, SIN, 0, 1, 0],
}
SAYS = DicomStatements(
    answers=(Statement("left pleural effusion", 1.6, 0.83),),
    method="recommended",
    model="phantom CLIP",
    model_version="0123456789ab",
    findings=(Statement("cardiomegaly", -0.2, 0.45),),
)
TWO = SAYS._replace(answers=(*SAYS.answers, Statement("nodule", -1.0, 0.27)))


def write_film(folder: Path, **tags: object) -> str:
    """A radiograph of 24 rows and 32 columns that holds 0, 1, 2, ... in reading order."""
    folder.mkdir(exist_ok=True)
    header = {**PATIENT, "SeriesInstanceUID": SERIES, "PatientOrientation": ["L", "F"], "PixelSpacing": [0.5, 0.25]}
    return write_dicom(folder / "film.dcm", film_ramp(24, 32), modality="CR", **{**header, **tags})


def places(orientation: str, slices: int = 4) -> list[list[float]]:
    """Positions of slices 2.5 mm apart along their normal."""
    row, column = np.reshape(ORIENTATIONS[orientation], (2, 3))
    steps = 2.5 * np.arange(slices)[:, None] * np.cross(row, column)
    return np.round(np.array([-10.0, -20.0, 30.0]) + steps, 6).tolist()


def write_ct(folder: Path, orientation: str = "axial", **tags: object) -> str:
    """Four CT slices of 6 rows and 8 columns in a folder."""
    header = {
        **PATIENT,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "ImageOrientationPatient": [f"{one:.9g}" for one in ORIENTATIONS[orientation]],
        "SliceThickness": 2.5,
    }
    return write_series(folder, places(orientation), **{**header, **tags})


def write_multiframe(path: Path, orientation: str = "axial") -> str:
    """The same four slices as the frames of one enhanced CT, in the order 3, 1, 4, 2."""
    order = [2, 0, 3, 1]
    positions = places(orientation)
    frames = [group(PlanePosition={"ImagePositionPatient": positions[k]}) for k in order]
    shared = group(
        PlaneOrientation={"ImageOrientationPatient": [f"{one:.9g}" for one in ORIENTATIONS[orientation]]},
        PixelMeasures={"PixelSpacing": [0.5, 0.25], "SliceThickness": 2.5},
        PixelValueTransformation={"RescaleSlope": 1, "RescaleIntercept": -1024},
    )
    header = {**PATIENT, "SeriesInstanceUID": SERIES, "FrameOfReferenceUID": FRAME_OF_REFERENCE}
    return write_enhanced(path, ramp()[order], frames, shared, **header)


def write_source(folder: Path, kind: str) -> str:
    """A source by the name that tests give it."""
    if kind == "film":
        return write_film(folder)
    if kind == "multi-frame":
        return write_multiframe(folder / "enhanced.dcm", "oblique")
    return write_ct(folder / "ct", kind)


SOURCES = ("film", *ORIENTATIONS, "multi-frame")


def own_map(path: str, scale: float = 0.01, offset: float = 0.0) -> MetaTensor:
    """A map (1, x, y[, z]) as the reader gives the image: what it says of a pixel is that pixel's value, scaled."""
    if path.endswith("film.dcm"):
        image = LoadRadiographd("image")({"image": path})["image"]
        values = torch.from_numpy(film_ramp(24, 32).T.astype(np.float32))[None]
    else:
        image = LoadCTd("image", check_units=False)({"image": path})["image"]
        values = image.as_tensor()
    return MetaTensor(values * scale + offset).copy_meta_from(image)


def pixels_of(sources: dict[str, Dataset], reference: Dataset) -> np.ndarray:
    """What a frame's reference to its source shows: pixels in the units of the reader."""
    source = sources[reference.ReferencedSOPInstanceUID]
    pixels = source.pixel_array.astype(np.float64)
    if "ReferencedFrameNumber" in reference:
        return pixels[int(reference.ReferencedFrameNumber) - 1] - 1024
    return pixels if source.Modality == "CR" else pixels - 1024
