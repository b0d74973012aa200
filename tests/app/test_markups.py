"""Findings as points that 3D Slicer's Markups module reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from monai_medclip.app.markups import findings_markups, write_markups
from monai_medclip.engines import Score


def test_points_stand_at_the_maxima_likeliest_first(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])  # index to RAS: to the right, to the back, up
    affine[:3, 3] = [10, 20, 30]
    scores = [Score("nodule", -1.0, 0.27), Score("pleural effusion", 1.6, 0.83), Score("mass", 0.5, None)]
    path = write_markups(tmp_path / "a.json", findings_markups(scores, [(0, 0, 0), (1, 2, 3), (5, 0, 0)], affine))
    (markup,) = json.loads(path.read_text())["markups"]
    assert markup["type"] == "Fiducial"
    assert markup["coordinateSystem"] == "LPS"
    points = markup["controlPoints"]
    assert [point["label"] for point in points] == ["pleural effusion p=0.83", "mass logit=0.50", "nodule p=0.27"]
    assert points[0]["position"] == [-8.0, -14.0, 42.0]  # RAS (8, 14, 42)
