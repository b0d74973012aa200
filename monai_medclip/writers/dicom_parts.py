"""What all DICOM results share: patient and study of the source, who made them, and references back to it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from pydicom.valuerep import format_number_as_ds

from monai_medclip import __version__
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.dicom_statements import DicomStatements, short
from monai_medclip.writers.dicom_uids import derived_uid

__all__ = [
    "MANUFACTURER",
    "NewObject",
    "code_item",
    "finish",
    "highdicom",
    "instance_header",
    "pixel_measures",
    "refer_to_source",
    "slice_headers",
]

MANUFACTURER = "monai_medclip"
PRIVATE_SCHEME = "99MEDCLIP"

SALIENCY = Code("130404", "DCM", "Saliency")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
NO_UNITS = Code("1", "UCUM", "no units")
UNSPECIFIED_METHOD = Code("112187", "DCM", "Unspecified method of calculation")
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")

# What a result has in common with its source (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.2.3). The first ones are
# required, empty where the source does not say.
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_COPIED = (
    *("IssuerOfPatientID", "OtherPatientIDsSequence", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyDescription", "IssuerOfAccessionNumberSequence"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription"),
)
_LOSSY_METHODS = {  # of a compressed source that does not name its method, by transfer syntax (PS3.3 C.7.6.1.1.5.1)
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}


def highdicom() -> Any:
    """The library that builds the objects.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module("highdicom")
    except ModuleNotFoundError as error:
        remedy = 'DICOM results need highdicom: pip install "monai-medclip[highdicom]"'
        raise ImportError(remedy) from error


class NewObject(NamedTuple):
    """The identity of one result."""

    series_description: str
    series_number: int
    series_uid: str
    sop_uid: str

    @classmethod
    def of(cls, source: DicomSource, description: str, number: int, made_from: Sequence[object]) -> NewObject:
        """An object in a series of its own, whose UIDs depend on the source and on `made_from` only."""
        origin = [one.SOPInstanceUID for one in source.headers]
        series_uid = derived_uid("series", *origin, *made_from)
        return cls(description, number, series_uid, derived_uid("instance", *origin, *made_from))

    def arguments(self, says: DicomStatements) -> dict[str, Any]:
        """What every constructor of highdicom that makes images wants to know."""
        return {
            "series_instance_uid": self.series_uid,
            "series_number": self.series_number,
            "sop_instance_uid": self.sop_uid,
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": short(says.model),
            "software_versions": [short(says.model_version), f"{MANUFACTURER} {__version__}"],
            "device_serial_number": short(says.model_version),
        }


def instance_header(header: Dataset, **others: object) -> Dataset:
    """A header with the source's UIDs and no patient, for highdicom: it refuses or logs names it thinks odd.

    `finish` puts in patient and study as they are.
    """
    blank = Dataset()
    for tag in _REQUIRED:
        setattr(blank, tag, None)
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        setattr(blank, tag, header.get(tag))
    for tag, value in others.items():
        setattr(blank, tag, value)
    return blank


def slice_headers(source: DicomSource) -> list[Dataset]:
    """One single-frame header per slice with its place, whatever the source is: film, classic or multi-frame CT."""
    return [
        instance_header(
            source.headers[one.header],
            SOPClassUID=CTImageStorage,
            SOPInstanceUID=derived_uid("slice", source.headers[one.header].SOPInstanceUID, one.frame),
            FrameOfReferenceUID=source.frame_of_reference_uid,
            PositionReferenceIndicator=source.headers[one.header].get("PositionReferenceIndicator"),
            Rows=source.grid[1],
            Columns=source.grid[0],
            ImagePositionPatient=_decimals(one.position_mm),
            ImageOrientationPatient=_decimals(source.orientation),
            PixelSpacing=_decimals(source.pixel_mm),
            SliceThickness=_decimals([source.thickness_mm])[0],
        )
        for one in source.slices
    ]


