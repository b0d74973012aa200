"""LIDC ratings in words: every value, clauses that can be dropped, and what readers who disagree say together."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest

from monai_medclip.data import NODULE_CHARACTERISTICS, nodule_sentences, rating_words, reader_consensus
from monai_medclip.transforms import SampleSentencesd, clause_spans

RATINGS = {
    "subtlety": 5,
    "internalStructure": 1,
    "calcification": 3,
    "sphericity": 4,
    "margin": 2,
    "lobulation": 2,
    "spiculation": 4,
    "texture": 5,
    "malignancy": 4,
}


def test_nine_ratings_become_a_caption():
    assert nodule_sentences(RATINGS, with_malignancy=True, diameter_mm=8.79) == (
        "Chest CT: solid ovoid to round lung nodule of 9 mm, rather poorly defined margin, rather marked spiculation, "
        "solid calcification, internal structure of soft tissue, obvious on the image, almost no lobulation. "
        "Malignancy rated moderately suspicious."
    )


def test_the_malignancy_can_be_kept_out_of_the_text():
    told = nodule_sentences(RATINGS, with_malignancy=True)
    assert told.removesuffix(" Malignancy rated moderately suspicious.") == nodule_sentences(
        RATINGS, with_malignancy=False
    )


def test_only_what_was_rated_and_asked_for_is_mentioned():
    assert nodule_sentences({}, with_malignancy=True) == "Chest CT: lung nodule."
    assert nodule_sentences(RATINGS, with_malignancy=True, mention=["margin", "texture"]) == (
        "Chest CT: solid lung nodule, rather poorly defined margin."
    )


@pytest.mark.parametrize("present", [1, 3, 5])
@pytest.mark.parametrize("calcified", [3, 6])
def test_every_clause_stands_alone_whatever_is_absent(present, calcified):
    ratings = RATINGS | {"lobulation": present, "spiculation": 6 - present, "calcification": calcified}
    text = nodule_sentences(ratings, with_malignancy=True)
    clauses = [text[start:end].strip(" ,.") for start, end in clause_spans(text)]
    looks = [rating_words(name, ratings[name]) for name in ("lobulation", "spiculation", "calcification", "margin")]
    assert len(clauses) == 8
    assert set(looks) <= set(clauses)


def test_dropping_clauses_never_asserts_anything_new():
    text = nodule_sentences(RATINGS, with_malignancy=True)
    whole = {text[start:end].strip(" ,.") for start, end in clause_spans(text)}
    sample = SampleSentencesd("text", unit="clause").set_random_state(0)
    kept = [sample({"text": text})["text"] for _ in range(20)]
    assert len(set(kept)) > 5
    for shorter in kept:
        assert {shorter[start:end].strip(" ,.") for start, end in clause_spans(shorter)} <= whole


def test_every_value_has_words_of_its_own():
    sizes = {name: len(set(words.values())) for name, words in NODULE_CHARACTERISTICS.items()}
    assert sizes == dict.fromkeys(NODULE_CHARACTERISTICS, 5) | {"internalStructure": 4, "calcification": 6}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("margin", 6, "margin is 6: LIDC rates it 1 to 5"),
        ("internalStructure", 5, "1 to 4"),
        ("colour", 1, "characteristic 'colour' is none of LIDC's"),
    ],
)
def test_what_is_off_the_scale_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        nodule_sentences({name: value}, with_malignancy=False)
    with pytest.raises(ValueError, match=message):
        reader_consensus(name, [value])


def test_an_unknown_characteristic_cannot_be_mentioned():
    with pytest.raises(ValueError, match="'color'"):
        nodule_sentences(RATINGS, with_malignancy=False, mention=["color"])


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ([4], 4),
        ([1, 2, 5], 2),
        ([3, 4], 4),  # median 3.5: malignant in the field's rule, above 3
        ([2, 3], 2),  # median 2.5: benign, below 3
        ([2, 4], 3),  # indeterminate
        ([1, 2], 1),
        ([4, 5, 4, 5], 5),
    ],
)
def test_grades_are_the_median_away_from_the_middle(values, value):
    assert reader_consensus("malignancy", values).value == value
    assert reader_consensus("malignancy", values[::-1]).value == value
    mirrored = [6 - one for one in values]
    assert reader_consensus("malignancy", mirrored).value == 6 - value  # the scale's two ends are treated alike


def test_kinds_are_the_most_frequent_answer():
    assert reader_consensus("calcification", [6, 6, 3, 5]).value == 6  # the median, 5.5, would be no kind
    assert reader_consensus("calcification", [6, 3]).value == 3


def test_disagreement_is_kept():
    grade = reader_consensus("margin", [5, 3, 1])
    assert (grade.readers, grade.range) == ((5, 3, 1), 4)
    assert grade.agreement == pytest.approx((0.5 + 0.0 + 0.5) / 3)
    kind = reader_consensus("calcification", [6, 6, 3])
    assert (kind.range, kind.agreement) == (1, pytest.approx(1 / 3))
    assert reader_consensus("margin", [4, 4]).agreement == 1.0
    assert math.isnan(reader_consensus("margin", [4]).agreement)


def test_nobody_is_no_consensus():
    with pytest.raises(ValueError, match="margin has no reader"):
        reader_consensus("margin", [])


def test_published_ratings_read_as_in_the_shared_manifest(shared_data):
    with (shared_data / "manifest.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["source"] == "lidc"]
    looks = [name for name in NODULE_CHARACTERISTICS if name not in ("subtlety", "internalStructure")]
    for row in rows:
        meta = json.loads(row["meta"])
        ratings = {name: meta[f"{name[0].upper()}{name[1:]}_value"] for name in looks}
        for column in ("text", "text_alt"):
            told = nodule_sentences(ratings, with_malignancy=column == "text_alt", diameter_mm=meta["diameter_mm"])
            assert phrases(told) == phrases(row[column])
    assert len(rows) == 788


def phrases(text: str) -> list[str]:
    """The words between commas, "with" and "and", in any order."""
    return sorted(part.strip(" .") for part in re.split(r", | with | and |\. ", text))
