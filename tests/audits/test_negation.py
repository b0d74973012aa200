"""Negation: a model that counts "no" hears it, one that drops it is deaf, and one that always denies is tilted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_medclip.audits import NEGATION_TEMPLATES, negation_audit

from .counting import HEARD, counting_clip, seen, tokenizer

IMAGES = seen(*["nodule"] * 10, *["no nodule"] * 10)
LABEL = np.array([[1.0]] * 10 + [[0.0]] * 10)
PATIENTS = [f"p{n}" for n in range(20)]


def test_a_model_that_hears_no_is_right_everywhere():
    found = negation_audit(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule"], patients=PATIENTS)
    row, mean = found.rows
    assert (row["finding"], row["with"], row["without"], mean["finding"]) == ("nodule", 10, 10, "mean")
    assert [row[name] for name in ("correct with", "correct without", "accuracy", "low", "high", "auc")] == [1.0] * 6
    assert row["cosine"] == pytest.approx(math.sqrt(0.5), abs=1e-4)  # (1, 0) against (1, 1)
    assert (found.name, found.warning) == ("negation", False)
    assert found.verdict.startswith("The model hears negation: a finding's text and its denial have cosine 0.71")
    assert "right in 100 % (100 % to 100 %)" in found.verdict


def test_a_model_that_drops_no_is_deaf():
    deaf = tokenizer({word: number for word, number in HEARD.items() if number != 3})
    found = negation_audit(counting_clip(), deaf, IMAGES, LABEL, ["nodule"], patients=PATIENTS)
    assert found.warning
    assert found.rows[0]["cosine"] == pytest.approx(1.0)
    assert found.rows[0]["accuracy"] == found.rows[0]["auc"] == 0.5
    assert "does not hear negation" in found.verdict
    assert "cosine 1.00" in found.verdict
    assert "right in 50 %" in found.verdict


def test_a_model_that_always_denies_is_chance_but_told_to_rank():
    images = torch.nn.functional.normalize(IMAGES + 2 * seen("no"), dim=1)
    found = negation_audit(counting_clip(), tokenizer(), images, LABEL, ["nodule"], patients=PATIENTS)
    row = found.rows[0]
    assert (row["correct with"], row["correct without"], row["accuracy"], row["auc"]) == (0.0, 1.0, 0.5, 1.0)
    assert found.warning
    assert "tilted towards the denial" in found.verdict


def test_single_pairs_are_judged_beside_the_ensemble():
    templates = [("{}.", "No {}."), ("No {}.", "{}.")]  # the second has its sides exchanged
    found = negation_audit(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule"], templates=templates[:1])
    turned = negation_audit(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule"], templates=templates)
    assert (found.rows[0]["worst pair"], found.rows[0]["best pair"]) == (1.0, 1.0)
    assert (turned.rows[0]["worst pair"], turned.rows[0]["best pair"]) == (0.0, 1.0)
    assert turned.rows[0]["accuracy"] == 0.5  # for and against are the same ensemble


def test_unknown_labels_single_classes_and_sentences_are_left_out():
    label = np.column_stack([LABEL[:, 0], np.ones(20), np.full(20, math.nan), LABEL[:, 0]])
    label[0, 0] = math.nan
    names = ["nodule", "effusion", "spot", "The lungs are clear."]
    found = negation_audit(counting_clip(), tokenizer(), IMAGES, label, names, patients=PATIENTS)
    assert [row["finding"] for row in found.rows] == ["nodule", "effusion", "spot", "mean"]
    assert [(row["with"], row["without"]) for row in found.rows] == [(9, 10), (20, 0), (0, 0), (9, 10)]
    assert found.rows[1]["accuracy"] is None
    assert "mean of 1 finding(s)" in found.verdict
    alone = negation_audit(counting_clip(), tokenizer(), IMAGES, label[:, 1:2], ["effusion"])
    assert (alone.warning, len(alone.rows)) == (False, 1)
    assert alone.verdict.endswith("whether the model hears 'no' is unknown.")


def test_templates_are_pairs_that_take_a_name_each():
    assert all(text.format("edema").count("edema") == 1 for pair in NEGATION_TEMPLATES for text in pair)


def test_shapes_and_templates_are_checked():
    with pytest.raises(ValueError, match=r"label \(20, 1\) must be \(20, 2\)"):
        negation_audit(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule", "effusion"])
    with pytest.raises(ValueError, match="no template was given"):
        negation_audit(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule"], templates=[])
