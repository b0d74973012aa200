"""Words of the original report carry their tint, in HTML and in a picture."""

from __future__ import annotations

import itertools
import re
from html import unescape

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.colors import SIGNED_COLOR_MAP, color_map
from monai_medclip.writers.report_text import TintedReport, report_figure, report_html, word_colors, wrapped

from .drawn import cut_texts, png_of, words

TEXT = 'FINDINGS: <b>Mass</b> > 3 cm & "no" effusion.\n\nIMPRESSION: Mass in the left lung.'


def report(**weights: float) -> TintedReport:
    """Words of TEXT by their first occurrence."""
    spans = [(TEXT.index(word), TEXT.index(word) + len(word)) for word in weights]
    return TintedReport(TEXT, spans, list(weights.values()), title="mass & <more>")


def backgrounds(html: str) -> dict[str, str]:
    return {
        unescape(word): color
        for color, word in re.findall(r'<span class="word" style="background:(#\w+)"[^>]*>([^<]*)</span>', html)
    }


def test_every_character_of_the_report_is_there_and_escaped():
    html = report_html(report(Mass=2.0, effusion=-1.0))
    body = re.search(r"<p style=[^>]*>(.*?)</p>", html, re.DOTALL)[1]
    assert unescape(re.sub(r"</?span[^>]*>", "", body)) == TEXT
    assert "<b>" not in html
    assert "mass &amp; &lt;more&gt;" in html
    assert RESEARCH_USE in html


def test_words_for_are_orange_against_blue_and_weak_ones_plain():
    found = backgrounds(report_html(report(Mass=2.0, effusion=-2.0, left=0.1, cm=0.5)))
    assert set(found) == {"Mass", "effusion", "cm"}
    red, blue = (int(found["Mass"][i : i + 2], 16) for i in (1, 5))
    assert red > blue
    red, blue = (int(found["effusion"][i : i + 2], 16) for i in (1, 5))
    assert blue > red
    html = report_html(report(Mass=2.0, left=0.1))
    assert 'title="0.1 logit">left</span>' in html  # untinted, but its weight can be read
    assert 'title="2 logit">Mass</span>' in html


def test_the_tint_is_symmetric_and_the_same_for_signed_and_unsigned_weights():
    colors = color_map(SIGNED_COLOR_MAP)
    alone, among = word_colors(report(Mass=2.0, cm=1.0)), word_colors(report(Mass=2.0, cm=1.0, effusion=-2.0))
    assert alone == among[:2]
    np.testing.assert_allclose(colors(1.0)[:3], [int(alone[0][i : i + 2], 16) / 255 for i in (1, 3, 5)], atol=0.003)


def test_the_legend_has_the_weights_range():
    assert re.search(r'class="legend">-2 .* 2 logit per word, raw', report_html(report(Mass=1.0, effusion=-2.0)))
    assert re.search(r'class="legend">0 .* 1 logit per word, raw', report_html(report(Mass=1.0)))
    assert report_figure(report(Mass=1.0, effusion=-2.0)).axes[1].get_xlim() == (-2, 2)
    assert report_figure(report(Mass=1.0)).axes[1].get_xlim() == (0, 1)


def test_no_weight_at_all_tints_nothing():
    assert word_colors(report(Mass=0.0, cm=0.0)) == [None, None]
    assert backgrounds(report_html(TintedReport(TEXT, [], []))) == {}


@pytest.mark.parametrize(
    ("spans", "weights", "message"),
    [
        ([(0, 5), (3, 8)], [1, 1], "overlaps"),
        ([(0, 5000)], [1], "outside"),
        ([(4, 4)], [1], "overlaps another or lies outside"),
        ([(0, 5)], [1, 2], "1 spans for 2 weights"),
        ([(0, 5)], [float("nan")], "NaN"),
    ],
)
def test_spans_that_do_not_fit_the_text_are_refused(spans, weights, message):
    for write in (report_html, report_figure):
        with pytest.raises(ValueError, match=message):
            write(TintedReport(TEXT, spans, weights))


def test_the_picture_tints_the_same_words_at_their_column():
    figure = report_figure(report(Mass=2.0, left=-1.0))
    axes = figure.axes[0]
    tints = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    first = TEXT.index("Mass")
    assert [(patch.get_x(), patch.get_width(), int(patch.get_y())) for patch in tints] == [(first, 4, 0), (24, 4, 2)]
    letters = {text.get_text(): (text.get_position(), text.get_window_extent()) for text in axes.texts}
    left = letters["left"][1]
    tint = tints[1].get_window_extent()
    assert abs(left.x0 - tint.x0) < 3
    assert abs(left.x1 - tint.x1) < 3  # the letters are as wide as the columns
    assert RESEARCH_USE in words(figure)


def test_a_long_report_is_wrapped_and_nothing_is_cut():
    text = "There is no $focal$ consolidation, effusion or pneumothorax. " * 30 + "x" * 300
    figure = report_figure(TintedReport(text, [(12, 19)], [1.0], title="a long question " * 12))
    assert cut_texts(figure) == []
    assert png_of(figure).height > 400


@pytest.mark.parametrize("text", ["", "one", "a b\n\nc", "word " * 40, "x" * 50, "a\n", "\n", "ab cd  ef gh " * 5])
def test_wrapping_keeps_every_letter_within_the_columns(text):
    lines = wrapped(text, 20)
    assert all(0 <= start <= end <= len(text) and end - start <= 20 for start, end in lines)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(lines))
    kept = "".join(text[start:end] for start, end in lines)
    assert kept.replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert len(lines) >= text.count("\n") + 1
