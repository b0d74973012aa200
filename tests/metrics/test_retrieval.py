"""Retrieval with known answers: perfect, collapsed, random, and with duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_medclip.metrics import retrieval, retrieval_ranks
from monai_medclip.metrics.retrieval import _medians, _of_texts

from .pairs import random_pairs


def test_perfect_pairs_are_found_first_in_every_protocol():
    eye = torch.eye(20)
    report = retrieval(eye, eye)
    for protocol in (report.strict, report.tie_aware, report.deduplicated):
        for direction in protocol:
            assert direction.recall == {1: 1.0, 5: 1.0, 10: 1.0}
            assert (direction.median_rank, direction.mrr) == (1.0, 1.0)
    assert report.ceiling == {1: 1.0, 5: 1.0, 10: 1.0}


def test_hand_computed_ranks():
    # Scores image x text; own pair on the diagonal. Ranks image -> text: 1, 2, 3; text -> image: 2, 1, 3.
    scores = torch.tensor([[0.5, 0.1, 0.3], [0.6, 0.4, 0.35], [0.2, 0.3, 0.1]])
    text = torch.eye(3)
    image = torch.cat([scores, (1 - scores.square().sum(1, keepdim=True)).sqrt()], dim=1)
    report = retrieval(image, F.pad(text, (0, 1)), ks=(1, 2))
    assert report.strict.image_to_text.recall == pytest.approx({1: 1 / 3, 2: 2 / 3})
    assert report.strict.image_to_text.median_rank == 2.0
    assert report.strict.image_to_text.mrr == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert report.strict.text_to_image.recall == pytest.approx({1: 1 / 3, 2: 2 / 3})


def test_a_model_that_answers_the_same_to_everything_gets_exactly_chance():
    groups = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8])
    ones = torch.ones(12, 4)
    report = retrieval(ones, ones, groups)
    for protocol in (report.strict, report.tie_aware, report.deduplicated):
        for direction in protocol:
            assert direction.recall == pytest.approx(direction.chance)
    assert report.strict.image_to_text.chance[5] == pytest.approx(5 / 12)
    assert report.deduplicated.image_to_text.chance[5] == pytest.approx(5 / 9)
    assert report.strict.image_to_text.median_rank == 6.5
    harmonic = sum(1 / rank for rank in range(1, 13)) / 12
    assert report.strict.image_to_text.mrr == pytest.approx(harmonic)


def test_random_embeddings_are_at_chance():
    image, text = random_pairs(3000)
    groups = torch.arange(3000) // 3
    report = retrieval(image, text[::3].repeat_interleave(3, 0), groups, ks=(600,))
    for direction in (*report.strict, *report.deduplicated, report.tie_aware.text_to_image):
        assert direction.recall[600] == pytest.approx(direction.chance[600], rel=0.15)
    stacked = report.tie_aware.image_to_text  # identical texts stand together: three chances are one
    assert stacked.recall[600] == pytest.approx(0.2, rel=0.15)
    assert stacked.chance[600] == pytest.approx(1 - 0.8**3, rel=0.01)


def test_duplicates_cap_strict_recall_at_the_printed_ceiling():
    # A perfect model of 12 pairs in 6 texts of 2: it cannot tell twins apart.
    groups = torch.arange(12) // 2
    perfect = torch.eye(6)[groups]
    report = retrieval(perfect, perfect, groups, ks=(1, 2))
    assert report.ceiling == {1: 0.5, 2: 1.0}
    for direction in report.strict:
        assert direction.recall == pytest.approx(report.ceiling)
    for protocol in (report.tie_aware, report.deduplicated):
        assert protocol.text_to_image.recall[1] == protocol.image_to_text.recall[1] == 1.0
    assert report.deduplicated.image_to_text.gallery == report.deduplicated.text_to_image.queries == 6


def test_tie_aware_chance_is_hypergeometric():
    groups = torch.tensor([0, 0, 0, 1, 2])
    chance = retrieval(*random_pairs(5), groups, ks=(1, 2)).tie_aware.text_to_image.chance
    pair_missed = (2 / 5) * (1 / 4)  # both draws among the two others
    assert chance[1] == pytest.approx((3 * 3 / 5 + 2 * 1 / 5) / 5)
    assert chance[2] == pytest.approx((3 * (1 - pair_missed) + 2 * 2 / 5) / 5)


def test_ties_are_averaged_over_random_orders():
    # Five wrong texts and two right ones share the score: simulate the draw of the first right one.
    image = torch.ones(1, 2).repeat(7, 1)
    groups = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    direction = retrieval(image, image, groups, ks=(3,)).tie_aware.image_to_text
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(7, generator=generator) for _ in range(20000)])
    first = [(torch.isin(groups[orders], groups[q])).int().argmax(1) + 1.0 for q in range(7)]
    assert direction.mrr == pytest.approx(float(torch.cat([1 / f for f in first]).mean()), abs=0.01)
    assert direction.recall[3] == pytest.approx(float(torch.cat([f <= 3 for f in first]).float().mean()), abs=0.01)


def test_order_of_items_and_chunks_do_not_matter():
    image, text = random_pairs(101)
    groups = torch.randint(0, 40, (101,))
    order = torch.randperm(101)
    expected = retrieval(image, text, groups).as_dict()
    assert retrieval(image[order], text[order], groups[order]).as_dict() == pytest.approx(expected)
    assert retrieval(image, text, groups, chunk=7).as_dict() == pytest.approx(expected)
    assert retrieval(3 * image, text, groups).as_dict() == pytest.approx(expected)


def test_swapping_the_sides_swaps_the_directions():
    image, text = random_pairs(60)
    one, other = retrieval(image, text).strict, retrieval(text, image).strict
    assert one.image_to_text == other.text_to_image


def test_flat_names_are_those_that_configs_use():
    flat = retrieval(*random_pairs(12)).as_dict()
    assert {"tie_aware_text_to_image_recall@5", "deduplicated_image_to_text_mrr", "strict_ceiling@10"} <= set(flat)
    assert all(isinstance(value, float) for value in flat.values())


def test_intervals_are_those_of_drawn_patients():
    image, text = random_pairs(90)
    text = text + 0.7 * image
    groups, patients = torch.arange(90) % 70, np.arange(90) // 3
    report = retrieval(image, text, groups, patients=patients, bootstrap=200, generator=3)
    drawn = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=200)[:, patients]
    for protocol, both in retrieval_ranks(image, text, groups)._asdict().items():
        for direction, ranks in both._asdict().items():
            found = getattr(getattr(report, protocol), direction)
            rows = [np.repeat(np.arange(90), counts) for counts in drawn]
            for k in (1, 5, 10):
                recalls = [ranks.within(k).numpy()[row].mean() for row in rows]
                assert found.recall_interval[k] == pytest.approx(np.percentile(recalls, (2.5, 97.5)))
            medians = [np.median(ranks.rank().numpy()[row]) for row in rows]
            assert found.median_rank_interval == pytest.approx(np.percentile(medians, (2.5, 97.5)))
            reciprocals = [ranks.reciprocal().numpy()[row].mean() for row in rows]
            assert found.mrr_interval == pytest.approx(np.percentile(reciprocals, (2.5, 97.5)))


def test_the_bootstrap_changes_no_figure_and_adds_its_names():
    image, text = random_pairs(60)
    groups = torch.arange(60) // 2
    plain = retrieval(image, text, groups).as_dict()
    flat = retrieval(image, text, groups, patients=[f"p{n // 4}" for n in range(60)], bootstrap=50).as_dict()
    assert {name: flat[name] for name in plain} == plain
    added = set(flat) - set(plain)
    assert "deduplicated_text_to_image_recall@5_low" in added
    assert len(added) == 2 * 6 * 5  # both ends, of three recalls, the median rank and the reciprocal one
    assert not [name for name in plain if name.endswith(("_low", "_high"))]
    for low in (name for name in added if name.endswith("_low")):
        assert flat[low] <= flat[low.removesuffix("_low") + "_high"]


def test_texts_of_one_patient_are_resampled_as_any_query():
    image, text = random_pairs(50)
    report = retrieval(image, text + image, patients=np.arange(50) // 2, bootstrap=100)
    assert report.deduplicated.text_to_image.recall_interval == report.strict.text_to_image.recall_interval


def test_a_text_of_several_patients_counts_as_often_as_they_are_drawn_on_average():
    counts = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    found = _of_texts(counts, np.array([0, 0, 1]), np.array([2, 1]))
    assert found.tolist() == [[1.0, 1.0], [0.0, 3.0], [1.0, 1.0]]


def test_a_text_that_nearly_every_patient_has_hardly_moves():
    # Half of the items share one text, found by nobody; the rest find theirs.
    image = torch.eye(40)
    text = torch.cat([torch.eye(40)[20:].flip(0), torch.eye(40)[20:]])
    report = retrieval(image, text, torch.cat([torch.zeros(20).long(), torch.arange(1, 21)]), ks=(1,), bootstrap=300)
    low, high = report.deduplicated.text_to_image.recall_interval[1]
    assert report.deduplicated.text_to_image.recall[1] == pytest.approx(20 / 21)
    assert 20 / 21 - 0.06 < low < high < 20 / 21 + 0.04
    strict_low, strict_high = report.strict.text_to_image.recall_interval[1]
    assert strict_high - strict_low > 3 * (high - low)


def test_a_median_of_repeated_values_is_numpys_and_of_none_is_nan():
    values, counts = np.array([3.0, 1.0, 8.0, 5.0]), np.array([[1, 1, 1, 1], [0, 3, 1, 0], [2, 0, 0, 1], [0, 0, 0, 0]])
    expected = [np.median(np.repeat(values, row)) for row in counts[:3]]
    assert _medians(values, counts.astype(float)).tolist() == pytest.approx([*expected, np.nan], nan_ok=True)
    assert _medians(values, counts[:3] / 3).tolist() == expected


def test_patients_that_are_not_one_per_item_are_refused():
    with pytest.raises(ValueError, match="3 patients were given for 4 items"):
        retrieval(*random_pairs(4), patients=[1, 2, 3], bootstrap=5)


def test_broken_embeddings_are_refused():
    image, text = random_pairs(4)
    with pytest.raises(ValueError, match="finite"):
        retrieval(image * float("nan"), text)
    with pytest.raises(ValueError, match="of the same B"):
        retrieval(image, text[:3])
    with pytest.raises(ValueError, match="of the same B"):
        retrieval(image, text, torch.arange(3))
