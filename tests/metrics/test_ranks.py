"""Ranks item by item: by hand, over ties, and as what the figures of `retrieval` are the means of."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from monai_medclip.metrics import QueryRanks, retrieval, retrieval_ranks

from .pairs import random_pairs


def ranks(above: float, right: float, wrong: float, answers: float = 3, gallery: int = 9) -> QueryRanks:
    return QueryRanks(
        *(torch.tensor([value], dtype=torch.float64) for value in (above, right, wrong, answers)), gallery
    )


def test_hand_computed_ranks_in_the_order_of_the_items() -> None:
    # Texts 0 and 2 are the same. Image 0 prefers text 1, image 1 its own, image 2 the same text as its own.
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    image = torch.tensor([[0.6, 0.8], [0.1, 0.9], [0.9, 0.1]])
    found = retrieval_ranks(image, text, torch.tensor([7, 5, 7])).columns()
    expected = {
        "strict_image_to_text_rank": [2.5, 1.0, 1.5],  # texts 0 and 2 tie
        "strict_text_to_image_rank": [2.0, 1.0, 1.0],
        "tie_aware_image_to_text_rank": [2.0, 1.0, 1.0],
        "tie_aware_text_to_image_rank": [1.0, 1.0, 1.0],
    }
    assert {name: column.tolist() for name, column in found.items()} == expected


@pytest.mark.parametrize("protocol", ["strict", "tie_aware"])
@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_figures_of_retrieval_are_their_means(protocol: str, direction: str) -> None:
    image, text = random_pairs(80)
    groups = torch.arange(80) // 2
    figures = getattr(getattr(retrieval(image, text[groups], groups), protocol), direction)
    found = getattr(getattr(retrieval_ranks(image, text[groups], groups, chunk=11), protocol), direction)
    for k in (1, 5, 10):
        assert float(found.within(k).mean()) == pytest.approx(figures.recall[k])
        assert float(found.uninformed().within(k).mean()) == pytest.approx(figures.chance[k])
    assert float(found.rank().quantile(0.5)) == figures.median_rank
    assert float(found.reciprocal().mean()) == pytest.approx(figures.mrr)
    assert found.gallery == 80


@pytest.mark.parametrize(("above", "right", "wrong"), [(0, 1, 0), (2, 1, 3), (0, 2, 3), (4, 3, 2)])
def test_ties_are_the_mean_over_all_their_orders(above: int, right: int, wrong: int) -> None:
    orders = set(permutations([True] * right + [False] * wrong))
    first = [above + order.index(True) + 1 for order in orders]
    found = ranks(above, right, wrong)
    assert found.rank().item() == pytest.approx(sum(first) / len(first))
    assert found.reciprocal().item() == pytest.approx(sum(1 / rank for rank in first) / len(first))
    for k in range(1, 10):
        assert found.within(k).item() == pytest.approx(sum(rank <= k for rank in first) / len(first))


def test_an_uninformed_model_finds_any_of_the_right_answers_by_chance() -> None:
    assert ranks(5, 1, 0, answers=3, gallery=9).uninformed().within(1).item() == pytest.approx(3 / 9)
    assert ranks(5, 1, 0, answers=3, gallery=9).uninformed().rank().item() == pytest.approx(10 / 4)


def test_some_of_the_queries_keep_their_ranks_and_the_gallery() -> None:
    found = retrieval_ranks(*random_pairs(20)).strict.text_to_image
    some = found.of(torch.tensor([3, 17]))
    assert torch.equal(some.rank(), found.rank()[[3, 17]])
    assert some.gallery == 20
    assert torch.equal(found.of(torch.arange(20) > 5).rank(), found.rank()[6:])


def test_bad_input_is_named() -> None:
    image, text = random_pairs(4)
    with pytest.raises(ValueError, match="of the same B"):
        retrieval_ranks(image, text[:3])
    with pytest.raises(ValueError, match="text embeddings"):
        retrieval_ranks(image, text / 0)