def pixel_measures(source: DicomSource) -> Any:
    """Spacing and thickness, as highdicom wants them; of the whole stack, also where only some slices are written."""
    spacing_mm = source.slice_spacing_mm
    row_mm, column_mm, thickness_mm = map(float, _decimals([*source.pixel_mm, source.thickness_mm]))
    return highdicom().PixelMeasuresSequence(
        pixel_spacing=(row_mm, column_mm),
        slice_thickness=thickness_mm,
        spacing_between_slices=None if spacing_mm is None else float(_decimals([spacing_mm])[0]),
    )


def finish(dataset: Dataset, source: DicomSource, new: NewObject, says: DicomStatements, *, purpose: str) -> Dataset:
    """Patient, study, description, equipment and references to the source, on an object that highdicom has built.

    Args:
        dataset: the object; changed.
        source: what it was made from.
        new: its identity.
        says: who made it.
        purpose: what was done, for people who open the header.

    Returns:
        the same object.
    """
    header = source.headers[0]
    for tag in (*_REQUIRED, *_COPIED):
        if header.get(tag) not in (None, ""):
            dataset[tag] = deepcopy(header[tag])  # as it is: a value set anew would be checked, and shown in a warning
        elif tag in _REQUIRED:
            setattr(dataset, tag, None)
    if dataset.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in dataset:
        dataset.DeidentificationMethod = "not stated in the source image"  # required beside a YES
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = new.series_description
    dataset.ContributingEquipmentSequence = [_equipment(says, purpose)]
    return dataset


def refer_to_source(dataset: Dataset, source: DicomSource, *, derivation: str) -> Dataset:
    """References of an image to its source: of the whole, and of each frame to the slice it lies on.

    highdicom of different versions writes different ones, and was given one header per slice, see `slice_headers`.
    """
    used = [_reference(header) for header in source.headers]
    dataset.SourceImageSequence = [_purposeful(_reference(header)) for header in source.headers]
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = source.headers[0].SeriesInstanceUID, used
    dataset.ReferencedSeriesSequence = [series]
    dataset.DerivationDescription = short(derivation, 1024)
    places = np.array([one.position_mm for one in source.slices])
    for frame in dataset.get("PerFrameFunctionalGroupsSequence") or ():
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        one = source.slices[int(np.linalg.norm(places - place, axis=1).argmin())]
        item = Dataset()
        item.DerivationCodeSequence = [code_item(UNSPECIFIED_METHOD)]
        item.SourceImageSequence = [_purposeful(_reference(source.headers[one.header], one.frame))]
        frame.DerivationImageSequence = [item]
    _copy_lossy(dataset, source.headers[0])
    return dataset


def _copy_lossy(dataset: Dataset, header: Dataset) -> None:
    """What was made from a lossy image is lossy, too (PS3.3 C.7.6.1.1.5)."""
    lossy = str(header.get("LossyImageCompression", "") or "00")
    dataset.LossyImageCompression = lossy
    if lossy != "01":
        return
    syntax = str(header.file_meta.get("TransferSyntaxUID", "")) if hasattr(header, "file_meta") else ""
    method = header.get("LossyImageCompressionMethod") or _LOSSY_METHODS.get(syntax)
    for tag, value in (
        ("LossyImageCompressionRatio", header.get("LossyImageCompressionRatio")),
        ("LossyImageCompressionMethod", method),
    ):
        if value:
            setattr(dataset, tag, value)


def _equipment(says: DicomStatements, purpose: str) -> Dataset:
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = short(says.model)
    item.SoftwareVersions = [short(says.model_version), f"{MANUFACTURER} {__version__}"]
    item.DeviceSerialNumber = short(says.model_version)
    item.ContributionDescription = short(f"{purpose}. {RESEARCH_USE}.", 1024)
    item.PurposeOfReferenceCodeSequence = [code_item(_PROCESSING_EQUIPMENT)]
    return item


def _reference(header: Dataset, frame: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def _purposeful(reference: Dataset) -> Dataset:
    reference.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_IMAGE)]
    return reference


def code_item(code: Code) -> Dataset:
    """A code as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _decimals(values: Sequence[float]) -> list[str]:
    """Numbers as decimal strings, as precise as 16 characters can be."""
    return [format_number_as_ds(float(value)) for value in values]
