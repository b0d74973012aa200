"""Captions of criteria: readable words, and the order that training shuffles without turning one around."""

from __future__ import annotations

import pytest

from monai_medclip.data import CRITERIA, criteria_caption
from monai_medclip.transforms import ShuffleSentencesd, clause_spans

MELANOMA = {
    "blue_whitish_veil": "present",
    "streaks": "irregular",
    "regression_structures": "absent",
    "pigment_network": "atypical",
    "dots_and_globules": "absent",
    "vascular_structures": "linear irregular",
}
CAPTION = (
    "Dermoscopic image of melanoma, atypical pigment network, irregular streaks, blue-whitish veil present, "
    "linear irregular vessels, dots and globules absent, regression structures absent."
)


def test_present_criteria_come_in_the_checklists_order_and_absent_ones_last():
    assert criteria_caption("melanoma", MELANOMA) == CAPTION


def test_an_unnamed_diagnosis_and_criteria_that_nobody_scored_are_not_told():
    assert criteria_caption(None, {"streaks": ""}) == "Dermoscopic image of a skin lesion."
    assert criteria_caption("lentigo", {}, kind="Clinical photograph") == "Clinical photograph of lentigo."


def test_colors_are_one_clause():
    one, two = (criteria_caption(None, {"colors": colors}) for colors in ("blue-gray", "white and light brown"))
    assert one.endswith(", blue-gray color.")
    assert two.endswith(", white and light brown colors.")


def test_shuffling_in_training_keeps_the_diagnosis_first_and_every_criterion_as_it_was():
    shuffle = ShuffleSentencesd("text", unit="clause", keep_first=True)
    seen = set()
    for seed in range(20):
        shuffle.set_random_state(seed)
        text = shuffle({"text": CAPTION})["text"]
        clauses = text.split(", ")
        assert clauses[0] == "Dermoscopic image of melanoma"
        assert sorted(clauses) == sorted(CAPTION.rstrip(".").split(", "))
        assert "dots and globules absent, regression structures absent" in text  # nothing present stands between
        seen.add(text)
    assert len(seen) > 10


def test_every_word_of_the_checklist_is_a_clause_of_its_own():
    for name, values in CRITERIA.items():
        for value in values:
            caption = criteria_caption("clark nevus", {name: value})
            assert len(clause_spans(caption)) == 2, caption
            assert (value == "absent") == caption.endswith("absent.")


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"border": "sharp"}, r"\['border'\] have no words: use some of \['asymmetry'"),
        ({"streaks": "odd"}, r"'streaks' is 'odd': use one of \['absent', 'present', 'regular', 'irregular'\]"),
        ({"colors": "white and green"}, "'colors' is 'white and green'"),
    ],
)
def test_what_has_no_words_is_named(criteria, message):
    with pytest.raises(ValueError, match=message):
        criteria_caption(None, criteria)
