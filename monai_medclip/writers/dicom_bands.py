"""Segmentation of heat bands: where a map lies between shares of its maximum, in the overlay's colors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from skimage.color import rgb2lab

from monai_medclip.writers.colors import color_map
from monai_medclip.writers.dicom_parts import (
    ARTIFICIAL_INTELLIGENCE,
    MANUFACTURER,
    SALIENCY,
    NewObject,
    finish,
    highdicom,
    pixel_measures,
    refer_to_source,
    slice_headers,
)
from monai_medclip.writers.dicom_source import DicomSource
from monai_medclip.writers.dicom_statements import DicomStatements, Statement, short, told
from monai_medclip.writers.dicom_uids import derived_uid
from monai_medclip.writers.overlay import DEFAULT_STYLE

__all__ = ["heat_band_names", "heat_bands", "segmentation"]

BANDS = 3
_SERIES_NUMBER = 9200
_SPATIAL_CONCEPT = Code("309825002", "SCT", "Spatial and Relational Concept")


def heat_bands(values: NDArray[Any], threshold: float = 0.25) -> NDArray[np.uint8]:
    """Which band of heat each pixel or voxel lies in.

    Args:
        values: a map, any shape, finite.
        threshold: share of the maximum where the first band begins, in [0, 1).

    Returns:
        uint8 of the same shape: 0 below the threshold and where nothing is positive, then 1 to 3 in equal steps up to
        the maximum; 0.25 makes them 25-50 %, 50-75 % and 75-100 %.

    Raises:
        ValueError: a threshold outside its range.
    """
    edges = _edges(threshold)
    highest = float(np.max(values, initial=0.0))
    values = np.asarray(values)
    bands = np.zeros_like(values, np.uint8)  # in the same order in memory: another one costs five times as much
    if highest > 0:
        for edge in edges[:-1]:
            bands += values >= edge * highest if edge > 0 else values > 0
    return bands


def heat_band_names(threshold: float = 0.25) -> tuple[str, str, str]:
    """What the bands of `heat_bands` are called: ``heat 25-50%``, ``heat 50-75%``, ``heat 75-100%``."""
    percent = [f"{100 * edge:.0f}" for edge in _edges(threshold)]
    first, second, third = (f"heat {low}-{high}%" for low, high in pairwise(percent))
    return first, second, third


def segmentation(
    source: DicomSource, values: NDArray[np.float32], answer: Statement, says: DicomStatements, *, number: int
) -> Dataset:
    """Heat bands of one map as a binary Segmentation (PS3.3 A.51), one segment per band.

    Args:
        source: what the map belongs to.
        values: (slices, rows, columns), float32, raw.
        answer: prompt and score.
        says: method, model, threshold.
        number: of the prompt, from 1.

    Returns:
        the object; frames only for slices that a band reaches.
    """
    hd = highdicom()
    made_from = ("segmentation", says.model, says.model_version, says.method, says.threshold, answer.text)
    new = NewObject.of(source, told("heat bands", answer, says.method), _SERIES_NUMBER + number, made_from)
    bands = heat_bands(values, says.threshold)
    dataset = hd.seg.Segmentation(
        source_images=slice_headers(source),
        pixel_array=bands,
        segmentation_type="BINARY",
        omit_empty_frames=bool(bands.any()),
        segment_descriptions=_segments(hd, new, answer, says),
        content_label="HEAT_BANDS",
        content_description=short(f"heat bands: {answer.text}"),
        pixel_measures=pixel_measures(source),
        **new.arguments(says),
    )
    dataset.ContentCreatorName = None  # required, may be empty; not every highdicom writes it
    purpose = f"heat bands of the {says.method} heatmap of '{answer.text}', from {says.threshold:.0%} of its maximum"
    refer_to_source(dataset, source, derivation=purpose)
    return finish(dataset, source, new, says, purpose=purpose)


def _edges(threshold: float) -> NDArray[np.float64]:
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold} must be in [0, 1): it is a share of the map's maximum.")
    return np.linspace(threshold, 1.0, BANDS + 1)


def _segments(hd: Any, new: NewObject, answer: Statement, says: DicomStatements) -> list[Dataset]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=short(says.model),
        family=ARTIFICIAL_INTELLIGENCE,
        version=short(says.model_version),
        source=MANUFACTURER,
        parameters={"method": says.method, "threshold": f"{says.threshold:g}"},
    )
    segments = []
    for number, name in enumerate(heat_band_names(says.threshold), start=1):
        segment = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=_SPATIAL_CONCEPT,
            segmented_property_type=SALIENCY,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=derived_uid("segment", new.sop_uid, number),
            tracking_id=short(answer.text),
        )
        segment.RecommendedDisplayCIELabValue = _display_color(number)
        segments.append(segment)
    return segments


def _display_color(number: int) -> list[int]:
    """The overlay's color in the middle of a band, as DICOM encodes CIELab (PS3.3 C.10.7.1.1)."""
    red_green_blue = color_map(DEFAULT_STYLE.color_map)((number + 0.5) / (BANDS + 1))[:3]
    lightness, a, b = rgb2lab(np.array(red_green_blue)[None, None])[0, 0]
    return [round(lightness / 100 * 65535), *(round((one + 128) / 255 * 65535) for one in (a, b))]
