"""Only the terms that a page uses are explained."""

from __future__ import annotations

import pytest

from monai_medclip.writers.figures_page import Picture, Section
from monai_medclip.writers.glossary import _MEANINGS, _PATTERNS, glossary, terms_in
from monai_medclip.writers.tables import Table


def test_terms_are_found_in_every_kind_of_words() -> None:
    sections = [
        Section("Zero-shot", ["The threshold is Youden's."]),
        Section(
            "Retrieval", tables=[Table(["direction", "recall@5"], [["image to text", "0.500 [0.400, 0.600]"]], "MRR")]
        ),
        Section("Pictures", pictures=[Picture(b"", "ROC of the findings", "AUCs as in the table")]),
    ]
    found = terms_in(sections, ["Macro figures by chance."])
    assert found == ("AUC", "chance", "interval", "macro", "MRR", "recall@k", "ROC curve", "threshold", "zero-shot")


def test_a_term_inside_another_word_or_term_is_not_used() -> None:
    assert terms_in([Section("restricted, mischance, macroscopic")]) == ()
    assert terms_in([Section("average precision")]) == ("average precision",)
    assert terms_in([Section("balanced accuracy")]) == ("accuracy", "balanced accuracy")


def test_the_section_explains_what_was_asked_for_and_nothing_else() -> None:
    section = glossary(["specificity", "AUC"])
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["AUC", "specificity"]
    assert "0.5 is guessing" in table.rows[0][1]


def test_every_term_finds_itself_and_the_order_is_alphabetical() -> None:
    assert list(_MEANINGS) == sorted(_MEANINGS, key=str.casefold)
    assert set(_PATTERNS) <= set(_MEANINGS)
    assert [term for term in _MEANINGS if term not in terms_in([Section(term)])] == []


def test_unknown_terms_are_named() -> None:
    with pytest.raises(ValueError, match=r"\['perplexity'\]"):
        glossary(["AUC", "perplexity"])
    with pytest.raises(ValueError, match="at least one"):
        glossary([])
