"""One number per item: what it knows it reaches, what it does not know it does not."""

from __future__ import annotations

import math

import pytest

from monai_medclip.audits import covariate_baseline, item_values


def items(count: int = 30) -> list[dict]:
    """Sizes 5.2, 6.2, ...: large is malignant, small is calcified, and every third is odd whatever its size."""
    return [
        {
            "id": f"case{i}",
            "meta": {"diameter_mm": 5.2 + i},
            "label": [float(i >= 15), float(i < 10), math.nan if i % 2 else float(i % 3 == 0)],
            "positives": i,
        }
        for i in range(count)
    ]


def test_the_number_ranks_what_depends_on_it():
    found = covariate_baseline(items(), items(), column="meta.diameter_mm", names=("malignant", "calcified", "odd"))
    assert found.auc[:2] == (1.0, 1.0)  # also downwards: the training items say the direction
    assert abs(found.auc[2] - 0.5) < 0.2
    assert found.as_dict()["auc/malignant"] == 1.0
    assert "meta.diameter_mm: AUC malignant 1.000" in str(found)


def test_retrieval_finds_the_text_with_the_nearest_rounded_number():
    found = covariate_baseline(items(), items(), column="meta.diameter_mm", names=("a", "b", "c"))
    assert found.retrieval.deduplicated.image_to_text.recall[1] == 1.0  # 5.2 is nearest to 5, 6.2 to 6
    coarse = covariate_baseline(items(), items(), column="meta.diameter_mm", names=("a", "b", "c"), rounding=5.0)
    assert coarse.retrieval.deduplicated.image_to_text.recall[1] == pytest.approx(0.2, abs=0.05)  # five texts tie


def test_the_direction_is_learned_on_train_not_on_test():
    upside_down = [{**item, "label": [1 - item["label"][0], 0.0, 0.0]} for item in items()]
    found = covariate_baseline(items(), upside_down, column="meta.diameter_mm", names=("malignant", "b", "c"))
    assert found.auc[0] == 0.0
    assert math.isnan(found.auc[1])


def test_an_item_without_the_number_is_named():
    assert item_values(items(2), "meta.diameter_mm") == {"case0": 5.2, "case1": 6.2}
    with pytest.raises(ValueError, match=r"case0 has None in 'meta\.age'"):
        item_values(items(), "meta.age")
