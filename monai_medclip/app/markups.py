"""Findings as boxes with text, in the JSON format of 3D Slicer's Markups module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray

from monai_medclip.engines import Score

__all__ = ["findings_markups", "write_markups"]

BOX_MM = 20.0  # a side; it marks a place, not a size
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def findings_markups(
    scores: Sequence[Score], places: Sequence[Sequence[int]], affine_ras: NDArray[Any]
) -> dict[str, Any]:
    """One box per finding with its text, the likeliest first.

    Boxes, as 3D Slicer's MONAI Label module submits no other markups: a reader deletes those of absent findings.

    Args:
        scores: F findings.
        places: F times (x, y, z), indices of the maximum of the finding's map, where its box stands.
        affine_ras: (4, 4) from indices to RAS in mm.

    Returns:
        A Markups document (LPS, mm) of F boxes; name and label are ``pleural effusion p=0.83``.
    """
    lps = orientation_ras_lps(affine_ras)
    order = sorted(range(len(scores)), key=lambda f: -scores[f].logit)
    centers = {f: [float(mm) for mm in (lps @ np.array([*places[f], 1.0]))[:3]] for f in order}
    return {"@schema": SCHEMA, "markups": [_box(label_of(scores[f]), centers[f]) for f in order]}


def _box(text: str, center: list[float]) -> dict[str, Any]:
    point = {
        "id": "1",
        "label": text,
        "description": "the maximum of its map",
        "position": center,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }
    return {
        "type": "ROI",
        "name": text,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N",
        "lastUsedControlPointNumber": 1,
        "roiType": "Box",
        "center": center,
        "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
        "size": [BOX_MM] * 3,
        "insideOut": False,
        "controlPoints": [point],
        "display": {"visibility": True, "pointLabelsVisibility": True, "fillOpacity": 0.1, "handlesInteractive": False},
    }


def label_of(score: Score) -> str:
    """A finding in a few words: ``pleural effusion p=0.83``."""
    told = f"logit={score.logit:.2f}" if score.probability is None else f"p={score.probability:.2f}"
    return f"{score.finding} {told}"


def write_markups(path: str | Path, content: dict[str, Any]) -> Path:
    """Write a Markups document."""
    Path(path).write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return Path(path)
