"""Sides of findings: marked, drawn or reported, and left out where they are on both or on none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_medclip.audits.known_sides import known_sides


def marked(name: str, *sides: str) -> dict:
    return {"id": name, "meta": {"findings": [{"name": "nodule", "side": side} for side in sides]}}


def test_marked_findings_come_first():
    items = [
        {**marked("a", "left"), "text": "Right nodule."},
        marked("b", "right"),
        marked("c", "left", "right"),
        marked("d", ""),
        {"id": "e", "text": "Left nodule."},
    ]
    assert known_sides(items, ["nodule"]) == ("marked findings", {"a": {"nodule": "left"}, "b": {"nodule": "right"}})
    assert known_sides(items, ["mass"]).by_id == {}


@pytest.mark.parametrize(
    ("columns", "side"), [(slice(0, 3), "right"), (slice(7, 10), "left"), (slice(4, 6), None), (slice(0, 0), None)]
)
def test_a_mask_lies_on_the_patients_other_side_of_the_picture(tmp_path, columns, side):
    mask = np.zeros((4, 10), np.uint8)
    mask[1:3, columns] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    item = {"id": "a", "masks": {"nodule": str(tmp_path / "mask.png")}, "view": "PA"}
    found = known_sides([item], ["nodule"])
    assert found.by_id == ({"a": {"nodule": side}} if side else {})
    assert known_sides([{**item, "view": "lateral"}], ["nodule"]).by_id == {}


def test_boxes_need_the_images_width():
    boxes = [{"label": "nodule", "box": [60, 0, 90, 20]}]
    assert known_sides([{"id": "a", "boxes": boxes, "width": "100"}], ["nodule"]) == (
        "masks or boxes",
        {"a": {"nodule": "left"}},
    )
    both = [*boxes, {"label": "nodule", "box": [5, 0, 20, 20]}]
    assert known_sides([{"id": "a", "boxes": both, "width": "100"}], ["nodule"]).by_id == {}
    assert known_sides([{"id": "a", "boxes": boxes}], ["nodule"]).by_id == {}


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("There is a small left-sided pleural effusion.", "left"),
        ("Clear left lung. Right PLEURAL EFFUSION, moderate.", "right"),
        ("No left pleural effusion.", None),
        ("Bilateral pleural effusion, left greater.", None),
        ("Left pleural effusion. Small right pleural effusion.", None),
        ("Left nodule. Pleural effusion.", None),
    ],
)
def test_reports_tell_a_side_in_the_findings_own_sentence(text, side):
    found = known_sides([{"id": "a", "text": text}], ["pleural effusion"])
    assert found == ("reports", {"a": {"pleural effusion": side}} if side else {})
