"""Parametric Map: a heatmap's own values as float32, voxel by voxel on the source's grid."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from monai_medclip.writers.dicom_parts import (
    NO_UNITS,
    SALIENCY,
    NewObject,
    code_item,
    finish,
    highdicom,
    pixel_measures,
    refer_to_source,
    slice_headers,
)
from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.dicom_statements import DicomStatements, Statement, short, told

__all__ = ["parametric_map"]

_SERIES_NUMBER = 9100
_THORAX = Code("51185008", "SCT", "Thorax")


def parametric_map(
    source: DicomSource, values: NDArray[np.float32], answer: Statement, says: DicomStatements, *, number: int
) -> Dataset:
    """One map as a Parametric Map (PS3.3 A.75) with Float Pixel Data; viewers scale uint16 wrongly.

    Stored are shares of the map's maximum, and the Real World Value Mapping's slope is that maximum, so that real world
    values are the raw ones. OHIF 3.13 shows stored values between 0 and 1 and does not read the mapping.

    Args:
        source: what the map belongs to.
        values: (slices, rows, columns), float32, raw.
        answer: prompt and score.
        says: method, model, units.
        number: of the prompt, from 1.

    Returns:
        the object; one frame per slice, in the source's order.
    """
    hd = highdicom()
    made_from = ("parametric map", says.model, says.model_version, says.method, says.units, answer.text)
    new = NewObject.of(source, told("heatmap", answer, says.method), _SERIES_NUMBER + number, made_from)
    scale = max(0.0, float(values.max())) or 1.0
    shares = np.ascontiguousarray(values, np.float32) / np.float32(scale)
    lowest, highest = float(shares.min()), float(shares.max())
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=short(says.units, 16),
        lut_explanation=short(f"raw heatmap values in {says.units}"),
        unit=NO_UNITS,
        value_range=(lowest, highest),
        slope=scale,
        intercept=0.0,
        quantity_definition=SALIENCY,
    )
    dataset = hd.pm.ParametricMap(
        source_images=slice_headers(source),
        pixel_array=shares,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        content_label="HEATMAP",
        content_description=short(f"heatmap: {answer.text}"),
        image_flavor="VOLUME" if source.stack else "STATIC",
        pixel_measures=pixel_measures(source),
        **_window(hd, max(0.0, lowest), highest),
        **new.arguments(says),
    )
    for window in dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence:
        window.VOILUTFunction = "LINEAR_EXACT"  # LINEAR needs a width of 1 or more (PS3.3 C.11.2.1.2)
    dataset.ContentCreatorName = None  # required, may be empty; not every highdicom writes it
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(source)]
    purpose = f"{says.method} heatmap of '{answer.text}', logit {answer.logit:.4g}, {answer.score}"
    refer_to_source(dataset, source, derivation=purpose)
    return finish(dataset, source, new, says, purpose=purpose)


def _anatomy(source: DicomSource) -> Dataset:
    """What the frames show: the source's region, else the thorax, for which our readers are; dcmqi crashes without."""
    header, item = source.headers[0], Dataset()
    laterality = str(header.get("ImageLaterality", ""))
    item.FrameLaterality = laterality if laterality in ("R", "L", "B") else "U"  # unpaired
    item.AnatomicRegionSequence = header.get("AnatomicRegionSequence") or [code_item(_THORAX)]
    return item


def _window(hd: Any, low: float, high: float) -> dict[str, Any]:
    """What to show at first, from zero to the maximum, as this version of highdicom takes it."""
    center, width = ((low + high) / 2, high - low) if high > low else (0.5, 1.0)
    if "voi_lut_transformations" not in inspect.signature(hd.pm.ParametricMap).parameters:  # highdicom 0.22
        return {"window_center": center, "window_width": width}
    return {"voi_lut_transformations": [hd.VOILUTTransformation(window_center=center, window_width=width)]}
