"""Sentences and clauses are cut where they end, and dropping one never turns another's meaning around."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.transforms import SampleSentencesd, ShuffleSentencesd, clause_spans, sentence_spans


def pieces(spans, text):
    return [text[start:end] for start, end in spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Seen by Dr. Smith. No change.", ["Seen by Dr. Smith.", "No change."]),
        ("Nodule of 2.5 cm vs. 2.1 cm. Stable.", ["Nodule of 2.5 cm vs. 2.1 cm.", "Stable."]),
        ("1. Cardiomegaly. 2. No effusion.", ["1. Cardiomegaly.", "2. No effusion."]),
        (
            "Is there effusion? No. Is the heart large? Yes.",
            ["Is there effusion?", "No.", "Is the heart large?", "Yes."],
        ),
        ("heart is normal. the lungs are clear", ["heart is normal.", "the lungs are clear"]),
        ("First line\nsecond line", ["First line", "second line"]),
        ("Unchanged since 10. No effusion.", ["Unchanged since 10.", "No effusion."]),
        ("Compare rib no. 3 on the left. Done!", ["Compare rib no. 3 on the left.", "Done!"]),
        ("", []),
        (" . ", []),
    ],
)
def test_sentences_end_where_they_end(text, sentences):
    assert pieces(sentence_spans, text) == sentences


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("Solid nodule, sharp margin; marked spiculation.", ["Solid nodule,", "sharp margin;", "marked spiculation."]),
        ("No effusion, pneumothorax or edema.", ["No effusion, pneumothorax or edema."]),
        ("Heart normal, no effusion, pneumothorax or edema.", ["Heart normal,", "no effusion, pneumothorax or edema."]),
        ("Almost no lobulation, almost no spiculation.", ["Almost no lobulation,", "almost no spiculation."]),
        ("No mass, effusion, and no edema, cysts.", ["No mass, effusion,", "and no edema, cysts."]),
        ("Nodule of 1,5 cm, solid. Clear lungs.", ["Nodule of 1,5 cm,", "solid.", "Clear lungs."]),
    ],
)
def test_clauses_stay_with_the_negation_that_reaches_them(text, clauses):
    assert pieces(clause_spans, text) == clauses


REPORT = "Heart normal. No effusion, pneumothorax or edema. Nodule of 2.5 cm, sharp margin. Old rib fracture."


@pytest.mark.parametrize("unit", ["sentence", "clause"])
def test_sampling_keeps_order_minimum_and_the_way_back(unit):
    sample = SampleSentencesd("text", drop_prob=0.5, at_least=2, unit=unit)
    sample.set_random_state(0)
    lengths = set()
    for _ in range(50):
        item = sample({"text": REPORT})
        spans = {"sentence": sentence_spans, "clause": clause_spans}[unit]
        kept = pieces(spans, item["text"])
        lengths.add(len(kept))
        stems = [piece.rstrip(" ,;") for piece in kept]
        assert [REPORT.index(stem) for stem in stems] == sorted(REPORT.index(stem) for stem in stems)
        assert all(REPORT[offset] == char for offset, char in zip(item["text_offsets"], item["text"]) if char != " ")
        assert "pneumothorax" not in item["text"] or "No effusion, pneumothorax" in item["text"]
    assert min(lengths) == 2
    assert max(lengths) >= 4


def test_sampling_drops_each_sentence_as_often_as_it_should():
    sample = SampleSentencesd("text", drop_prob=0.25)
    sample.set_random_state(1)
    texts = [sample({"text": "One here. Two here. Three here. Four here."})["text"] for _ in range(2000)]
    share = [np.mean([word in text for text in texts]) for word in ("One", "Two", "Three", "Four")]
    np.testing.assert_allclose(share, 0.75 + 0.25**4 / 4, atol=0.03)


def test_sampling_one_sentence_and_all():
    one = SampleSentencesd("text", drop_prob=0.0, at_most=1)
    one.set_random_state(0)
    assert {one({"text": "A b. C d."})["text"] for _ in range(30)} == {"A b.", "C d."}
    assert SampleSentencesd("text", drop_prob=0.0)({"text": REPORT})["text"] == REPORT
    assert SampleSentencesd("text", drop_prob=1.0)({"text": "Single."})["text"] == "Single."


def test_a_kept_section_is_never_dropped():
    report = "FINDINGS: Heart normal. No effusion. IMPRESSION: Nodule on the right. Follow up."
    sample = SampleSentencesd("text", drop_prob=0.8, keep_section="impression")
    sample.set_random_state(0)
    texts = [sample({"text": report})["text"] for _ in range(400)]
    assert all(text.endswith("IMPRESSION: Nodule on the right. Follow up.") for text in texts)
    assert np.mean(["effusion" in text for text in texts]) == pytest.approx(0.2, abs=0.05)
    nothing_else = SampleSentencesd("text", drop_prob=1.0, keep_section="impression")
    assert nothing_else({"text": report})["text"] == "IMPRESSION: Nodule on the right. Follow up."
    assert nothing_else({"text": "Heart normal. No effusion."})["text"] in ("Heart normal.", "No effusion.")


def test_same_seed_same_sentences():
    first, second = SampleSentencesd("text"), SampleSentencesd("text")
    first.set_random_state(7)
    second.set_random_state(7)
    assert [first({"text": REPORT})["text"] for _ in range(9)] == [second({"text": REPORT})["text"] for _ in range(9)]


def test_criteria_are_reordered_and_none_is_lost():
    caption = "Dermoscopic image of a nevus, regular network, no blue veil, brown globules."
    shuffle = ShuffleSentencesd("text", unit="clause", keep_first=True)
    shuffle.set_random_state(0)
    seen = set()
    for _ in range(30):
        item = shuffle({"text": caption})
        seen.add(item["text"])
        assert item["text"].startswith("Dermoscopic image of a nevus, ")
        assert sorted(item["text"].replace(",", "").split()) == sorted(caption.rstrip(".").replace(",", "").split())
        assert "no blue veil, brown globules" in item["text"]  # in reach of the negation, so never apart
    assert len(seen) == 2  # two movable units
    assert ShuffleSentencesd("text", prob=0.0)({"text": REPORT})["text"] == REPORT


@pytest.mark.parametrize(
    "wrong",
    [{"drop_prob": 1.5}, {"at_least": 0}, {"at_least": 3, "at_most": 2}, {"unit": "word"}, {"keep_section": "coda"}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must lie|choose"):
        SampleSentencesd("text", **wrong)
