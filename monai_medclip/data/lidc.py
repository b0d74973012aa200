"""LIDC-IDRI: the nodules that up to four readers drew and rated on chest CT become items, one per nodule."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.misc import is_dicom
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, pdist

from monai_medclip.data.derm_items import finished_items
from monai_medclip.data.labels import LIDC_FINDINGS, as_findings, label_vector
from monai_medclip.data.lidc_words import NODULE_CHARACTERISTICS, nodule_sentences, reader_consensus
from monai_medclip.data.lidc_xml import LIDCContour, LIDCReading, LIDCScan, parse_lidc_xml
from monai_medclip.data.manifest import text_key
from monai_medclip.data.rejected import Rejected

__all__ = ["read_lidc"]

Array = np.ndarray[Any, Any]

_READERS = 4  # per scan, as published
_SHRINK, _LEAST_MM = 0.9, 0.1  # pylidc's `factor` and `min_tol`
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
_TAGS = [*_GEOMETRY, "Modality", "PatientID", "SeriesInstanceUID"]
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_INDETERMINATE = {"unknown": None, "benign": 0, "malignant": 1}  # what a malignancy of 3 is
_MIDDLE = 3
_NAMES = tuple(NODULE_CHARACTERISTICS)


class _Series(NamedTuple):
    folder: Path
    patient_id: str
    corner_mm: Array  # (3,) LPS of the first pixel of a slice
    steps_mm: Array  # (2, 3) LPS from one column to the next, and from one row to the next
    thickness_mm: float


class _Drawn(NamedTuple):
    """A reading in scanner space."""

    reading: LIDCReading
    points_mm: Array  # (P, 3) RAS, of the outer outlines
    diameter_mm: float


def read_lidc(
    root: str | Path,
    *,
    findings: Sequence[str] | Mapping[str, str] = LIDC_FINDINGS,
    with_malignancy: bool = False,
    indeterminate: str = "unknown",
    uncertain: str = "unknown",
    min_readers: int = 1,
    rejected: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Read the published folders: reading XML anywhere under `root`, and the DICOM series, one per folder.

    One item per nodule of 3 mm or more. The XML names neither patient nor pixel size, so both come from the header of
    one slice of the series that it names. Readings are one nodule where their outlines come as close as the slice
    thickness, or closer, over any chain of readings; if that joins more than four, the distance is shortened by tenths
    until it does not (pylidc's rule: the published 6,859 readings become 2,651 nodules, of which 14 stay larger). What
    the readers say together is `reader_consensus`; what each says stays in ``meta``.

    The collection has no split: ``split`` is empty, for `partition` or `split_by_patient` to fill by patient, so that
    all nodules and scans of a patient (8 have two) stay together.

    Args:
        root: folder with ``*.xml`` (``tcia-lidc-xml``, or beside the slices) and the series' folders.
        findings: what becomes ``item["label"]``: malignant, benign, or rules on the consensus, as in `LIDC_FINDINGS`.
        with_malignancy: whether the text tells the rating of malignancy; a text-only baseline then reads the answer.
        indeterminate: what a malignancy of 3 is: ``"unknown"`` (NaN), ``"benign"`` or ``"malignant"``.
        uncertain: what a label is where one reader's ratings say yes and another's no: ``"unknown"`` (NaN) or
            ``"consensus"``.
        min_readers: nodules that fewer readers marked are left out; challenges ask for 3 of 4.
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.

    Returns:
        Items with ``image`` (the series' folder), ``series_uid``, ``center_mm`` = [x, y, z] in RAS (the mean of the
        outlines; `CropNoduled` crops there), ``labels`` = [malignant or benign, if either], a caption as ``text``,
        ``meta`` and the usual keys. ``meta`` has ``diameter_mm`` (greatest in a slice, mean over readers; the outlines
        run outside of the nodule, by a pixel on each side), ``box_mm`` = [x0, y0, z0, x1, y1, z1] in RAS, ``readers``
        (how many), ``malignant`` (1 or 0, if known) and per characteristic, such as Margin: ``Margin_value``,
        ``Margin_readers`` (one per reading, None if off its scale), ``Margin_range``, ``Margin_agreement`` (None of a
        single reading).

    Raises:
        ValueError: no XML or no usable nodule under `root`; an unknown option; a damaged XML; slices that are not
            axial.
    """
    if indeterminate not in _INDETERMINATE:
        raise ValueError(f"indeterminate={indeterminate!r}: use one of {list(_INDETERMINATE)}.")
    if uncertain not in ("unknown", "consensus"):
        raise ValueError(f"uncertain={uncertain!r}: use 'unknown' (NaN) or 'consensus'.")
    paths = sorted(_files(Path(root), ".xml"))
    if not paths:
        raise ValueError(f"{root} holds no reading XML. Unpack LIDC-XML-only.zip (folder tcia-lidc-xml) there.")
    scans, left_out = _scans(paths)
    series = _index_series(Path(root))
    items: list[dict[str, Any]] = []
    for path, scan in scans.items():
        left_out += _untold(path, scan)
        if scan.series_uid not in series:
            left_out.append(Rejected(str(path), 0, "DICOM series absent or without geometry", scan.series_uid))
            continue
        for nodule in _items_of(scan, series[scan.series_uid], with_malignancy, indeterminate):
            if nodule["meta"]["readers"] >= min_readers:
                items.append(nodule)
            else:
                left_out.append(Rejected(str(path), 0, f"nodule of fewer than {min_readers} readers", nodule["id"]))
    items = finished_items(items, left_out, collection="LIDC-IDRI", findings=findings, rejected=rejected)
    if uncertain == "consensus":
        return items
    return [_unsure(item, as_findings(findings), indeterminate) for item in items]


