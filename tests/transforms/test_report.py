"""Reports: sections, cleaning that keeps negations, and every character's way back to the original."""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from monai_medclip.transforms import (
    BadInputError,
    CleanReportd,
    MappedText,
    PositivesFromTextd,
    SelectSectionsd,
    TokenizeReportd,
    identity_hash,
    split_sections,
)

REPORT = """INDICATION: XXXX-year-old female with chest pain
COMPARISON:
FINDINGS: The heart is normal in size. No  pleural effusion , pneumothorax or XXXX. Nodule of 2.5 cm.
IMPRESSION: 1. No acute disease."""


def originals(item) -> str:
    """The characters that the cleaned text stands for, in the original report."""
    return "".join(item["text_original"][i] for i in item["text_offsets"])


def test_sections_with_their_characters():
    sections = split_sections(REPORT)
    assert list(sections) == ["indication", "findings", "impression"]  # the empty comparison is left out
    for section in sections.values():
        assert REPORT[section.start : section.end] == section.text
    assert sections["impression"].text == "1. No acute disease."
    assert sections["indication"].text.startswith("XXXX-year-old")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No headings here.", {"text": "No headings here."}),
        (
            "Chest PA. Findings: clear. Conclusion: normal",
            {"text": "Chest PA.", "findings": "clear.", "impression": "normal"},
        ),
        ("FINDINGS: a\nIMPRESSION: b\nFINDINGS: c", {"findings": "a", "impression": "b", "findings 2": "c"}),
        ("These findings: stay in the sentence", {"text": "These findings: stay in the sentence"}),
        ("  \n ", {}),
        ("CLINICAL HISTORY: cough", {"indication": "cough"}),
    ],
)
def test_headings_are_found_where_headings_stand(text, expected):
    assert {name: section.text for name, section in split_sections(text).items()} == expected


def test_default_cleaning_keeps_every_word_and_negation():
    item = CleanReportd("text")({"text": REPORT})
    assert item["text"] == (
        "INDICATION: year-old female with chest pain COMPARISON: FINDINGS: The heart is normal in size. No pleural "
        "effusion, pneumothorax or. Nodule of 2.5 cm. IMPRESSION: 1. No acute disease."
    )
    assert item["text_original"] == REPORT
    assert len(item["text_offsets"]) == len(item["text"])
    assert originals(item).replace("\n", " ") == item["text"]  # each character is the original's own
    assert (np.diff(item["text_offsets"]) > 0).all()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Compared with [**2101-1-1**], the ___ catheter  is out .", "Compared with, the catheter is out."),
        ("xxxx. The heart is normal. . XXXX", "The heart is normal."),
        ("Max is not removed, nor is x-ray", "Max is not removed, nor is x-ray"),
    ],
)
def test_deidentification_tokens_go(text, clean):
    assert CleanReportd("text")({"text": text})["text"].lstrip(". ") == clean


def test_lower_case_keeps_the_offsets():
    item = CleanReportd("text", case="lower")({"text": "İ Heart  NORMAL"})
    assert item["text"] == "İ heart normal"
    assert originals(item).lower().endswith("heart normal")


def test_published_cleaning_turns_a_negation_around():
    text = "No pleural effusion. XXXX year old with x 2.5cm nodule, not seen before."
    item = CleanReportd("text", "as_published")({"text": text})
    assert item["text"] == "pleural effusion 2 5cm nodule seen"
    spans = [(item["text"].index(word), len(word)) for word in ("effusion", "nodule", "seen")]
    for start, length in spans:
        first, last = item["text_offsets"][start], item["text_offsets"][start + length - 1]
        assert text[first : last + 1] == item["text"][start : start + length]


def test_published_cleaning_uses_nltks_list():
    from monai_medclip.transforms.stop_words import NLTK_STOP_WORDS

    assert len(NLTK_STOP_WORDS) == 179 - 26  # NLTK's 179 less the 26 with an apostrophe, which cannot occur here
    assert {"no", "not", "nor", "the", "very"} <= NLTK_STOP_WORDS
    assert not {"without", "lung", "normal"} & NLTK_STOP_WORDS


@pytest.mark.parametrize("text", ["", "   ", "XXXX.", None])
def test_empty_reports_are_refused_by_name(text):
    with pytest.raises(BadInputError, match=r"film\.png: the report is empty"):
        CleanReportd("text")({"text": text, "image": "film.png"})


