"""The page stands alone, escapes what it is given, warns in words, and can be read aloud and on paper."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.confusion import confusion_figure
from monai_medclip.writers.figures_page import Picture, Section, figures_page
from monai_medclip.writers.saving import figure_png
from monai_medclip.writers.tables import Table

from .test_page import Elements

EVIL = '<script>alert("1")</script> & co'


def counts() -> Figure:
    return confusion_figure([[2, 1], [0, 3]], ["normal", "mass"])


def page() -> str:
    table = Table(["finding", EVIL], [[EVIL, 0.91234], ["mass", None]], EVIL)
    sections = [
        Section("Zero-shot", [EVIL], [table], [Picture(counts(), EVIL, EVIL)]),
        Section("Leakage <b>", ["The text alone is enough.", "More of it."], warning=True),
        Section("A PNG", pictures=[Picture(figure_png(counts()), "the same", "counts")]),
    ]
    return figures_page(sections, title=f"run {EVIL}", summary=["Macro AUC 0.912.", EVIL])


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = page()
    words = re.sub(r"base64,[^\"]+", "base64,", html)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe", words)
    elements = Elements(html)
    assert elements.open == []
    assert elements.all("script") == []
    assert all(image["src"].startswith("data:image/png;base64,") for image in elements.all("img"))
    policy = next(meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)


def test_all_text_is_escaped() -> None:
    html = page()
    assert "alert(&quot;1&quot;)" in html
    assert 'alert("1")' not in html
    assert "Leakage &lt;b&gt;" in html


def test_contents_lead_to_every_section() -> None:
    elements = Elements(page())
    links = [link["href"] for link in elements.all("a")]
    assert links == ["#section1", "#section0", "#section1", "#section2"]  # the warning, then the contents
    assert [section["id"] for section in elements.all("section")] == ["section0", "section1", "section2"]
    headings = {heading.get("id") for heading in elements.all("h2")}
    assert {section["aria-labelledby"] for section in elements.all("section")} <= headings


def test_warnings_stand_first_and_are_said_in_words() -> None:
    html = page()
    first = html.index("do not read the figures on this page without this")
    assert first < html.index("<nav")
    assert "Leakage &lt;b&gt;</a>: The text alone is enough.</li>" in html
    assert html.count("Warning: Leakage") == 2  # in the contents and above the section
    assert [section.get("class") for section in Elements(html).all("section")] == [None, "warning", None]
    calm = figures_page([Section("Zero-shot")], title="run", summary=[])
    assert "arning:" not in calm


def test_the_notice_is_on_top_and_paper_is_thought_of() -> None:
    html = page()
    assert html.index(RESEARCH_USE) < html.index("<main>")
    assert "@media print" in html


def test_tables_and_pictures_have_words() -> None:
    html = page()
    elements = Elements(html)
    assert [image["alt"] for image in elements.all("img")] == [EVIL, "counts"]
    assert [head["scope"] for head in elements.all("th")] == ["col", "col", "row", "row"]
    assert '<td class="short">0.912</td>' in html
    assert '<td class="short">not measurable</td>' in html
    first, second = re.findall(r"base64,([^\"]+)", html)
    assert first == second  # a figure and its PNG are the same picture
    assert Image.open(BytesIO(base64.b64decode(first))).info["Disclaimer"] == RESEARCH_USE


def test_the_same_run_gives_the_same_page() -> None:
    assert page() == page()


def test_pictures_without_words_and_empty_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="'curves' has no alt text"):
        figures_page([Section("a", pictures=[Picture(b"", "curves", " ")])], title="run", summary=[])
    with pytest.raises(ValueError, match="at least one section"):
        figures_page([], title="run", summary=[])
