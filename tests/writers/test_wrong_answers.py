"""Each row holds the query, what was right, what was taken for right, and what belongs to that."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.figures_page import figures_page
from monai_medclip.writers.wrong_answers import (
    IMAGE_QUERY,
    TEXT_QUERY,
    WrongAnswer,
    wrong_answers_figure,
    wrong_answers_section,
)

from .drawn import cut_texts, words

LONG = "No pleural effusion, pneumothorax or focal airspace disease. " * 40 + "LAST WORD"
DARK, LIGHT = np.full((30, 20), 0.2), np.full((16, 24, 3), 0.8)
BY_IMAGE = WrongAnswer(IMAGE_QUERY, "CXR1", DARK, LONG, 7, 0.4123, "CXR2", LIGHT, "Nodule $3$ mm <left>.", 0.611)
BY_TEXT = BY_IMAGE._replace(query=TEXT_QUERY, rank=12.5, text="Normal chest.", wrong_text="Mass.")


def shown(figure, row: int) -> list[tuple[str, float | str]]:
    """Title and content, the gray level or the text, of a row's four cells."""
    cells = figure.axes[4 * row : 4 * row + 4]
    content = [
        float(np.asarray(axes.images[0].get_array()).mean()) if axes.images else axes.texts[0].get_text()
        for axes in cells
    ]
    return [(axes.get_title(), one) for axes, one in zip(cells, content)]


def test_an_image_query_from_left_to_right() -> None:
    query, own, wrong, belongs = shown(wrong_answers_figure([BY_IMAGE]), 0)
    assert query == ("query: image CXR1", pytest.approx(0.2))
    assert own[0] == "its own report\nrank 7, cosine 0.412"
    assert own[1].startswith("No pleural effusion")
    assert wrong == ("report ranked first: wrong\ncosine 0.611", r"Nodule \$3\$ mm <left>.")
    assert belongs == ("image of that report\nCXR2", pytest.approx(0.8))


def test_a_report_query_from_left_to_right() -> None:
    query, own, wrong, belongs = shown(wrong_answers_figure([BY_IMAGE, BY_TEXT]), 1)
    assert query == ("query: report CXR1", "Normal chest.")
    assert own == ("its own image\nrank 12.5, cosine 0.412", pytest.approx(0.2))
    assert wrong == ("image ranked first: wrong\ncosine 0.611", pytest.approx(0.8))
    assert belongs == ("report of that image\nCXR2", "Mass.")


def test_long_reports_are_cut_in_the_picture_and_whole_on_the_page() -> None:
    section = wrong_answers_section([BY_IMAGE, BY_TEXT])
    figure = section.pictures[0].content
    text = shown(figure, 0)[1][1]
    assert text.endswith("…")
    assert text.count("\n") == 17
    assert "long reports are cut (…)" in words(figure)
    assert "cut" not in words(wrong_answers_figure([BY_TEXT]))
    html = figures_page([section], title="retrieval", summary=[])
    assert LONG in html
    assert "Nodule $3$ mm &lt;left&gt;." in html
    assert section.paragraphs[0].startswith("1 image query and 1 text query that found")


def test_no_text_leaves_the_figure() -> None:
    named = BY_IMAGE._replace(item="a very long name of a study " * 3, wrong_item="x" * 90)
    figure = wrong_answers_figure([named, BY_TEXT], title="IU")
    assert cut_texts(figure) == []
    assert RESEARCH_USE in words(figure)


def test_nothing_and_unknown_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="no wrong answer"):
        wrong_answers_figure([])
    with pytest.raises(ValueError, match="'sound'"):
        wrong_answers_figure([BY_IMAGE._replace(query="sound")])
