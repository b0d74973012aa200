"""The page stands alone, escapes what it is given, and has one entry per prompt."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.heat import Heat
from monai_medclip.writers.overlay import OverlayStyle, overlay
from monai_medclip.writers.page import explanation_page, figure_panel, overlay_panel
from monai_medclip.writers.report_text import TintedReport
from monai_medclip.writers.truth import Truth
from monai_medclip.writers.volume import orthogonal_figure

PROMPTS = ["nodule", "<script>alert(1)</script>", 'mass & "fluid"']
IMAGE = np.random.default_rng(0).uniform(size=(24, 40))


def heat(prompt: str) -> Heat:
    values = np.zeros(IMAGE.shape)
    values[:5, :9] = 2.5
    return Heat(values, prompt, "Grad-ECLIP", 1.25)


def page() -> str:
    mask = np.zeros(IMAGE.shape, bool)
    mask[2:6, 3:8] = True
    report = TintedReport("No <mass>.", [(0, 2)], [1.0])
    panels = [overlay_panel(IMAGE, heat(prompt), truth=Truth(mask), report=report) for prompt in PROMPTS]
    return explanation_page(panels, title="study <1>")


class Elements(HTMLParser):
    """Counts start tags and attributes; complains about tags that are not closed."""

    VOID = frozenset({"meta", "input", "img", "polyline", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_one_switcher_entry_and_one_panel_per_prompt_the_first_one_shown():
    elements = Elements(page())
    radios = [attributes for attributes in elements.all("input") if attributes["type"] == "radio"]
    assert [radio["value"] for radio in radios] == ["0", "1", "2"]
    assert ["checked" in radio for radio in radios] == [True, False, False]
    sections = elements.all("section")
    assert [section["id"] for section in sections] == ["panel0", "panel1", "panel2"]
    assert ["hidden" in section for section in sections] == [False, True, True]
    assert elements.open == []


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    html = page()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe", html)
    elements = Elements(html)
    assert all(image["src"].startswith("data:image/png;base64,") for image in elements.all("img"))
    assert len(elements.all("script")) == 1
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_prompts_titles_and_reports_are_escaped():
    html = page()
    assert "alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "mass &amp; &quot;fluid&quot;" in html
    assert "<title>study &lt;1&gt;</title>" in html
    assert "&lt;mass&gt;" in html


def test_base_and_tint_layers_give_the_overlay():
    panel = overlay_panel(IMAGE, heat("nodule"), style=OverlayStyle(opacity=0.5))
    base, tint = (
        np.asarray(Image.open(BytesIO(base64.b64decode(data)))) / 255
        for data in re.findall(r"base64,([^\"]+)", panel.picture)
    )
    assert base.shape == IMAGE.shape
    assert tint.shape == (*IMAGE.shape, 4)
    merged = base[..., None] * (1 - tint[..., 3:]) + tint[..., :3] * tint[..., 3:]
    np.testing.assert_allclose(merged, overlay(IMAGE, heat("nodule").values, OverlayStyle(opacity=0.5)), atol=0.01)


def test_the_outline_lies_in_image_coordinates():
    panel = overlay_panel(IMAGE, heat("nodule"), truth=Truth(boxes=((3, 2, 8, 6),)))
    assert 'viewBox="0 0 40 24"' in panel.picture
    assert 'points="3.00,2.00 8.00,2.00 8.00,6.00 3.00,6.00 3.00,2.00"' in panel.picture
    assert "polyline" not in overlay_panel(IMAGE, heat("nodule")).picture


def test_the_legend_and_the_facts_say_what_is_shown():
    html = page()
    assert re.search(r'class="legend">0 .* 2.5 <span>logit</span>', html)
    for fact in ("1.25 logit", "Grad-ECLIP", "raw, in logit", "from 0.625 (25 % of full scale 2.5)", RESEARCH_USE):
        assert fact in html


def test_a_volume_is_shown_as_a_figure_without_a_fader():
    volume = np.random.default_rng(0).uniform(size=(4, 6, 8))
    found = Heat(volume, "nodule", "Chefer", 0.5)
    panel = figure_panel(found, orthogonal_figure(volume, found))
    html = explanation_page([panel], title="volume")
    assert 'id="fade"' not in html
    assert 'id="fade"' in page()
    assert len(Elements(html).all("img")) == 1


def test_a_page_without_prompts_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        explanation_page([], title="empty")
