"""The report with its words tinted by their weights, as HTML and as PNG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.colors import SIGNED_COLOR_MAP, color_map
from monai_medclip.writers.figure import escaped
from monai_medclip.writers.heat import number

__all__ = ["TintedReport", "report_figure", "report_html"]

_COLUMNS, _LINE_INCHES, _CHARACTER_INCHES = 92, 0.24, 0.0903  # DejaVu Sans Mono at 10.8 points: 0.602 em per letter
_FONT_POINTS = 10.8


class TintedReport(NamedTuple):
    """A report and how much each of its words weighs; words without a weight stay untinted."""

    text: str  # the original report
    spans: Sequence[tuple[int, int]]  # (start, end) characters of the words in it, without overlap
    weights: Sequence[float]  # one per span; positive supports, negative opposes
    title: str = ""  # what was asked, and by which method
    units: str = "logit"
    threshold: float = 0.1  # share of the largest weight below which a word is not tinted

    def checked(self) -> TintedReport:
        """Itself, words in the order of the text.

        Raises:
            ValueError: spans and weights are not equally many, or a span overlaps another or lies outside the text.
        """
        if len(self.spans) != len(self.weights):
            raise ValueError(f"{len(self.spans)} spans for {len(self.weights)} weights: give one of each.")
        if not np.isfinite(np.asarray(self.weights, float)).all():
            raise ValueError("a word weight is NaN or infinite: nothing honest can be drawn from that.")
        words = sorted((int(start), int(end), float(weight)) for (start, end), weight in zip(self.spans, self.weights))
        before = 0
        for start, end, _ in words:
            if not before <= start < end <= len(self.text):
                raise ValueError(
                    f"span ({start}, {end}) overlaps another or lies outside the {len(self.text)} characters of the "
                    "report: spans index the original text."
                )
            before = end
        return self._replace(spans=[word[:2] for word in words], weights=[word[2] for word in words])

    @property
    def full_scale(self) -> float:
        """The largest weight by size; 1 if there is none."""
        return max((abs(float(weight)) for weight in self.weights), default=0.0) or 1.0

    @property
    def signed(self) -> bool:
        """Whether any word speaks against."""
        return any(weight < 0 for weight in self.weights)


def word_colors(report: TintedReport) -> list[str | None]:
    """Background of each span, ``#rrggbb``: orange for, blue against, on a scale from -largest to largest.

    ``None`` below the threshold and for a weight of zero.
    """
    shares = [float(weight) / report.full_scale for weight in report.weights]
    colors = color_map(SIGNED_COLOR_MAP)
    return [to_hex(colors((share + 1) / 2)) if abs(share) >= report.threshold and share else None for share in shares]


def report_html(report: TintedReport) -> str:
    """A fragment of HTML: the whole report, every weighted word in its tint with its weight as a tooltip, a legend.

    Args:
        report: see `TintedReport`; all of its text is escaped.

    Raises:
        ValueError: spans that do not fit the text.
    """
    report = report.checked()
    parts, at = [], 0
    for (start, end), weight, color in zip(report.spans, report.weights, word_colors(report)):
        style = f' style="background:{color}"' if color else ""
        word = f'<span class="word"{style} title="{number(weight)} {escape(report.units)}">'
        parts += [escape(report.text[at:start]), word, escape(report.text[start:end]), "</span>"]
        at = end
    parts.append(escape(report.text[at:]))
    title = f"<figcaption>{escape(report.title)}</figcaption>" if report.title else ""
    body = f'<p style="white-space:pre-wrap;color:#000;background:#fff;line-height:1.7">{"".join(parts)}</p>'
    return f'<figure class="report">{title}{body}{_legend_html(report)}</figure>'


def _legend_html(report: TintedReport) -> str:
    colors, low, high = legend(report)
    stops = ",".join(to_hex(colors(share)) for share in np.linspace(0, 1, 17))
    box = "display:inline-block;width:12em;height:.8em;border:1px solid #999"
    strip = f'<span style="{box};background:linear-gradient(90deg,{stops})"></span>'
    return (
        f'<p class="legend">{number(low)} {strip} {number(high)} {escape(report.units)} per word, raw; color map '
        f"{SIGNED_COLOR_MAP}; words below {number(report.threshold * high)} in size are not tinted. {RESEARCH_USE}.</p>"
    )


def legend(report: TintedReport) -> tuple[Colormap, float, float]:
    """Colors and range of weights: both signs if any word speaks against, else from zero."""
    colors, high = color_map(SIGNED_COLOR_MAP), report.full_scale
    if report.signed:
        return colors, -high, high
    return ListedColormap(colors(np.linspace(0.5, 1, 128)), SIGNED_COLOR_MAP), 0.0, high


def report_figure(report: TintedReport) -> Figure:
    """The same as a picture, in letters of one width, wrapped between words.

    Args:
        report: see `TintedReport`.

    Raises:
        ValueError: spans that do not fit the text.
    """
    report = report.checked()
    lines = wrapped(report.text, _COLUMNS)
    title = "\n".join(textwrap.wrap(report.title, 80))
    width, body = _COLUMNS * _CHARACTER_INCHES, len(lines) * _LINE_INCHES
    head, foot = 0.25 + 0.2 * (title.count("\n") + 1), 1.35
    size = (width + 0.6, head + body + foot)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0.3 / size[0], foot / size[1], width / size[0], body / size[1]))
    axes.set(xlim=(0, _COLUMNS), ylim=(len(lines), 0))
    axes.set_axis_off()
    _put_words(axes, report, lines)
    bar = figure.add_axes((0.3 / size[0], 0.75 / size[1], 0.4 * width / size[0], 0.14 / size[1]))
    colored, low, high = legend(report)
    figure.colorbar(ScalarMappable(Normalize(low, high), colored), cax=bar, orientation="horizontal")
    bar.set_title(f"weight of a word ({escaped(report.units)}), raw", fontsize=8, loc="left")
    bar.tick_params(labelsize=8)
    figure.text(0.5, 1 - 0.1 / size[1], escaped(title), fontsize=11, ha="center", va="top")
    untinted = f"words below {number(report.threshold * high)} in size are not tinted"
    notice = f"color map: {SIGNED_COLOR_MAP}; {untinted}\n{RESEARCH_USE}"
    figure.text(0.5, 0.08 / size[1], notice, fontsize=8, color="0.25", ha="center", va="bottom")
    return figure


def _put_words(axes: Axes, report: TintedReport, lines: list[tuple[int, int]]) -> None:
    """Tints and letters at their column of their line; one letter is one unit of x, one line one unit of y."""
    colors = word_colors(report)
    for row, (first, last) in enumerate(lines):
        for (start, end), color in zip(report.spans, colors):
            left, right = max(start, first), min(end, last)
            if color and left < right:
                axes.add_patch(Rectangle((left - first, row + 0.06), right - left, 0.88, color=color, linewidth=0))
        # One by one, so that a letter of odd width shifts no other word.
        for word in re.finditer(r"\S+", report.text[first:last]):
            text = axes.text(word.start(), row + 0.5, escaped(word[0]), va="center_baseline", fontsize=_FONT_POINTS)
            text.set_fontfamily("DejaVu Sans Mono")


def wrapped(text: str, columns: int) -> list[tuple[int, int]]:
    """Lines of a text as (start, end) characters, at most `columns` long: broken at line ends, blanks, or anywhere."""
    lines: list[tuple[int, int]] = []
    for paragraph in re.finditer(r"[^\n]*", text):
        start, end = paragraph.span()
        if start == end and start and text[start - 1 : start] != "\n":
            continue  # the empty match between a line and its end
        while end - start > columns:
            blank = text.rfind(" ", start + 1, start + columns + 1)
            lines.append((start, blank if blank > 0 else start + columns))
            start = blank + 1 if blank > 0 else start + columns
        lines.append((start, end))
    return lines
