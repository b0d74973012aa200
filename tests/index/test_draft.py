"""The draft: quotations to the letter, each with all of its sources, and none of the patient's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_medclip.index import EmbeddingIndex, SentenceSource, draft_report, sentence_records

ITEMS = [
    {
        "id": "1a",
        "study_id": "s1",
        "patient_id": "p1",
        "text": "unused where sections are",
        "sections": {
            "indication": "Cough. Fever.",
            "findings": "No effusion. Nodule of 2.5 cm.",
            "impression": "Nodule.",
        },
    },
    {"id": "2", "study_id": "s2", "patient_id": "p2", "text": "FINDINGS: no  effusion.\nINDICATION: Pain.\n1. Nodule."},
    {"id": "3", "patient_id": "p3", "text": "No effusion. Heart is big. 2."},
]
# No effusion lies at 0 degrees, and so on; an image is asked at one of them.
PLACES = {"no effusion": 0.0, "nodule of 2.5 cm": 60.0, "nodule": 62.0, "heart is big": 30.0}


def at(degrees: float) -> Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()])


@pytest.fixture
def index(tmp_path: Path) -> EmbeddingIndex:
    index = EmbeddingIndex.create(tmp_path, 2, model="m")
    records = sentence_records(ITEMS)
    words = [" ".join(record["text"].lower().replace("1. ", "").split()).rstrip(".") for record in records]
    index.add(torch.stack([at(PLACES[one]) for one in words]), records, model="m")
    return index


def test_reports_are_cut_into_sentences_with_their_sources() -> None:
    records = sentence_records(ITEMS)
    assert [(one["id"], one["text"]) for one in records] == [
        ("s1/findings/1", "No effusion."),
        ("s1/findings/2", "Nodule of 2.5 cm."),
        ("s1/impression/1", "Nodule."),
        ("s2/findings/1", "no  effusion."),
        ("3/text/1", "No effusion."),
        ("3/text/2", "Heart is big."),
    ]
    assert records[1] == {
        "id": "s1/findings/2",
        "text": "Nodule of 2.5 cm.",
        "study_id": "s1",
        "patient_id": "p1",
        "section": "findings",
    }


def test_the_images_of_a_study_share_its_report() -> None:
    other_view = {**ITEMS[0], "id": "1b"}
    addendum = {"study_id": "s1", "patient_id": "p1", "sections": {"findings": "Nodule of 2.5 cm. Rib fracture."}}
    records = sentence_records([ITEMS[0], other_view, addendum])
    assert [one["id"] for one in records if one["section"] == "findings"] == [
        "s1/findings/1",
        "s1/findings/2",
        "s1/findings/3",
    ]
    assert records[-1]["text"] == "Rib fracture."
    wanted = sentence_records([ITEMS[0]], sections=["indication"])
    assert [one["text"] for one in wanted] == ["Cough.", "Fever."]


def test_sentences_of_the_same_words_are_one_with_all_sources(index: EmbeddingIndex) -> None:
    (first, second) = draft_report(at(10), index, n=2).sentences
    assert (first.text, second.text) == ("No effusion.", "Heart is big.")
    assert first.score == pytest.approx(float(at(10)[0]), abs=1e-6)
    assert first.sources == (
        SentenceSource("s1", "p1", "findings"),
        SentenceSource("s2", "p2", "findings"),
        SentenceSource("3", "p3", "text"),
    )


def test_sentences_that_nearly_say_the_same_are_listed_once(index: EmbeddingIndex) -> None:
    draft = draft_report(at(63), index, same_above=0.99)
    assert [one.text for one in draft.sentences] == ["Nodule.", "Heart is big.", "No effusion."]
    assert draft.sentences[0].variants == ("Nodule of 2.5 cm.",)
    apart = draft_report(at(63), index, same_above=1.0)
    assert [one.text for one in apart.sentences][:2] == ["Nodule.", "Nodule of 2.5 cm."]


def test_a_patients_own_report_is_not_quoted(index: EmbeddingIndex) -> None:
    draft = draft_report(at(61), index, exclude_patients=["p1"])
    assert [one.text for one in draft.sentences] == ["Heart is big.", "no  effusion."]
    assert {source.patient_id for one in draft.sentences for source in one.sources} == {"p2", "p3"}


def test_what_is_too_far_away_is_not_quoted(index: EmbeddingIndex) -> None:
    draft = draft_report(at(0), index, min_score=0.8)
    assert [one.text for one in draft.sentences] == ["No effusion.", "Heart is big."]
    nothing = draft_report(at(180), index)
    assert nothing.sentences == ()
    assert str(nothing).endswith("No sentence is near enough.")


def test_all_sources_of_a_frequent_sentence_are_counted(tmp_path: Path) -> None:
    index = EmbeddingIndex.create(tmp_path, 2, model="m")
    normal = [{"id": str(n), "study_id": f"s{n}", "patient_id": f"p{n}", "text": "Normal."} for n in range(500)]
    rows = torch.cat([at(0).repeat(500, 1), at(20)[None], at(40)[None]])
    others = [{**normal[0], "id": one, "text": one} for one in ("Nodule.", "Mass.")]
    index.add(rows, [*normal, *others], model="m")
    draft = draft_report(at(0), index, n=2)
    assert [(one.text, len(one.sources)) for one in draft.sentences] == [("Normal.", 500), ("Nodule.", 1)]
    assert "[500 studies, such as s0]" in str(draft)


def test_it_says_what_it_is(index: EmbeddingIndex) -> None:
    draft = draft_report(at(30), index, n=2)
    first, empty, *lines = str(draft).splitlines()
    assert first.startswith("NOT A REPORT: sentences quoted from other patients' reports")
    assert first.endswith("Research use only, not a medical device.")
    assert empty == ""
    assert lines[0] == " 1.000  Heart is big.  [study 3]"
    described = draft.as_dict()
    assert described["notice"] == first
    assert described["sentences"][0] == {
        "text": "Heart is big.",
        "score": pytest.approx(1.0, abs=1e-6),
        "sources": [{"study_id": "3", "patient_id": "p3", "section": "text"}],
        "variants": [],
    }


def test_what_cannot_be_asked_says_why(tmp_path: Path, index: EmbeddingIndex) -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        draft_report(at(0)[None], index)
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        draft_report(torch.ones(3), index)
    with pytest.raises(ValueError, match="hold NaN"):
        draft_report(at(torch.nan), index)
    with pytest.raises(ValueError, match="n=0"):
        draft_report(at(0), index, n=0)
    with pytest.raises(ValueError, match=r"min_score=2\.0"):
        draft_report(at(0), index, min_score=2.0)
    with pytest.raises(ValueError, match="exclude_patients='p1'"):
        draft_report(at(0), index, exclude_patients="p1")
    with pytest.raises(ValueError, match="is empty"):
        draft_report(at(0), EmbeddingIndex.create(tmp_path / "new", 2, model="m"))
    with pytest.raises(ValueError, match="item 'x' has no study_id or no patient_id"):
        sentence_records([{"id": "x", "text": "Normal."}])
    with pytest.raises(ValueError, match="sections='findings'"):
        sentence_records(ITEMS, sections="findings")
    index.add(at(5)[None], [{"id": "image"}], model="m")
    with pytest.raises(ValueError, match="'image' has no text"):
        draft_report(at(5), index)
    with pytest.raises(ValueError, match="'image' of the index has no patient_id"):
        draft_report(at(5), index, exclude_patients=["p1"])