def _files(root: Path, suffix: str) -> Iterator[Path]:
    for folder, _, names in os.walk(root, followlinks=True):  # Path.rglob stops at linked folders
        yield from (Path(folder, name) for name in names if name.lower().endswith(suffix))


def _scans(paths: Sequence[Path]) -> tuple[dict[Path, LIDCScan], list[Rejected]]:
    """The readings of every CT series, once each; what else the XML files are is listed."""
    scans: dict[str, tuple[Path, LIDCScan]] = {}
    left_out: list[Rejected] = []
    for path in paths:
        if not _is_ct_reading(path):
            left_out.append(Rejected(str(path), 0, "XML that is no reading of a CT"))
            continue
        scan = parse_lidc_xml(path)
        first, _ = scans.setdefault(scan.series_uid, (path, scan))
        if first != path:
            left_out.append(Rejected(str(path), 0, f"second reading file of a series: {first} has it", scan.series_uid))
    return dict(scans.values()), left_out


def _untold(path: Path, scan: LIDCScan) -> list[Rejected]:
    marks = [Rejected(str(path), 0, "mark without ratings or outline", name) for name in scan.unrated]
    return marks + [
        Rejected(str(path), 0, f"rating outside of its scale: {rating}, the reading is kept without it", one.nodule_id)
        for one in scan.readings
        for rating in one.off_scale
    ]


def _is_ct_reading(path: Path) -> bool:
    """The first KB names the root element; the collection also has ``IdriReadMessage``, the readings of radiographs."""
    with path.open("rb") as file:
        return b"LidcReadMessage" in file.read(1024)


def _index_series(root: Path) -> dict[str, _Series]:
    """CT series by UID, from the header of one slice in each folder."""
    found: dict[str, _Series] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        slices = (
            Path(folder, name) for name in sorted(names) if not name.lower().endswith((".xml", ".csv", ".nii.gz"))
        )
        first = next((path for path in slices if is_dicom(path)), None)
        if first is None:
            continue
        header = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=_TAGS)
        if header.get("Modality") == "CT" and all(header.get(name) not in (None, "") for name in _GEOMETRY):
            series = _series_of(first, header)
            found.setdefault(str(header.get("SeriesInstanceUID", "")), series)
    return found


def _series_of(path: Path, header: pydicom.Dataset) -> _Series:
    row_mm, column_mm = (float(step) for step in header.PixelSpacing)  # between rows, between columns (PS3.3 10.7.1.1)
    cosines = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)  # along a row, along a column
    if not np.allclose(cosines[:, 2], 0, atol=1e-3):
        raise ValueError(
            f"{path}: its slices are oblique ({cosines.round(3).tolist()}), but the readings name a slice by z alone. "
            "Give the collection's original series."
        )
    return _Series(
        folder=path.parent,
        patient_id=str(header.get("PatientID", "")).strip(),
        corner_mm=np.array(header.ImagePositionPatient, dtype=float),
        steps_mm=cosines * [[column_mm], [row_mm]],
        thickness_mm=float(header.SliceThickness),
    )


def _points_mm(contour: LIDCContour, series: _Series) -> Array:
    """(P, 3) in RAS."""
    points = series.corner_mm + contour.points @ series.steps_mm
    points[:, 2] = contour.z_mm
    return points * _LPS_TO_RAS


