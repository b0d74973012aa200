"""Findings as boxes that 3D Slicer's Markups module reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_medclip.app.markups import findings_markups, write_markups
from monai_medclip.engines import Score


def test_boxes_stand_at_the_maxima_likeliest_first(tmp_path: Path) -> None:
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])  # index to RAS: to the right, to the back, up
    affine[:3, 3] = [10, 20, 30]
    scores = [Score("nodule", -1.0, 0.27), Score("pleural effusion", 1.6, 0.83), Score("mass", 0.5, None)]
    path = write_markups(tmp_path / "a.json", findings_markups(scores, [(0, 0, 0), (1, 2, 3), (5, 0, 0)], affine))
    boxes = json.loads(path.read_text())["markups"]
    assert {(box["type"], box["coordinateSystem"]) for box in boxes} == {("ROI", "LPS")}
    texts = ["pleural effusion p=0.83", "mass logit=0.50", "nodule p=0.27"]
    assert [box["name"] for box in boxes] == [box["controlPoints"][0]["label"] for box in boxes] == texts
    assert boxes[0]["center"] == boxes[0]["controlPoints"][0]["position"] == [-8.0, -14.0, 42.0]  # RAS (8, 14, 42)


def test_a_reader_deletes_the_boxes_of_absent_findings() -> None:
    labels = pytest.importorskip("monai_medclip.app.labels", reason="needs the label extra")
    known = ["nodule", "mass", "pleural effusion"]
    scores = [Score(name, 0.0, 0.5) for name in known]
    document = findings_markups(scores, [(0, 0, 0)] * 3, np.eye(4))
    document["markups"] = [box for box in document["markups"] if not box["name"].startswith("mass")]
    assert labels.findings_in_markups(document, known) == {"nodule": True, "mass": False, "pleural effusion": True}
