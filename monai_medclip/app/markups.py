"""Findings as points with text, in the JSON format of 3D Slicer's Markups module."""

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

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def findings_markups(
    scores: Sequence[Score], places: Sequence[Sequence[int]], affine_ras: NDArray[Any]
) -> dict[str, Any]:
    """One point per finding, the likeliest first.

    Args:
        scores: F findings.
        places: F times (x, y, z), indices of the maximum of the finding's map.
        affine_ras: (4, 4) from indices to RAS in mm.

    Returns:
        A Markups document with one list of points (LPS, mm); a label is ``pleural effusion p=0.83``.
    """
    lps = orientation_ras_lps(affine_ras)
    order = sorted(range(len(scores)), key=lambda f: -scores[f].logit)
    points = [
        {
            "id": str(rank),
            "label": label_of(scores[f]),
            "description": "the maximum of its map",
            "position": [float(mm) for mm in (lps @ np.array([*places[f], 1.0]))[:3]],
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for rank, f in enumerate(order, start=1)
    ]
    return {
        "@schema": SCHEMA,
        "markups": [
            {
                "type": "Fiducial",
                "coordinateSystem": "LPS",
                "coordinateUnits": "mm",
                "locked": False,
                "fixedNumberOfControlPoints": False,
                "labelFormat": "%N-%d",
                "lastUsedControlPointNumber": len(points),
                "controlPoints": points,
            }
        ],
    }


def label_of(score: Score) -> str:
    """A finding in a few words: ``pleural effusion p=0.83``."""
    told = f"logit={score.logit:.2f}" if score.probability is None else f"p={score.probability:.2f}"
    return f"{score.finding} {told}"


def write_markups(path: str | Path, content: dict[str, Any]) -> Path:
    """Write a Markups document."""
    Path(path).write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return Path(path)
