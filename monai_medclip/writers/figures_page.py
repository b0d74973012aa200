"""Figures page: a run's tables, pictures and warnings in one file that a clinician can read, on screen and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.page import data_uri
from monai_medclip.writers.saving import figure_png
from monai_medclip.writers.tables import Table, table_html

__all__ = ["Picture", "Section", "figures_page"]


class Picture(NamedTuple):
    """A picture with what it shows, for those who see it and those who do not."""

    content: Figure | bytes  # a figure of this room, or a PNG
    caption: str
    alt: str  # what it shows in words, for screen readers; not empty


class Section(NamedTuple):
    """One part of the page: words first, then tables, then pictures."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    warning: bool = False  # the figures elsewhere on the page must not be read without this section


def figures_page(sections: Sequence[Section], *, title: str, summary: Sequence[str]) -> str:
    """One self-contained page: summary, warnings, contents, then every section.

    Nothing is loaded from elsewhere and nothing runs: a policy inside the page forbids both. All text is escaped.

    Args:
        sections: in the order shown; warnings are named in the summary too.
        title: of the page.
        summary: the paragraphs that come first.

    Returns:
        HTML for `write_whole`, after ``.encode()``.

    Raises:
        ValueError: no section, a picture without words, or a table whose rows do not fit its columns.
    """
    if not sections:
        raise ValueError("a page needs at least one section: give the figures that the run made.")
    contents = "".join(
        f'<li><a href="#section{place}">{escape(_heading(one))}</a></li>' for place, one in enumerate(sections)
    )
    body = "".join(_section_html(place, one) for place, one in enumerate(sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n{_POLICY}\n<style>{_CSS}</style></head>\n'
        f'<body><header><h1>{escape(title)}</h1><p class="notice">{RESEARCH_USE}</p></header>\n'
        f"<main>{_paragraphs(summary)}{_warnings(sections)}\n"
        f'<nav aria-label="Contents"><h2>Contents</h2><ol>{contents}</ol></nav>\n'
        f"{body}</main></body></html>\n"
    )


def _heading(section: Section) -> str:
    return f"Warning: {section.title}" if section.warning else section.title


def _paragraphs(paragraphs: Sequence[str]) -> str:
    return "".join(f"<p>{escape(one)}</p>" for one in paragraphs)


def _warnings(sections: Sequence[Section]) -> str:
    """What has to be read before any figure, with the first paragraph of each."""
    lines = []
    for place, one in enumerate(sections):
        if one.warning:
            said = escape("".join(f": {words}" for words in one.paragraphs[:1]))
            lines.append(f'<li><a href="#section{place}">{escape(one.title)}</a>{said}</li>')
    if not lines:
        return ""
    head = "<p><strong>Warning: do not read the figures on this page without this.</strong></p>"
    return f'<div class="warning" role="note">{head}<ul>{"".join(lines)}</ul></div>'


def _section_html(place: int, section: Section) -> str:
    tables = "".join(map(table_html, section.tables))
    pictures = "".join(map(_picture_html, section.pictures))
    kind = ' class="warning"' if section.warning else ""
    return (
        f'<section id="section{place}"{kind} aria-labelledby="heading{place}">'
        f'<h2 id="heading{place}">{escape(_heading(section))}</h2>'
        f"{_paragraphs(section.paragraphs)}{tables}{pictures}</section>\n"
    )


def _picture_html(picture: Picture) -> str:
    if not picture.alt.strip():
        raise ValueError(f"the picture {picture.caption!r} has no alt text: say in words what it shows.")
    png = picture.content if isinstance(picture.content, bytes) else figure_png(picture.content)
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>"
    return f'<figure><img alt="{escape(picture.alt)}" src="{data_uri(png)}">{caption}</figure>'


_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)

_CSS = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1a1a1a;background:#f6f6f4}
header{padding:.8em 1.2em;background:#fff;border-bottom:1px solid #ddd}
header>*,main{max-width:66rem;margin-left:auto;margin-right:auto}
h1{font-size:1.4em;margin-top:0;margin-bottom:.1em} h2{font-size:1.15em;margin:0 0 .5em}
.notice{margin-top:0;margin-bottom:0;font-weight:600;color:#8c2d04}
main{padding:1em 1.2em} main p,main li{max-width:48em;overflow-wrap:anywhere}
nav,section{background:#fff;border:1px solid #ddd;padding:1em 1.2em;margin:0 0 1.2em}
.warning{background:#fff5eb;border:1px solid #d94801;border-left-width:.5em;padding:.8em 1.2em;margin:0 0 1.2em}
section.warning h2{color:#8c2d04}
.wide{overflow-x:auto;margin:.8em 0} .wide:focus-visible{outline:2px solid #1a5fb4}
table{border-collapse:collapse;background:#fff;font-size:.92em;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.3em 0}
th,td{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top;min-width:4em;max-width:34em}
.short{white-space:nowrap}
thead th{background:#eeeeea} tbody th{font-weight:600}
figure{margin:1em 0} img{max-width:100%;height:auto;border:1px solid #ddd} figcaption{color:#444;max-width:48em}
a{color:#1a5fb4}
@media print{
body{background:#fff;font-size:10pt} main,header>*{max-width:none} header,main{padding:0}
nav,section{border:0;padding:0} .wide{overflow:visible} table{font-size:8pt}
th,td{min-width:0;padding:.15em .3em}
.short{white-space:normal} thead{display:table-header-group}
tr,figure,.warning>p{break-inside:avoid} h2,caption{break-after:avoid} img{max-height:22cm}
}
"""
