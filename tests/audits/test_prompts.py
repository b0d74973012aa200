"""Wording: known AUCs of single prompts, their spread, and the ensemble and rules beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.audits import GENERIC_TEMPLATES, prompt_audit, prompt_figures
from monai_medclip.findings import Finding

from .counting import counting_clip, seen, tokenizer

# "spot" is what shows a nodule; "nodule" is on every image, and "effusion" on the healthy ones alone.
IMAGES = seen(*["nodule spot"] * 10, *["nodule effusion"] * 10)
LABEL = np.array([[1.0]] * 10 + [[0.0]] * 10)
NODULE = Finding("nodule", ("Spot.", "Effusion."), ("No nodule.",))


def figures(**arguments):
    return prompt_figures(counting_clip(), tokenizer(), IMAGES, LABEL, [NODULE], **arguments)[0]


def test_every_prompt_has_its_auc():
    one = figures()
    assert one.prompts == ("Spot.", "Effusion.", *(text.format("nodule") for text in GENERIC_TEMPLATES))
    assert one.auc == pytest.approx((1.0, 0.0, *[0.5] * len(GENERIC_TEMPLATES)))
    assert (one.prompts[one.best], one.prompts[one.worst], one.spread) == ("Spot.", "Effusion.", 1.0)
    assert (one.spread_interval, one.positives, one.negatives) == ((1.0, 1.0), 10, 10)


def test_the_ensemble_and_the_rules_stand_beside_them():
    one = figures(templates=())
    assert len(one.prompts) == 2
    assert one.rules["positive"] == pytest.approx(0.5)  # for and against weigh the same
    assert set(one.rules) == {"positive", "name", "positive_minus_normal", "positive_minus_negative", "name_pair"}
    without = prompt_figures(counting_clip(), tokenizer(), IMAGES, LABEL, [Finding("nodule", ("Spot.",), ())])[0]
    assert "positive_minus_negative" not in without.rules
    assert without.rules["positive"] == 1.0


def test_the_verdict_names_the_spread_and_the_worst_prompt():
    found = prompt_audit(
        prompt_figures(counting_clip(), tokenizer(), IMAGES, LABEL, [NODULE], patients=[f"p{n}" for n in range(20)])
    )
    (row,) = found.rows
    assert (row["lowest"], row["median"], row["highest"], row["spread"]) == (0.0, 0.5, 1.0, 1.0)
    assert (row["worst prompt"], row["best prompt"], row["prompts"]) == ("Effusion.", "Spot.", 7)
    assert row["sd"] == pytest.approx(np.std([1, 0, 0.5, 0.5, 0.5, 0.5, 0.5]))
    assert (found.name, found.warning) == ("prompts", True)
    assert found.verdict.startswith(
        "Wording alone moves the AUC by 1.00 on average, and most for nodule: 0.00 by 'Effusion.', 1.00 by 'Spot.'."
    )


def test_wordings_that_agree_do_not_warn():
    same = Finding("spot", ("Spot.", "A spot."), ())
    found = prompt_audit(prompt_figures(counting_clip(), tokenizer(), IMAGES, LABEL, [same]))
    assert (found.rows[0]["spread"], found.rows[0]["sd"], found.warning) == (0.0, 0.0, False)


def test_a_sentence_is_asked_as_it_stands_and_a_missing_class_gives_no_figure():
    label = np.column_stack([LABEL[:, 0], np.full(20, math.nan)])
    found = prompt_audit(prompt_figures(counting_clip(), tokenizer(), IMAGES, label, ["Is there a spot?", "effusion"]))
    asked, unknown = found.rows
    assert (asked["prompts"], asked["ensemble"]) == (1, 1.0)
    assert (unknown["with"], unknown["ensemble"], unknown["worst prompt"]) == (0, None, None)
    assert list(asked) == list(unknown)
    nobody = prompt_audit(prompt_figures(counting_clip(), tokenizer(), IMAGES, label[:, 1:], ["effusion"]))
    assert nobody.verdict.endswith("how much the wording matters is unknown.")
    assert not nobody.warning


def test_labels_must_fit():
    with pytest.raises(ValueError, match=r"label \(20, 1\) must be \(20, 2\)"):
        prompt_audit(prompt_figures(counting_clip(), tokenizer(), IMAGES, LABEL, ["nodule", "spot"]))
