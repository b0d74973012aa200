"""The phantom on film: Digital X-Ray and CT images as DICOM objects (PS3.3 A.26 and A.3)."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

__all__ = ["phantom_uid", "write_ct_series", "write_dx"]

_DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
_IMPLEMENTATION = generate_uid(entropy_srcs=["monai_medclip", "phantom"])
_BITS = 12
_TOP = 2**_BITS - 1
_HU_RANGE = (-1024, 3071)
_DATE, _TIME = "20200101", "120000"  # the phantom has no history: one fixed date keeps files equal byte for byte


class _Who(NamedTuple):
    patient_id: str
    sex: str
    study: tuple[object, ...]


def phantom_uid(*names: object) -> str:
    """A UID that depends on ``names`` only."""
    return str(generate_uid(entropy_srcs=["monai_medclip phantom", *(str(name) for name in names)]))


def _static(sop_class: str, modality: str) -> Dataset:
    """What all images of a kind share."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(dataset, name, _DATE)
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(dataset, name, _TIME)
    dataset.AccessionNumber = dataset.ReferringPhysicianName = dataset.PatientBirthDate = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "monai_medclip", "phantom"
    dataset.StudyDescription = "Generated thorax, not a person"
    dataset.BodyPartExamined = "CHEST"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.KVP = "120"
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, _BITS, _BITS - 1
    dataset.PixelRepresentation = 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope = "1"
    return dataset


@lru_cache(maxsize=1)
def _dx_template() -> bytes:
    dataset = _static(_DX_FOR_PRESENTATION, "DX")
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]  # columns run to the left, rows to the feet
    dataset.ImageLaterality = "U"
    dataset.DetectorType = "DIRECT"
    dataset.PositionerType = "NONE"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept, dataset.RescaleType = "0", "US"
    dataset.WindowCenter, dataset.WindowWidth = str((_TOP + 1) // 2), str(_TOP + 1)
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AnatomicRegionSequence = _code("51185008", "SCT", "Thorax")
    dataset.ViewCodeSequence = _code("399348003", "SCT", "postero-anterior")
    return _encode(dataset)


@lru_cache(maxsize=1)
def _ct_template() -> bytes:
    dataset = _static(CTImageStorage, "CT")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber = 1
    dataset.PatientPosition = "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.RescaleIntercept, dataset.RescaleType = "-1024", "HU"
    dataset.WindowCenter, dataset.WindowWidth = ["-300", "40"], ["1400", "400"]
    return _encode(dataset)


def _encode(dataset: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    return bytes(stream.getvalue())


def _from_template(template: bytes, who: _Who, sop_uid: str) -> FileDataset:
    """A dataset whose shared elements stay encoded: building sixty elements anew costs more than the picture."""
    shared = read_dataset(BytesIO(template), is_implicit_VR=False, is_little_endian=True)
    sop_class = str(shared.SOPClassUID)
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    dataset = FileDataset("phantom", shared, file_meta=meta, preamble=b"\0" * 128)
    dataset.set_original_encoding(False, True, convert_encodings(shared.SpecificCharacterSet))
    if int(pydicom.__version__.split(".")[0]) < 3:  # pydicom 3 reads both from the transfer syntax
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SOPInstanceUID = sop_uid
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = f"Phantom^{who.patient_id}", who.patient_id, who.sex
    dataset.StudyInstanceUID = phantom_uid(*who.study)
    dataset.SeriesInstanceUID = phantom_uid(*who.study, "series")
    dataset.FrameOfReferenceUID = phantom_uid(*who.study, "frame")
    return dataset


def _set_pixels(dataset: Dataset, pixels: NDArray[np.uint16]) -> None:
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def write_dx(
    path: Path,
    image: NDArray[np.float32],
    *,
    patient_id: str,
    sex: str,
    spacing_mm: float,
    study: tuple[object, ...],
    monochrome1: bool = False,
) -> None:
    """Write a frontal radiograph for presentation, 12 bits in 16.

    Args:
        path: the file.
        image: (rows, columns) in [0, 1], bright is dense, column 0 = the patient's right.
        patient_id: PatientID.
        sex: ``F`` or ``M``.
        spacing_mm: mm per pixel.
        study: what the UIDs depend on.
        monochrome1: store bone dark and say so, as some detectors do.
    """
    dataset = _from_template(_dx_template(), _Who(patient_id, sex, study), phantom_uid(*study, "image"))
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    stored = np.rint(np.clip(image, 0, 1) * _TOP).astype(np.uint16)
    if monochrome1:
        stored = _TOP - stored
        dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME1", "INVERSE"
        dataset.PixelIntensityRelationshipSign = 1
    _set_pixels(dataset, stored)
    dataset.save_as(path)


def write_ct_series(
    folder: Path,
    volume_hu: NDArray[np.float32],
    *,
    patient_id: str,
    sex: str,
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
    study: tuple[object, ...],
) -> None:
    """Write an axial CT, one file per slice, head first.

    Args:
        folder: made if absent; files ``0001.dcm``, ...
        volume_hu: (slices, rows, columns) HU; slice 0 nearest the head, row 0 = front, column 0 = the patient's right.
        patient_id: PatientID.
        sex: ``F`` or ``M``.
        spacing_mm: (between slices, between rows, between columns).
        origin_mm: (x, y, z) of the first voxel in DICOM patient coordinates (left, back, head).
        study: what the UIDs depend on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, slice_hu in enumerate(volume_hu):
        uid = phantom_uid(*study, "slice", number)
        dataset = _from_template(_ct_template(), _Who(patient_id, sex, study), uid)
        dataset.InstanceNumber = number + 1
        dataset.SliceThickness = dataset.SpacingBetweenSlices = f"{spacing_mm[0]:.6f}"
        height = origin_mm[2] - number * spacing_mm[0]
        dataset.ImagePositionPatient = [f"{origin_mm[0]:.6f}", f"{origin_mm[1]:.6f}", f"{height:.6f}"]
        dataset.PixelSpacing = [f"{spacing_mm[1]:.6f}", f"{spacing_mm[2]:.6f}"]
        _set_pixels(dataset, np.rint(np.clip(slice_hu, *_HU_RANGE) + 1024).astype(np.uint16))
        dataset.save_as(folder / f"{number + 1:04d}.dcm")
