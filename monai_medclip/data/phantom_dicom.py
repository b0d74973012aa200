"""The phantom on film: Digital X-Ray and CT images as DICOM objects (PS3.3 A.26 and A.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

__all__ = ["phantom_uid", "write_ct_series", "write_dx"]

_DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
_IMPLEMENTATION = generate_uid(entropy_srcs=["monai_medclip", "phantom"])
_BITS = 12
_TOP = 2**_BITS - 1
_DATE, _TIME = "20200101", "120000"  # the phantom has no history: one fixed date keeps files equal byte for byte


def phantom_uid(*names: object) -> str:
    """A UID that depends on ``names`` only."""
    return str(generate_uid(entropy_srcs=["monai_medclip phantom", *(str(name) for name in names)]))


def _dataset(path: Path, sop_class: str, sop_uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    if int(pydicom.__version__.split(".")[0]) < 3:  # pydicom 3 reads both from the transfer syntax
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_uid
    return dataset


def _study(dataset: Dataset, patient_id: str, sex: str, modality: str, study: tuple[object, ...]) -> None:
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = _TIME
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = "monai_medclip phantom"
    dataset.ManufacturerModelName = "phantom"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Generated thorax, not a person"
    dataset.PatientName = f"Phantom^{patient_id}"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = sex
    dataset.BodyPartExamined = "CHEST"
    dataset.StudyInstanceUID = phantom_uid(*study)
    dataset.SeriesInstanceUID = phantom_uid(*study, "series")
    dataset.FrameOfReferenceUID = phantom_uid(*study, "frame")
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1


def _pixels(dataset: Dataset, pixels: NDArray[np.integer], bits: int) -> None:
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


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
    dataset = _dataset(path, _DX_FOR_PRESENTATION, phantom_uid(*study, "image"))
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    _study(dataset, patient_id, sex, "DX", study)
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]  # columns run to the left, rows to the feet
    dataset.ImageLaterality = "U"
    dataset.ImagerPixelSpacing = [f"{spacing_mm:.6f}"] * 2
    dataset.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    dataset.DetectorType = "DIRECT"
    dataset.KVP = "120"
    dataset.PositionerType = "NONE"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if monochrome1 else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.WindowCenter, dataset.WindowWidth = str((_TOP + 1) // 2), str(_TOP + 1)
    dataset.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    dataset.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset.AnatomicRegionSequence = _code("51185008", "SCT", "Thorax")
    dataset.ViewCodeSequence = _code("399348003", "SCT", "postero-anterior")
    stored = np.rint(np.clip(image, 0, 1) * _TOP).astype(np.uint16)
    _pixels(dataset, _TOP - stored if monochrome1 else stored, _BITS)
    dataset.save_as(path)


def _code(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


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
        path = folder / f"{number + 1:04d}.dcm"
        dataset = _dataset(path, CTImageStorage, phantom_uid(*study, "slice", number))
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        _study(dataset, patient_id, sex, "CT", study)
        dataset.InstanceNumber = number + 1
        dataset.KVP = "120"
        dataset.AcquisitionNumber = 1
        dataset.PatientPosition = "HFS"
        dataset.PositionReferenceIndicator = ""
        dataset.SliceThickness = f"{spacing_mm[0]:.6f}"
        dataset.SpacingBetweenSlices = f"{spacing_mm[0]:.6f}"
        height = origin_mm[2] - number * spacing_mm[0]
        dataset.ImagePositionPatient = [f"{origin_mm[0]:.6f}", f"{origin_mm[1]:.6f}", f"{height:.6f}"]
        dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        dataset.PixelSpacing = [f"{spacing_mm[1]:.6f}", f"{spacing_mm[2]:.6f}"]
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
        dataset.WindowCenter, dataset.WindowWidth = ["-300", "40"], ["1400", "400"]
        dataset.PhotometricInterpretation = "MONOCHROME2"
        _pixels(dataset, np.rint(np.clip(slice_hu, -1024, 3071) + 1024).astype(np.uint16), _BITS)
        dataset.save_as(path)