def _nodules(scan: LIDCScan, series: _Series) -> list[list[_Drawn]]:
    """Readings that are of one nodule, in the file's order."""
    drawn = []
    for reading in scan.readings:
        outlines = [_points_mm(contour, series) for contour in reading.contours if contour.inclusion]
        if outlines:
            widest = max(float(pdist(outline).max()) for outline in outlines)
            drawn.append(_Drawn(reading, np.concatenate(outlines), widest))
    groups = _joined([one.points_mm for one in drawn], series.thickness_mm)
    return [[one for one, group in zip(drawn, groups, strict=True) if group == each] for each in dict.fromkeys(groups)]


def _joined(outlines: Sequence[Array], distance_mm: float) -> list[int]:
    """Group of each outline: those that a chain of gaps of `distance_mm` or less joins, at most four in a group."""
    if len(outlines) < 2:
        return [1] * len(outlines)
    gaps = [cdist(one, other).min() for i, one in enumerate(outlines) for other in outlines[i + 1 :]]
    tree = linkage(gaps, "single")
    groups = fcluster(tree, distance_mm, "distance")
    while np.bincount(groups).max() > _READERS and distance_mm * _SHRINK >= _LEAST_MM:
        distance_mm *= _SHRINK
        groups = fcluster(tree, distance_mm, "distance")
    return [int(group) for group in groups]


def _items_of(scan: LIDCScan, series: _Series, with_malignancy: bool, indeterminate: str) -> Iterator[dict[str, Any]]:
    for number, nodule in enumerate(_nodules(scan, series), start=1):
        opinions, disagreement = _consensus([one.reading.ratings for one in nodule])
        outline = np.concatenate([one.points_mm for one in nodule])
        diameter_mm = float(np.mean([one.diameter_mm for one in nodule]))
        item = _opinion(opinions, indeterminate)
        item["meta"] |= {
            "readers": len({one.reading.reader for one in nodule}),
            "diameter_mm": diameter_mm,
        } | disagreement
        item["meta"]["box_mm"] = [*outline.min(axis=0).tolist(), *outline.max(axis=0).tolist()]
        text = nodule_sentences(opinions, with_malignancy=with_malignancy, diameter_mm=diameter_mm)
        yield item | {
            "image": str(series.folder),
            "id": f"{scan.series_uid}_{number}",
            "series_uid": scan.series_uid,
            "study_id": scan.study_uid or scan.series_uid,
            "patient_id": series.patient_id,
            "view": "",
            "split": "",
            "center_mm": np.mean([one.points_mm.mean(axis=0) for one in nodule], axis=0).tolist(),
            "text": text,
            "positives": text_key(text),
        }


def _consensus(ratings: Sequence[Mapping[str, int]]) -> tuple[dict[str, int], dict[str, Any]]:
    """What the readers say together, and for ``meta`` what each says and how far they are apart."""
    together: dict[str, int] = {}
    apart: dict[str, Any] = {}
    for name in _NAMES:
        apart[f"{_key(name)}_readers"] = [one.get(name) for one in ratings]
        if values := [one[name] for one in ratings if name in one]:
            consensus = reader_consensus(name, values)
            together[name] = consensus.value
            apart[f"{_key(name)}_range"] = consensus.range
            apart[f"{_key(name)}_agreement"] = None if math.isnan(consensus.agreement) else consensus.agreement
    return together, apart


def _opinion(ratings: Mapping[str, int | None], indeterminate: str) -> dict[str, Any]:
    """What labels are made from: nothing says malignant or benign of an indeterminate nodule, so both are unknown."""
    meta: dict[str, Any] = {f"{_key(name)}_value": value for name, value in ratings.items() if value is not None}
    grade = ratings.get("malignancy")
    malignant = _INDETERMINATE[indeterminate] if grade == _MIDDLE else grade and int(grade > _MIDDLE)
    if malignant is None:
        return {"labels": [], "meta": meta}
    return {"labels": ["malignant" if malignant else "benign"], "meta": meta | {"malignant": malignant}}


def _key(name: str) -> str:
    return name[0].upper() + name[1:]  # as `LIDC_FINDINGS` names them: InternalStructure_value


def _unsure(item: dict[str, Any], findings: Mapping[str, str], indeterminate: str) -> dict[str, Any]:
    """The item with NaN for each label on which one reader's ratings alone say 1 and another's 0."""
    each = zip(*(item["meta"][f"{_key(name)}_readers"] for name in _NAMES), strict=True)
    answers = [label_vector(_opinion(dict(zip(_NAMES, one, strict=True)), indeterminate), findings) for one in each]
    split = [{0.0, 1.0} <= set(said) for said in zip(*answers, strict=True)]
    return item | {"label": [math.nan if apart else value for apart, value in zip(split, item["label"], strict=True)]}
