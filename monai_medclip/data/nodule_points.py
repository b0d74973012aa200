"""Where nodules are, in RAS mm: read from CSV tables (LUNA16's, boxes) and from MONAI's nodule detection (JSON)."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data.box_utils import convert_box_mode
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

__all__ = ["NodulePoint", "read_nodule_csv", "read_nodule_json"]

logger = logging.getLogger(__name__)

Affine = NDArray[np.float64]

_TO_RAS = {"ras": np.eye(4), "lps": np.diag([-1.0, -1.0, 1.0, 1.0])}
_CENTER, _SIDES, _CORNERS = ("x", "y", "z"), ("w", "h", "d"), ("x0", "y0", "z0", "x1", "y1", "z1")
_OPTIONAL = ("diameter_mm", "score", "label", "nodule_id", "text")
_SYNONYMS = {  # in lower case
    "id": "image",
    "seriesuid": "image",  # LUNA16
    "seriesinstanceuid": "image",  # LUNA25
    "coordx": "x",
    "coordy": "y",
    "coordz": "z",
    "probability": "score",  # LUNA16's submissions
    "class": "label",  # LUNA16's candidates
}
_EXPECTED = (
    "image (or id, seriesuid, SeriesInstanceUID); x, y, z (or coordX, coordY, coordZ) and perhaps w, h, d, or "
    f"x0, y0, z0, x1, y1, z1; perhaps {', '.join(_OPTIONAL)} (or probability for score, class for label)"
)
_UNKNOWN_MM = -1.0  # LUNA16's evaluation takes a negative diameter for an unknown one
_SCORE_KEYS = ("label_scores", "score")  # the bundle's, the tutorial's


class NodulePoint(NamedTuple):
    """One place in a CT where a nodule is, or was detected."""

    image: str  # what the source calls the CT: its id, its series UID, or a path
    center_mm: tuple[float, float, float]  # x, y, z in RAS
    diameter_mm: float | None = None  # given; else the mean of the box's sides; None if there is neither
    box_mm: tuple[float, ...] | None = None  # x0, y0, z0, x1, y1, z1 in RAS, lower corner first
    score: float | None = None  # of a detector, the higher the surer; None where a person said so
    label: str = ""  # the source's word or number for what it is
    id: str = ""  # the source's own of the nodule
    text: str = ""  # what is said of this nodule alone


def located(
    center: Sequence[float], sides: Sequence[float], to_ras: Affine
) -> tuple[tuple[float, float, float], tuple[float, ...], float]:
    """Center and box in RAS mm, and the mean of the sides in mm, of a box given in another space.

    Args:
        center: (3,) in that space; of voxels, whole numbers are their centers.
        sides: (3,) in that space.
        to_ras: (4, 4) from there to RAS mm. Where it is oblique, the box in RAS is the smallest around the given one.
    """
    matrix = to_ras[:3, :3]
    x, y, z = (float(mm) for mm in matrix @ np.asarray(center, float) + to_ras[:3, 3])
    half = np.abs(matrix) @ np.asarray(sides, float) / 2
    box = (x - half[0], y - half[1], z - half[2], x + half[0], y + half[1], z + half[2])
    mean_mm = float((np.linalg.norm(matrix, axis=0) * np.asarray(sides, float)).mean())
    return (x, y, z), tuple(float(mm) for mm in box), mean_mm


def read_nodule_csv(
    path: str | Path,
    *,
    space: str,
    image_root: str | Path | None = None,
    min_score: float | None = None,
    ignore: Sequence[str] = (),
) -> list[NodulePoint]:
    """Read a table with one nodule per row: LUNA16's annotations and candidates, a detector's CSV, or boxes.

    Columns, in any order and case: ``image`` (or ``id``, ``seriesuid``, ``SeriesInstanceUID``); the center ``x, y, z``
    (or ``coordX, coordY, coordZ``), with sides ``w, h, d`` if there is a box, or the box's corners ``x0, y0, z0, x1,
    y1, z1``; and, if there, ``diameter_mm`` (empty or negative: unknown), ``score`` (or ``probability``), ``label`` (or
    ``class``), ``nodule_id`` and ``text``, a sentence about this nodule.

    Args:
        path: the CSV.
        space: of centers and boxes: ``"lps"``, mm as in DICOM, ITK and LUNA16; ``"ras"``, mm as in NIfTI; or
            ``"voxel"``, indices of the image's array, where a center is that of a voxel and a box holds the voxels
            x0 to x1 - 1, as slices of NumPy do.
        image_root: for ``"voxel"``: folder of the NIfTI images, whose affines say where their voxels are.
        min_score: leave out rows below this score; how many is logged.
        ignore: columns to leave unread.

    Returns:
        One point per row, in order; none for a table without rows.

    Raises:
        ValueError: an unknown space; a missing, doubled or unknown column; a cell that is no number; a box without
            extent; `min_score` without scores; an image that is no NIfTI file under `image_root`.
        FileNotFoundError: no such table.

    References:
        Setio et al., Validation, comparison, and combination of algorithms for automatic detection of pulmonary
        nodules in computed tomography images: the LUNA16 challenge, Medical Image Analysis 42, 2017.
    """
    path = Path(path)
    affine_of = _affines(space, image_root)
    points = []
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        names = _names(path, reader.fieldnames or (), ignore)
        for row in reader:
            cells = {name: (row[column] or "").strip() for name, column in names.items()}
            try:
                points.append(_point(cells, affine_of, voxels=space == "voxel"))
            except ValueError as error:
                raise ValueError(f"{path}, row {reader.line_num}: {error}") from error
    return _scored(points, min_score, path)


def _affines(space: str, image_root: str | Path | None) -> Callable[[str], Affine]:
    """From an image's name to the matrix (4, 4) from `space` to RAS mm."""
    if (space == "voxel") == (image_root is None) or space not in ("voxel", *_TO_RAS):
        raise ValueError(
            f"space={space!r} and image_root={image_root}: use 'lps' or 'ras' (mm), or 'voxel' and the images' folder."
        )
    if image_root is None:
        return lambda image: _TO_RAS[space]
    root = Path(image_root)

    @cache
    def affine(image: str) -> Affine:
        found = next((file for end in ("", ".nii.gz", ".nii") if (file := root / f"{image}{end}").is_file()), None)
        if found is None:
            raise ValueError(f"{root} has no NIfTI file of {image!r}. Correct image_root, or give the points in mm.")
        try:
            return np.asarray(nib.load(found).affine, float)
        except ImageFileError as error:
            raise ValueError(f"{found} is no NIfTI file ({error}). Give the points in mm.") from error

    return affine


