"""Wrong answers: what retrieval took for right, beside what was right, for a reader to judge how wrong it was."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_medclip.writers.figure import escaped, show
from monai_medclip.writers.figures_page import Picture, Section
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.tables import Table, figure_text
from monai_medclip.writers.thumbnails import thumbnail

__all__ = ["IMAGE_QUERY", "TEXT_QUERY", "WrongAnswer", "wrong_answers_figure", "wrong_answers_section"]

IMAGE_QUERY, TEXT_QUERY = "image", "text"
_CELL_INCHES, _LETTERS, _LINES = 2.7, 36, 18  # of a cell, and of a report in it


class WrongAnswer(NamedTuple):
    """One query that found another study's report or image before its own."""

    query: str  # IMAGE_QUERY: a report was looked for; TEXT_QUERY: an image
    item: str  # id of the query's study
    image: np.ndarray  # the query's own image, as `thumbnail` takes it
    text: str  # its own report
    rank: float  # where the right answer stood, above 1
    cosine: float  # of its own image and report
    wrong_item: str  # id of the study that was ranked first
    wrong_image: np.ndarray
    wrong_text: str
    wrong_cosine: float  # of the query and what was ranked first


def wrong_answers_figure(cases: Sequence[WrongAnswer], *, title: str = "") -> Figure:
    """One row per query: query, right answer with its rank, the answer ranked first, and what belongs to that.

    Long reports are cut here; `wrong_answers_section` holds them whole.

    Args:
        cases: of either kind of query.
        title: such as the data.

    Raises:
        ValueError: no case, an unknown kind of query, or an image that cannot be drawn.
    """
    _check(cases)
    figure = new_figure((4 * _CELL_INCHES + 0.6, (_CELL_INCHES + 0.45) * len(cases) + 1.2))
    grid = figure.subplots(len(cases), 4, squeeze=False)
    for row, case in zip(grid, cases, strict=True):
        for axes, (head, content) in zip(row, _cells(case), strict=True):
            if isinstance(content, str):
                _write(axes, content)
            else:
                show(axes, thumbnail(content))
            axes.set_anchor("N")
            axes.set_title(escaped(head), fontsize=8.5, color="0.25")
    figure.suptitle(escaped(title))
    cut = any(_cut(text) != textwrap.fill(text, _LETTERS) for one in cases for text in (one.text, one.wrong_text))
    put_notice(figure, "long reports are cut (…)" if cut else "")
    return figure


def wrong_answers_section(cases: Sequence[WrongAnswer], *, title: str = "Nearest wrong answers") -> Section:
    """The figure, and below it a table with every report in full.

    Args:
        cases: see `wrong_answers_figure`.
        title: of the section.

    Raises:
        ValueError: as `wrong_answers_figure`.
    """
    figure = wrong_answers_figure(cases)
    asked = " and ".join(
        f"{len(found)} {kind} {'query' if len(found) == 1 else 'queries'}"
        for kind in (IMAGE_QUERY, TEXT_QUERY)
        if (found := [case for case in cases if case.query == kind])
    )
    columns = [
        *("study", "asked with its", "its own report", "rank of its own", "cosine of its own"),
        *("ranked first", "report of that study", "cosine of that"),
    ]
    rows = [
        [one.item, one.query, one.text, _rank(one.rank), one.cosine, one.wrong_item, one.wrong_text, one.wrong_cosine]
        for one in cases
    ]
    said = f"{asked} that found another study first. The reports are whole in the table."
    alt = (
        "Per row the query, its right answer, the wrong answer ranked first, and what belongs to that; as in the table."
    )
    return Section(
        title,
        [said],
        [Table(columns, rows, "Wrong answers with their reports in full")],
        [Picture(figure, "Queries, their right answers and the wrong ones ranked first", alt)],
    )


def _check(cases: Sequence[WrongAnswer]) -> None:
    if not cases:
        raise ValueError("no wrong answer to draw: leave the picture out.")
    unknown = {case.query for case in cases} - {IMAGE_QUERY, TEXT_QUERY}
    if unknown:
        raise ValueError(f"query {sorted(unknown)} must be {IMAGE_QUERY!r} or {TEXT_QUERY!r}: what was asked with.")


def _cells(case: WrongAnswer) -> list[tuple[str, np.ndarray | str]]:
    """Heading and content from left to right."""
    right, wrong = figure_text(case.cosine), figure_text(case.wrong_cosine)
    place = f"rank {_rank(case.rank)}, cosine {right}"
    if case.query == IMAGE_QUERY:
        return [
            (f"query: image {_short(case.item)}", case.image),
            (f"its own report\n{place}", case.text),
            (f"report ranked first: wrong\ncosine {wrong}", case.wrong_text),
            (f"image of that report\n{_short(case.wrong_item)}", case.wrong_image),
        ]
    return [
        (f"query: report {_short(case.item)}", case.text),
        (f"its own image\n{place}", case.image),
        (f"image ranked first: wrong\ncosine {wrong}", case.wrong_image),
        (f"report of that image\n{_short(case.wrong_item)}", case.wrong_text),
    ]


def _write(axes: Axes, text: str) -> None:
    """A report in a frame of the size of a picture."""
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.set_box_aspect(1)
    axes.spines[:].set_color("0.8")
    axes.text(0.03, 0.97, escaped(_cut(text)), va="top", fontsize=7.5, linespacing=1.25)


def _cut(text: str) -> str:
    """The first lines, ending in an ellipsis if there are more."""
    return textwrap.fill(text, _LETTERS, max_lines=_LINES, placeholder=" …")


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _short(name: str) -> str:
    return textwrap.shorten(name, 28, placeholder="…") if " " in name else name if len(name) <= 28 else name[:27] + "…"
