"""Structured report: findings, probabilities, prompts and method, with references to images and heatmaps (TID 1500)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.dicom_parts import (
    ARTIFICIAL_INTELLIGENCE,
    MANUFACTURER,
    NO_UNITS,
    PRIVATE_SCHEME,
    SALIENCY,
    NewObject,
    finish,
    highdicom,
    instance_header,
)
from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.dicom_statements import DicomStatements, Statement, short
from monai_medclip.writers.dicom_uids import derived_uid

__all__ = ["report"]

_SERIES_NUMBER = 9400
_PROBABILITY = Code("122157", "DCM", "Probability")
_LOGIT = Code("LOGIT", PRIVATE_SCHEME, "Score as log odds")
_ILLUSTRATION = Code("125201", "DCM", "Illustration of Finding")
_PARAMETRIC_MAP, _CAPTURE = ParametricMapStorage, SecondaryCaptureImageStorage
_PROCEDURES = {
    True: Code("77477000", "SCT", "Computed tomography"),
    False: Code("363680008", "SCT", "Radiographic imaging procedure"),
}


def report(
    source: DicomSource, says: DicomStatements, pictures: Sequence[Sequence[Dataset]], *, number: int = 1
) -> Dataset:
    """Answers and findings as a Comprehensive SR (PS3.3 A.35.3) after TID 1500, complete but not verified.

    Args:
        source: the image that was asked about.
        says: answers, findings, method, model.
        pictures: per answer, the objects written of its map; empty where there are none.
        number: of the report, from 1.

    Returns:
        the object: an image library, then one measurement group per prompt and finding with its probability and logit.
    """
    hd = highdicom()
    written = [one for group in pictures for one in group]
    asked = [
        one.text for one in (*says.answers, *says.findings)
    ]  # not their numbers, whose last digits differ by machine
    made_from = (
        "report",
        says.model,
        says.model_version,
        says.method,
        *asked,
        *(one.SOPInstanceUID for one in written),
    )
    new = NewObject.of(source, _description(says), _SERIES_NUMBER + number, made_from)
    groups = [
        _group(hd, source, says, new, answer, f"prompt {index}", shown)
        for index, (answer, shown) in enumerate(zip(says.answers, pictures, strict=True), start=1)
    ]
    groups += [
        _group(hd, source, says, new, finding, f"finding {index}", ())
        for index, finding in enumerate(says.findings, start=1)
    ]
    content = hd.sr.MeasurementReport(
        observation_context=_context(hd, says),
        procedure_reported=_PROCEDURES[source.stack is not None],
        imaging_measurements=groups,
    )
    content[0].ContentSequence.insert(-1, _image_library(hd, source))  # before the measurements, as TID 1500 has it
    arguments = new.arguments(says)
    arguments.pop("device_serial_number")
    dataset = hd.sr.ComprehensiveSR(
        evidence=[instance_header(one) for one in (*source.headers, *written)],
        content=content[0],
        is_complete=True,
        coding_schemes=[_private_scheme(hd)],
        **arguments,
    )
    return finish(dataset, source, new, says, purpose="structured report")


def _description(says: DicomStatements) -> str:
    stated = (*says.answers, *says.findings)
    return short("MedCLIP report: " + ", ".join(f"{one.text} {one.score}" for one in stated))


def _group(
    hd: Any,
    source: DicomSource,
    says: DicomStatements,
    new: NewObject,
    answer: Statement,
    name: str,
    shown: Sequence[Dataset],
) -> Any:
    """TID 1501: one prompt or finding, what it scored, by which algorithm, from which images."""
    group = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=derived_uid("tracked", new.sop_uid, name), identifier=f"{name}: {answer.text}"
        ),
        finding_type=_finding(answer.text),
        algorithm_id=_algorithm(hd, says, answer),
        measurements=[
            hd.sr.Measurement(name=name, value=value, unit=NO_UNITS)
            for name, value in ((_PROBABILITY, answer.probability), (_LOGIT, answer.logit))
            if value is not None
        ],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID) for one in source.headers
        ],
    )
    for one in shown:  # TID 1501 is extensible: what was written of this prompt stands beside its numbers
        group[0].ContentSequence.append(
            hd.sr.ImageContentItem(
                name=SALIENCY if one.SOPClassUID == _PARAMETRIC_MAP else _ILLUSTRATION,
                referenced_sop_class_uid=one.SOPClassUID,
                referenced_sop_instance_uid=one.SOPInstanceUID,
                relationship_type="CONTAINS",
            )
        )
    return group


def _private_scheme(hd: Any) -> Any:
    return hd.coding_schemes.CodingSchemeIdentificationItem(
        designator=PRIVATE_SCHEME, name="MedCLIP prompts", responsible_organization=MANUFACTURER
    )


def _finding(text: str) -> Code:
    """A prompt as a private code, as free text has no other: its value depends on the text, its meaning is the text."""
    value = hashlib.sha256(text.encode()).hexdigest()[:16].upper()
    return Code(value, PRIVATE_SCHEME, short(text))


def _algorithm(hd: Any, says: DicomStatements, answer: Statement) -> Any:
    """TID 4019, with the family, which highdicom 0.22 leaves out."""
    parameters = [f"prompt: {answer.text}", f"explanation method: {says.method}", RESEARCH_USE]
    algorithm = hd.sr.AlgorithmIdentification(name=says.model, version=says.model_version, parameters=parameters)
    algorithm.append(
        hd.sr.CodeContentItem(
            name=Code("111000", "DCM", "Algorithm Family"),
            value=ARTIFICIAL_INTELLIGENCE,
            relationship_type="HAS CONCEPT MOD",
        )
    )
    return algorithm


def _context(hd: Any, says: DicomStatements) -> Any:
    """The observer is the model, identified by name and version."""
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", says.model, says.model_version),
        name=says.model,
        manufacturer_name=MANUFACTURER,
        model_name=says.model,
        serial_number=says.model_version,
    )
    observer = hd.sr.ObserverContext(
        observer_type=Code("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    return hd.sr.ObservationContext(observer_device_context=observer)


def _image_library(hd: Any, source: DicomSource) -> Any:
    """TID 1600 of the source images; highdicom's own raises where a header lacks orientation or spacing."""
    modality = str(source.headers[0].get("Modality", "") or "CT")
    library = _container(hd, Code("111028", "DCM", "Image Library"))
    group = _container(hd, Code("126200", "DCM", "Image Library Group"))
    group.ContentSequence.append(
        hd.sr.CodeContentItem(
            name=Code("121139", "DCM", "Modality"),
            value=Code(modality, "DCM", modality),
            relationship_type="HAS ACQ CONTEXT",
        )
    )
    for one in source.headers:
        group.ContentSequence.append(
            hd.sr.ImageContentItem(
                name=Code("260753009", "SCT", "Source"),
                referenced_sop_class_uid=one.SOPClassUID,
                referenced_sop_instance_uid=one.SOPInstanceUID,
                relationship_type="CONTAINS",
            )
        )
    library.ContentSequence.append(group)
    return library


def _container(hd: Any, name: Code) -> Any:
    container = hd.sr.ContainerContentItem(name=name, relationship_type="CONTAINS")
    container.ContentSequence = hd.sr.ContentSequence()
    return container
