"""What the objects say fits into DICOM's strings, with the score in sight."""

from __future__ import annotations

import math

import pytest

from monai_medclip.writers import Statement
from monai_medclip.writers.dicom_statements import told

from .dicom_sources import SAYS, TWO

LONG = "a rather long question about something in the left lower lobe that does not fit"


@pytest.mark.parametrize("text", ["nodule", "pneumonia in the left lower lobe", LONG])
@pytest.mark.parametrize("method", ["recommended", "conservative propagation of relevance"])
def test_a_description_has_the_score_and_64_characters_at_most(text, method):
    said = told("heatmap", Statement(text, 1.0, 0.834), method)
    assert len(said) <= 64
    assert said.startswith("MedCLIP heatmap: ")
    assert " p=0.83" in said
    assert text[:12] in said


def test_a_short_description_says_everything():
    assert told("heatmap", Statement("nodule", 1.0, 0.83), "recommended") == (
        "MedCLIP heatmap: nodule p=0.83 (recommended)"
    )


def test_texts_come_on_one_line_without_what_separates_values():
    odd = SAYS._replace(answers=(Statement("  left\\right\n\teffusion\x00 ", 1, 0.5),)).checked()
    assert odd.answers[0] == Statement("left/right effusion", 1.0, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": (Statement(" \n", 0, 0.5),)}, "says nothing"),
        ({"answers": (Statement("a", math.nan, 0.5),)}, "must be finite"),
        ({"answers": (Statement("a", 0, 1.5),)}, "probability 1.5"),
        ({"answers": (Statement("a b", 0, 0.5), Statement("a  b", 0, 0.5))}, "asked twice"),
        ({"findings": (Statement("a", 0, 0.5), Statement("a", 0, 0.5))}, "asked twice"),
        ({"threshold": 1.0}, "threshold=1.0"),
        ({"model": ""}, "says nothing"),
    ],
)
def test_what_cannot_be_said_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SAYS._replace(**changes).checked()


def test_a_prompt_may_be_a_finding_too():
    assert TWO._replace(findings=TWO.answers).checked().findings == TWO.answers
