"""LIDC-IDRI's reading XML: the outlines and ratings that each reader gave the nodules of one CT series."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_medclip.data.lidc_words import NODULE_CHARACTERISTICS

__all__ = ["LIDCContour", "LIDCReading", "LIDCScan", "parse_lidc_xml"]


class LIDCContour(NamedTuple):
    """The outline of a nodule, or of a hole in it, on one slice: the first pixels outside."""

    z_mm: float  # of the slice
    points: np.ndarray[Any, Any]  # (P, 2) column and row, from 0; P >= 2
    inclusion: bool  # False around a hole


class LIDCReading(NamedTuple):
    """One nodule of 3 mm or more as one reader marked it."""

    reader: int  # from 1; readers are not the same from one scan to another
    nodule_id: str  # the reader's own
    ratings: dict[str, int]  # those of the nine `NODULE_CHARACTERISTICS` that are on their scale
    off_scale: tuple[str, ...]  # what is wrong with the others
    contours: tuple[LIDCContour, ...]  # at least one


class LIDCScan(NamedTuple):
    """What is written of one CT series."""

    series_uid: str
    study_uid: str
    readings: tuple[LIDCReading, ...]  # of all readers, in the file's order
    unrated: tuple[str, ...]  # ids of marks without ratings or outline: nodules below 3 mm, stray marks


def parse_lidc_xml(path: str | Path) -> LIDCScan:
    """Read the readings of one CT series (root element ``LidcReadMessage``).

    As in pylidc, a nodule needs all nine ratings, none of them 0, and an outline has two points or more. A rating
    outside of its scale (published: one reading's internal structure is 5) is left out of the reading and told.

    Raises:
        ValueError: not XML, not the reading of a CT (the collection's radiographs have a format of their own), no
            series in it, or a rating or coordinate that is no number.

    References:
        Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI), Medical
        Physics 38, 2011; the authors' note on TCIA of March 2010: lobulation and spiculation run from 1 = none to
        5 = marked. In about 100 of the first 399 cases the sites rated these two by different scales.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path} is not readable XML ({error}). Unpack LIDC-XML-only again.") from error
    series = _text(root, "{*}ResponseHeader/{*}SeriesInstanceUid")
    if not root.tag.endswith("LidcReadMessage") or not series:
        raise ValueError(
            f"{path} is no reading of a CT: its root is {root.tag!r}, its series {series!r}. Leave it out."
        )
    readings: list[LIDCReading] = []
    unrated: list[str] = []
    for reader, session in enumerate(root.iterfind("{*}readingSession"), start=1):
        for mark in session.iterfind("{*}unblindedReadNodule"):
            ratings, contours = _ratings(mark), tuple(_contours(mark))
            if ratings and contours:
                readings.append(_reading(reader, _text(mark, "{*}noduleID"), ratings, contours))
            else:
                unrated.append(_text(mark, "{*}noduleID"))
    study = _text(root, "{*}ResponseHeader/{*}StudyInstanceUID")
    return LIDCScan(series, study, tuple(readings), tuple(unrated))


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _ratings(mark: ET.Element) -> dict[str, int]:
    """All nine ratings, or none if one is missing."""
    cells = {name: _text(mark, f"{{*}}characteristics/{{*}}{name}") for name in NODULE_CHARACTERISTICS}
    return {} if {"", "0"} & set(cells.values()) else {name: int(cell) for name, cell in cells.items()}


def _reading(reader: int, nodule: str, ratings: dict[str, int], contours: tuple[LIDCContour, ...]) -> LIDCReading:
    off = {name: value for name, value in ratings.items() if value not in NODULE_CHARACTERISTICS[name]}
    kept = {name: value for name, value in ratings.items() if name not in off}
    told = tuple(f"{name} {value} of 1 to {len(NODULE_CHARACTERISTICS[name])}" for name, value in off.items())
    return LIDCReading(reader, nodule, kept, told, contours)


def _contours(mark: ET.Element) -> Iterator[LIDCContour]:
    for roi in mark.iterfind("{*}roi"):
        edges = [(int(_text(edge, "{*}xCoord")), int(_text(edge, "{*}yCoord"))) for edge in roi.iterfind("{*}edgeMap")]
        if len(edges) > 1:  # a single point marks a nodule below 3 mm
            included = _text(roi, "{*}inclusion").upper() != "FALSE"
            yield LIDCContour(float(_text(roi, "{*}imageZposition")), np.array(edges), included)
