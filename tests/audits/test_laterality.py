"""Left and right: a model that hears sides is right, one that drops them is chance, a mirror turns answers around."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.audits import laterality_audit

from .counting import HEARD, counting_clip, seen, tokenizer

TEXTS = ["left nodule"] * 6 + ["right nodule"] * 4
IMAGES = seen(*TEXTS, "nodule", "nodule")
ITEMS = [
    {
        "id": f"i{n}",
        "patient_id": f"p{n}",
        "meta": {"findings": [{"name": "nodule", "side": side}] if side else []},
        "text": "Nodule.",
    }
    for n, side in enumerate(["left"] * 6 + ["right"] * 4 + ["", ""])
]


def audit(image=IMAGES, heard=HEARD, **arguments):
    return laterality_audit(counting_clip(), tokenizer(heard), image, ITEMS, ["nodule", "effusion"], **arguments)


def test_a_model_that_hears_sides_is_right_and_images_without_a_side_are_counted():
    found = audit()
    row, mean = found.rows
    assert (row["finding"], row["left"], row["right"], mean["finding"]) == ("nodule", 6, 4, "mean")
    assert [row[name] for name in ("correct left", "correct right", "accuracy", "low", "high", "auc")] == [1.0] * 6
    assert row["swapped"] is None
    assert (found.name, found.warning) == ("laterality", False)
    assert found.verdict.startswith("The model tells left from right: of two sides it names the finding's in 100 %")
    assert found.verdict.endswith("Sides are from marked findings; 2 of 12 images have none and were left out.")


def test_a_model_that_drops_sides_is_at_chance():
    found = audit(heard={"nodule": 1})
    assert (found.rows[0]["accuracy"], found.warning) == (0.5, True)
    assert found.verdict.startswith("The model does not tell left from right")


def test_answers_turn_around_in_the_mirror_or_the_audit_warns():
    turned = seen(*["right nodule"] * 6, *["left nodule"] * 4, "nodule", "nodule")
    found = audit(flipped=turned)
    assert [found.rows[0][name] for name in ("swapped", "swapped low", "swapped high")] == [1.0] * 3
    assert not found.warning
    assert "In mirrored images 100 % of its answers turn around" in found.verdict
    stuck = audit(flipped=IMAGES)
    assert (stuck.rows[0]["swapped"], stuck.rows[1]["swapped"], stuck.warning) == (0.0, 0.0, True)
    part = torch.cat([turned[:3], IMAGES[3:]])  # three of ten
    assert audit(flipped=part).rows[0]["swapped"] == pytest.approx(0.3)


def test_sides_may_be_given_and_wrong_ones_turn_the_figure_around():
    sides = {item["id"]: {"nodule": "right" if n < 6 else "left"} for n, item in enumerate(ITEMS[:10])}
    found = audit(sides=sides)
    assert (found.rows[0]["accuracy"], found.rows[0]["left"], found.warning) == (0.0, 4, True)
    assert "Sides are from the caller" in found.verdict
    with pytest.raises(ValueError, match="item i0 has nodule on side 'both': use 'left' or 'right'"):
        audit(sides={"i0": {"nodule": "both"}})


def test_sides_from_reports_are_said_not_to_be_ground_truth():
    items = [{"id": str(n), "text": f"A {text}."} for n, text in enumerate(TEXTS)]
    found = laterality_audit(counting_clip(), tokenizer(), IMAGES[:10], items, ["nodule"], bootstrap=0)
    assert (found.rows[0]["accuracy"], found.rows[0]["low"]) == (1.0, None)
    assert "Sides are from the reports' sentences, which are no ground truth; 0 of 10" in found.verdict


def test_no_side_is_a_result_not_an_error():
    items = [{"id": str(n), "text": "Nodule."} for n in range(12)]
    found = laterality_audit(counting_clip(), tokenizer(), IMAGES, items, ["nodule"])
    assert (found.rows, found.warning) == ((), False)
    assert found.verdict.endswith("whether the model tells left from right is unknown.")
    one_side = audit(sides={"i0": {"nodule": "left"}})
    assert (one_side.rows[0]["correct left"], one_side.rows[0]["accuracy"], one_side.warning) == (1.0, None, False)


def test_rows_must_fit():
    with pytest.raises(ValueError, match=r"image \(12, 7\) and flipped \(3, 7\) must have one row per item \(12\)"):
        audit(flipped=IMAGES[:3])
    with pytest.raises(ValueError, match="one row per item"):
        laterality_audit(counting_clip(), tokenizer(), IMAGES, ITEMS[:3], ["nodule"])