def _names(path: Path, columns: Sequence[str], ignore: Sequence[str]) -> dict[str, str]:
    """Our name of each column -> its own."""
    names: dict[str, str] = {}
    for column in (one for one in columns if one not in ignore):
        name = column.strip().lower()
        name = _SYNONYMS.get(name, name)
        if name in names:
            raise ValueError(
                f"{path}: columns {names[name]!r} and {column!r} both mean {name!r}. Name one of the two in ignore."
            )
        names[name] = column
    unknown = [
        column for name, column in names.items() if name not in ("image", *_CENTER, *_SIDES, *_CORNERS, *_OPTIONAL)
    ]
    boxed, centered = (set(group) <= set(names) for group in (_CORNERS, _CENTER))
    parts = [group for group in (_CENTER, _SIDES, _CORNERS) if set(group) & set(names)]
    whole = all(set(group) <= set(names) for group in parts)
    if unknown or "image" not in names or boxed == centered or not whole or (boxed and len(parts) > 1):
        problem = (
            f"unknown column(s) {unknown}" if unknown else f"its columns {list(columns)} do not say where nodules are"
        )
        raise ValueError(f"{path}: {problem}. Expected: {_EXPECTED}. Rename columns, or name the others in ignore.")
    return names


def _point(cells: Mapping[str, str], affine_of: Callable[[str], Affine], *, voxels: bool) -> NodulePoint:
    """The point of a row; of voxels, a box holds `x0` to `x1` - 1, so that its middle is half a voxel lower."""
    if not cells["image"]:
        raise ValueError("the image is not named. Fill the cell.")
    sides: list[float] | None = None
    if "x0" in cells:
        corners = [_number(cells, name) for name in _CORNERS]
        sides = [high - low for low, high in zip(corners[:3], corners[3:], strict=True)]
        center = [low + (side - voxels) / 2 for low, side in zip(corners[:3], sides, strict=True)]
    else:
        center = [_number(cells, name) for name in _CENTER]
        sides = [_number(cells, name) for name in _SIDES] if "w" in cells else None
    diameter = _number(cells, "diameter_mm") if cells.get("diameter_mm") else _UNKNOWN_MM
    if diameter == 0:
        raise ValueError(f"diameter_mm is {diameter:g}. Give a positive number, or leave the cell empty.")
    point = _boxed(cells["image"], center, sides, affine_of(cells["image"]))
    return point._replace(
        diameter_mm=point.diameter_mm if diameter < 0 else diameter,
        score=_number(cells, "score") if cells.get("score") else None,
        label=cells.get("label") or point.label,
        id=cells.get("nodule_id", ""),
        text=cells.get("text", ""),
    )


def _number(cells: Mapping[str, str], name: str) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {cells[name]!r}, not a number. Correct the cell.")
    return value


def _boxed(image: str, center: Sequence[float], sides: Sequence[float] | None, to_ras: Affine) -> NodulePoint:
    if sides is None:
        return NodulePoint(image, located(center, (0.0, 0.0, 0.0), to_ras)[0])
    if min(sides) <= 0:
        raise ValueError(f"the box has sides {[round(side, 3) for side in sides]}. Give its lower corner first.")
    place, box_mm, mean_mm = located(center, sides, to_ras)
    return NodulePoint(image, place, mean_mm, box_mm)