def test_chosen_sections_in_the_order_asked_for():
    item = SelectSectionsd("text", ["impression", "findings"])({"text": REPORT})
    assert item["text"].startswith("1. No acute disease. The heart is normal")
    assert "chest pain" not in item["text"]
    cleaned = CleanReportd("text")(item)
    nodule = cleaned["text"].index("Nodule")
    first = cleaned["text_offsets"][nodule]
    assert REPORT[first : first + 6] == "Nodule"  # through both transforms
    assert cleaned["text_original"] == REPORT


def test_a_report_without_the_sections_is_refused_and_one_without_headings_kept():
    assert SelectSectionsd("text")({"text": "Normal."}) == {"text": "Normal."}
    with pytest.raises(BadInputError, match="no text under findings or impression"):
        SelectSectionsd("text")({"text": "INDICATION: pain", "id": "study 1"})
    with pytest.raises(ValueError, match="unknown"):
        SelectSectionsd("text", ["summary"])


def test_equal_texts_are_positives_in_every_process():
    same = PositivesFromTextd("text")
    first, second, other = (
        same({"text": t})["positives"] for t in ("No acute  disease.", "no acute disease.", "Mass.")
    )
    assert first == second != other
    assert first.dtype == torch.int64
    assert first.shape == ()
    assert (
        int(first) == identity_hash("text", "no acute disease.") == 4755507355180475963
    )  # sha256, not Python's salted hash


def test_positives_by_study_and_item():
    views = [{"text": "a", "study_id": "s", "id": "1"}, {"text": "b", "study_id": "s", "id": "2"}]
    by_study = [PositivesFromTextd("text", by="study")(view)["positives"] for view in views]
    by_item = [PositivesFromTextd("text", by="item")(view)["positives"] for view in views]
    assert by_study[0] == by_study[1]
    assert by_item[0] != by_item[1]
    with pytest.raises(BadInputError, match="no study_id"):
        PositivesFromTextd("text", by="study")({"text": "a", "id": "7"})


def test_mapped_text_pieces():
    text = MappedText.original("one two three")
    joined = MappedText.concatenate([text.cut(8), text.cut(0, 3), text.cut(0, 0)], ", ")
    assert joined.text == "three, one"
    assert joined.offsets.tolist() == [8, 9, 10, 11, 12, 0, 0, 0, 1, 2]
    item = {"text": "one two three"}
    joined.into_item(item)
    again = MappedText.from_item(item)
    assert again.text == joined.text
    assert again.offsets.tolist() == joined.offsets.tolist()
    assert item["text_original"] == "one two three"


def test_token_spans_point_into_the_original_report(tmp_path):
    from monai_medclip.transforms import ReportTokenizer

    tokenizer = ReportTokenizer.train([REPORT] * 5, vocab_size=200, path=tmp_path / "tokenizer")
    item = TokenizeReportd("text", tokenizer, max_length=200)(
        CleanReportd("text")(SelectSectionsd("text", ["findings"])({"text": REPORT}))
    )
    words = [REPORT[start:end] for start, end in item["token_spans"].tolist() if end > start >= 0]
    assert "".join(words) == "".join(item["text"].split())


def test_84_percent_of_real_findings_hold_a_negation_and_keep_it():
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None:
        pytest.skip("the real reports come with torchxrayvision")
    texts = list(_findings(spec))
    negations = {"no", "not", "nor", "without"}
    assert np.mean([_count(text, negations) > 0 for text in texts]) == pytest.approx(0.84, abs=0.03)
    for text in texts[:500]:
        assert _count(CleanReportd("text")({"text": text})["text"], negations) == _count(text, negations)
        assert not _count(CleanReportd("text", "as_published")({"text": text})["text"], {"no", "not", "nor"})


def _count(text: str, words: set[str]) -> int:
    return sum(word in words for word in "".join(c if c.isalnum() else " " for c in text.lower()).split())


def _findings(spec):
    archive = next(Path(spec.submodule_search_locations[0]).rglob("NLMCXR_reports.tgz"))
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".xml"):
                root = ElementTree.parse(tar.extractfile(member)).getroot()
                text = next((e.text for e in root.iter("AbstractText") if e.get("Label") == "FINDINGS"), None)
                if text:
                    yield text
