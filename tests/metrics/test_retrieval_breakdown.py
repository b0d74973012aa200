"""Retrieval by property: rows are the subset's own queries among the whole gallery, and a planted weakness shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medclip.metrics import retrieval, retrieval_breakdown, retrieval_ranks

from .pairs import random_pairs


def views(items: int = 120) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Frontal images find their text, lateral ones do not."""
    image, text = random_pairs(items)
    view = ["frontal" if number % 3 else "lateral" for number in range(items)]
    frontal = torch.tensor([one == "frontal" for one in view])
    return torch.where(frontal[:, None], text, image), text, view


def test_a_row_of_all_items_is_tie_aware_retrieval() -> None:
    image, text, _ = views()
    groups, patients = torch.arange(120) % 90, np.arange(120) // 4
    ranks = retrieval_ranks(image, text, groups)
    (row,) = retrieval_breakdown(ranks, {"all": [1] * 120}, patients=patients, bootstrap=80, generator=2)
    expected = retrieval(image, text, groups, patients=patients, bootstrap=80, generator=2).tie_aware
    assert (row.image_to_text, row.text_to_image) == tuple(expected)
    assert (row.covariate, row.value, row.items, row.patients) == ("all", "1", 120, 30)


def test_a_view_that_is_not_found_shows() -> None:
    image, text, view = views()
    ranks = retrieval_ranks(image, text)
    lateral, frontal = retrieval_breakdown(ranks, {"view": view}, bootstrap=200)
    assert (lateral.value, lateral.items, frontal.value, frontal.items) == ("lateral", 40, "frontal", 80)
    assert frontal.image_to_text.recall[1] == frontal.image_to_text.mrr == 1.0
    assert frontal.image_to_text.median_rank_interval == (1.0, 1.0)
    low, high = lateral.text_to_image.recall_interval[10]  # type: ignore[misc]
    assert low <= lateral.text_to_image.recall[10] <= high < 0.5
    assert lateral.image_to_text.gallery == 120
    assert lateral.image_to_text.queries == 40


def test_an_item_counts_in_each_of_its_findings_and_without_one_in_none() -> None:
    image, text, _ = views(6)
    findings = [["nodule"], ["nodule", "mass"], [], None, ["mass", "mass"], ""]
    rows = retrieval_breakdown(retrieval_ranks(image, text), {"finding": findings, "size": [1, 1, 1, 2, 2, np.nan]})
    assert [(row.value, row.items) for row in rows] == [("nodule", 2), ("mass", 2), ("1", 3), ("2", 2)]
    assert rows[0].image_to_text.recall_interval == {1: None, 5: None, 10: None}


def test_frequent_texts_have_more_chance() -> None:
    image, text, _ = views(100)
    groups = torch.cat([torch.zeros(50).long(), torch.arange(1, 51)])
    normal, rest = retrieval_breakdown(
        retrieval_ranks(image, text, groups), {"text": ["normal"] * 50 + ["rare"] * 50}, ks=(1,)
    )
    assert normal.text_to_image.chance == pytest.approx({1: 0.5})
    assert rest.text_to_image.chance == pytest.approx({1: 0.01})


def test_flat_names_are_those_of_a_table() -> None:
    image, text, view = views(30)
    (row, _) = retrieval_breakdown(retrieval_ranks(image, text), {"view": view}, ks=(5,), bootstrap=20)
    flat = row.as_dict()
    assert list(flat)[:4] == ["covariate", "value", "items", "patients"]
    names = {"image_to_text_recall@5_low", "text_to_image_chance@5", "text_to_image_median_rank", "image_to_text_mrr"}
    assert names <= set(flat)


def test_lists_that_are_not_one_per_item_are_refused() -> None:
    ranks = retrieval_ranks(*random_pairs(4))
    with pytest.raises(ValueError, match="covariate 'view' has 3 values for 4 items"):
        retrieval_breakdown(ranks, {"view": ["a", "b", "c"]})
    with pytest.raises(ValueError, match="2 patients were given for 4 items"):
        retrieval_breakdown(ranks, {}, patients=["a", "b"])