def _scored(points: list[NodulePoint], min_score: float | None, path: Path) -> list[NodulePoint]:
    if min_score is None:
        return points
    bare = sum(point.score is None for point in points)
    if bare:
        raise ValueError(
            f"{path}: min_score={min_score}, but {bare} of {len(points)} nodules have no score. Leave it out."
        )
    kept = [point for point in points if point.score is not None and point.score >= min_score]
    logger.info(
        "%s: %d nodules kept, %d with a score below %g left out", path, len(kept), len(points) - len(kept), min_score
    )
    return kept


def read_nodule_json(
    path: str | Path,
    *,
    space: str = "lps",
    box_mode: str = "cccwhd",
    min_score: float | None = None,
    names: Sequence[str] = ("nodule",),
) -> list[NodulePoint]:
    """Read what MONAI's bundle ``lung_nodule_ct_detection`` writes, or the datalists it is trained on.

    The bundle writes a list of ``{"image", "box", "label", "label_scores"}``, one per CT; MONAI's detection tutorial
    writes ``{"validation": [{"image", "box", "label", "score"}]}``; a datalist (``LUNA16_datasplit``) is
    ``{"training": [...], "validation": [...]}`` of ``{"image", "box", "label"}``. Boxes are N x 6 in world mm. Their
    mode is ``cccwhd`` (center and sides), and their world is LPS although MONAI's images are in RAS, because both
    configs set ``affine_lps_to_ras``, which turns the affine before boxes are put into the world: LUNA16's annotations
    are in LPS. Where a detector was run with ``affine_lps_to_ras=False``, boxes are in RAS. Detections are made in half
    precision: a center 128 mm or more from the origin is rounded to 0.125 mm, from 256 mm to 0.25 mm.

    Args:
        path: the JSON.
        space: ``"lps"`` or ``"ras"``.
        box_mode: of the boxes, by MONAI's name: ``"cccwhd"``, ``"xyzxyz"``, ``"xyzwhd"``, ...
        min_score: leave out boxes below this score; how many is logged. The bundle itself keeps 0.02 and more.
        names: what the class numbers mean.

    Returns:
        One point per box, in order, with the mean of the box's sides as diameter: LUNA16's boxes are cubes as wide as
        the nodule. A CT without boxes has none.

    Raises:
        ValueError: an unknown space or mode; not JSON of that kind; lists of different lengths; a class without name; a
            box that is not six numbers or without extent; `min_score` without scores.
        FileNotFoundError: no such file.

    References:
        Project-MONAI/model-zoo, models/lung_nodule_ct_detection: configs/inference.json ("postprocessing"),
        scripts/detection_saver.py (keys), docs/README.md (LUNA16 needs ``affine_lps_to_ras``);
        Project-MONAI/tutorials, detection/luna16_testing.py and README.md (boxes are in world coordinates);
        `AffineBoxToWorldCoordinated` in `monai.apps.detection.transforms.dictionary`.
    """
    path = Path(path)
    if space not in _TO_RAS:
        raise ValueError(f"space={space!r}: use 'lps' (as the bundle is configured) or 'ras'.")
    points: list[NodulePoint] = []
    for number, entry in _entries(path):
        try:
            points += _detections(entry, box_mode, _TO_RAS[space], names)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, entry {number}: {error}") from error
    return _scored(points, min_score, path)


def _entries(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The CTs of all lists of a file, counted from 1."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg}). Run the detector again.") from error
    lists = [part for part in content.values() if isinstance(part, list)] if isinstance(content, dict) else [content]
    entries = [entry for part in lists for entry in (part if isinstance(part, list) else [part])]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "box" not in entry:
            found = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"{path}, entry {number}: expected an object with 'image' and 'box', found {found}.")
        yield number, entry


def _detections(entry: Mapping[str, Any], box_mode: str, to_ras: Affine, names: Sequence[str]) -> Iterator[NodulePoint]:
    if not entry["box"]:
        return
    boxes = np.asarray(entry["box"], dtype=float)
    if boxes.ndim != 2 or boxes.shape[1] != 6 or not np.isfinite(boxes).all():
        raise ValueError(f"'box' has shape {boxes.shape}: give six finite numbers per nodule.")
    key = next((key for key in _SCORE_KEYS if key in entry), None)
    classes, scores = entry.get("label", [0] * len(boxes)), [None] * len(boxes) if key is None else entry[key]
    if not len(boxes) == len(classes) == len(scores):
        raise ValueError(
            f"{len(boxes)} boxes, {len(classes)} labels, {len(scores)} scores. Give one of each per nodule."
        )
    centered = np.asarray(convert_box_mode(boxes, src_mode=box_mode, dst_mode="cccwhd"))
    for box, number, score in zip(centered.tolist(), classes, scores, strict=True):
        if not 0 <= int(number) < len(names):
            raise ValueError(f"label {number} has no name among {list(names)}. Give names for all classes.")
        point = _boxed(entry["image"], box[:3], box[3:], to_ras)
        yield point._replace(score=None if score is None else float(score), label=names[int(number)])
