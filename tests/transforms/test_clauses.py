"""Captions made of criteria: dropping some never turns another around, and the way back to the original stays."""

from __future__ import annotations

import pytest

from monai_medclip.transforms.clauses import DropClausesd, criterion_spans

CAPTION = (
    "Chest CT: solid ovoid to round lung nodule of 7 mm with nearly sharp margin, medium lobulation, "
    "marked spiculation and no calcification. Malignancy rated moderately suspicious."
)


def criteria(text: str, **options: object) -> list[str]:
    return [text[start:end] for start, end in criterion_spans(text, **options)]


def test_a_caption_falls_into_its_criteria():
    assert criteria(CAPTION) == [
        "Chest CT",
        "solid ovoid to round lung nodule",
        "7 mm",
        "nearly sharp margin",
        "medium lobulation",
        "marked spiculation",
        "no calcification",
        "Malignancy rated moderately suspicious",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no lobulation and spiculation", ["no lobulation and spiculation"]),
        ("no lobulation, spiculation and sharp margin", ["no lobulation, spiculation and sharp margin"]),
        ("no lobulation and no spiculation", ["no lobulation", "no spiculation"]),
        ("Lesion without network and with streaks", ["Lesion without network and with streaks"]),
        ("No nodule of 7 mm, mass", ["No nodule of 7 mm, mass"]),
        ("size 2.5 mm", ["size 2.5 mm"]),
        ("calcification", ["calcification"]),
    ],
)
def test_what_a_negation_reaches_stays_with_it(text, expected):
    assert criteria(text) == expected


def test_connectors_are_the_callers_choice():
    assert criteria("loss of volume with scarring", connectors=("with",)) == ["loss of volume", "scarring"]
    assert criteria("loss of volume with scarring", connectors=()) == ["loss of volume with scarring"]


def test_nothing_and_all_but_one_can_be_dropped():
    kept = DropClausesd("text", drop_prob=0.0)({"text": CAPTION})["text"]
    assert kept == ", ".join(criteria(CAPTION))
    alone = DropClausesd("text", drop_prob=1.0)({"text": CAPTION})["text"]
    assert alone in criteria(CAPTION)


def test_half_of_the_criteria_go_on_average_and_seeds_repeat():
    def sizes(seed: int) -> list[int]:
        drop = DropClausesd("text", drop_prob=0.5).set_random_state(seed)
        return [drop({"text": CAPTION})["text"].count(",") + 1 for _ in range(400)]

    assert sizes(0) == sizes(0) != sizes(1)
    assert sum(sizes(0)) / 400 == pytest.approx(4.0, abs=0.25)  # 8 criteria; the binomial's own error is 0.07


def test_every_kept_character_leads_back_to_the_original():
    drop = DropClausesd("text").set_random_state(3)
    item = drop({"text": CAPTION})
    assert item["text_original"] == CAPTION
    assert len(item["text"]) == len(item["text_offsets"])
    for position, character in enumerate(item["text"]):
        if character not in ", ":
            assert CAPTION[item["text_offsets"][position]] == character
