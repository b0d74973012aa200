"""Matched and mismatched cosines by brute force, and in-batch accuracy with its chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_medclip.metrics import clip_score, in_batch_top1

from .pairs import random_pairs


def test_means_over_all_pairs_by_brute_force() -> None:
    image, text = random_pairs(30)
    groups = torch.arange(30) // 2
    text = text[groups]
    cosines = F.normalize(image.double(), dim=1) @ F.normalize(text.double(), dim=1).T
    found = clip_score(image, text, groups)
    assert found.score == pytest.approx(float(cosines.diagonal().mean()), abs=1e-6)
    assert found.mismatched == pytest.approx(float(cosines[groups[:, None] != groups].mean()), abs=1e-6)
    assert found.items == 30
    assert (found.score_interval, found.mismatched_interval) == (None, None)
    every = clip_score(image, text).mismatched
    assert every == pytest.approx(float(cosines[~torch.eye(30, dtype=torch.bool)].mean()), abs=1e-6)


def test_perfect_opposite_and_orthogonal_pairs() -> None:
    eye = torch.eye(4)
    assert clip_score(eye, 3 * eye)[:2] == (1.0, 0.0)
    assert clip_score(eye, -eye).score == -1.0


def test_intervals_are_those_of_drawn_patients() -> None:
    image, text = random_pairs(40)
    patients = np.arange(40) // 4
    groups = torch.cat([torch.zeros(10).long(), torch.arange(1, 31)])
    found = clip_score(image, text + image, groups, patients=patients, bootstrap=150, generator=6)
    cosines = (F.normalize(image, dim=1) @ F.normalize(text + image, dim=1).T).double().numpy()
    drawn = np.random.default_rng(6).multinomial(10, np.full(10, 0.1), size=150)[:, patients]
    other = groups.numpy()[:, None] != groups.numpy()
    rows = [np.repeat(np.arange(40), counts) for counts in drawn]
    matched = [cosines.diagonal()[row].mean() for row in rows]
    mismatched = [cosines[row][other[row]].mean() for row in rows]
    assert found.score_interval == pytest.approx(np.percentile(matched, (2.5, 97.5)), abs=1e-6)
    assert found.mismatched_interval == pytest.approx(np.percentile(mismatched, (2.5, 97.5)), abs=1e-6)
    flat = found.as_dict()
    assert flat["clip_score_low"] < flat["clip_score"] < flat["clip_score_high"]
    assert flat["clip_score_mismatched_high"] < flat["clip_score_low"]


def test_texts_that_are_all_the_same_have_no_mismatch() -> None:
    found = clip_score(torch.eye(3), torch.ones(3, 3), torch.zeros(3), bootstrap=5)
    assert np.isnan(found.mismatched)
    assert found.mismatched_interval is None
    assert found.score == pytest.approx(3**-0.5)


def test_in_batch_figures_of_a_model_that_knows_nothing_are_chance() -> None:
    found = in_batch_top1(torch.ones(130, 4), torch.ones(130, 4))
    assert (found.accuracy, found.chance, found.batches) == (pytest.approx(1 / 64), 1 / 64, 2)
    assert found.loss == pytest.approx(math.log(64)) == pytest.approx(found.loss_chance)
    assert found.loss_chance == pytest.approx(4.159, abs=1e-3)
    assert found.as_dict()["in_batch_top1_loss_chance"] == found.loss_chance


def test_in_batch_figures_of_one_full_batch_are_those_of_its_matrix() -> None:
    image, text = random_pairs(32)
    text = text + image
    found = in_batch_top1(image, text, batch_size=32, logit_scale=5.0)
    cosines = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    assert found.accuracy == float((cosines.argmax(1) == torch.arange(32)).double().mean())
    assert found.loss == pytest.approx(float(F.cross_entropy(5 * cosines, torch.arange(32))), rel=1e-5)
    assert 1 / 32 < found.accuracy < 1


def test_smaller_batches_are_easier_which_is_why_they_are_no_retrieval() -> None:
    image, text = random_pairs(300)
    accuracies = [in_batch_top1(image, text + 0.5 * image, batch_size=size).accuracy for size in (2, 16, 300)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[2] + 0.2


def test_in_batch_figures_follow_the_seed_and_drop_what_is_left_over() -> None:
    image, text = random_pairs(70)
    one, same, other = (in_batch_top1(image, text + image, batch_size=32, generator=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.loss != other.loss
    assert one.batches == 2


def test_a_trained_scale_may_be_a_parameter() -> None:
    image, text = random_pairs(8)
    scale = torch.nn.Parameter(torch.tensor(5.0))
    assert in_batch_top1(image, text, batch_size=4, logit_scale=scale) == in_batch_top1(
        image, text, batch_size=4, logit_scale=5.0
    )


def test_bad_input_is_named() -> None:
    image, text = random_pairs(4)
    with pytest.raises(ValueError, match="4 items do not fill one batch of 64"):
        in_batch_top1(image, text)
    with pytest.raises(ValueError, match="batch of 1"):
        in_batch_top1(image, text, batch_size=1)
    with pytest.raises(ValueError, match=r"logit_scale=-1.0 must be above 0"):
        in_batch_top1(image, text, batch_size=2, logit_scale=-1)
    with pytest.raises(ValueError, match="of the same B"):
        clip_score(image, text[:2])
    with pytest.raises(ValueError, match="3 patients were given for 4 items"):
        clip_score(image, text, patients=[1, 2, 3])
