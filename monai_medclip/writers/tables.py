"""Tables: figures beside their intervals, rounded in one way, as HTML that can be read aloud."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from monai_medclip.writers.heat import number

__all__ = ["NOT_MEASURABLE", "Table", "figure_text", "table_of"]

NOT_MEASURABLE = "not measurable"
_LONG, _PIECE = 40, 20  # letters of a word that may be broken, and of its pieces
_SHORT_LETTERS = 26  # of a cell that stays on one line: a figure with its interval
_SPELLED = {"auc": "AUC", "ece": "ECE", "f1": "F1", "mrr": "MRR"}  # words of column names, as people write them


class Table(NamedTuple):
    """A table whose first column names its rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]  # as many cells as columns: text, numbers, lists of them; None: not measurable
    caption: str

    def checked(self) -> Table:
        """Itself.

        Raises:
            ValueError: no column, no caption, or a row with more or fewer cells than there are columns.
        """
        if not self.columns or not self.caption.strip():
            raise ValueError(
                f"table {self.caption!r} with columns {list(self.columns)}: give it a caption and columns."
            )
        for place, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {place} of table {self.caption!r} has {len(row)} cells for {len(self.columns)} columns: "
                    "give one each, None where nothing was measured."
                )
        return self


def table_of(rows: Iterable[Mapping[str, Any]], caption: str) -> Table:
    """A table from rows by column, such as those of an audit; a figure takes its interval into its cell.

    Args:
        rows: all with the same columns. Columns ``x_low`` and ``x_high`` (or ``x low``, ``x high``) beside a column
            ``x`` are the interval of that figure, as in the flat names of reports.
        caption: what the table shows.

    Raises:
        ValueError: no row, or rows with different columns.
    """
    rows = [dict(row) for row in rows]
    columns = list(rows[0]) if rows else []
    if not columns or any(list(row) != columns for row in rows):
        raise ValueError(f"table {caption!r} needs rows, all with the same columns in the same order; got {rows[:2]}.")
    bounds = {name: pair for name in columns if (pair := _bounds(name, columns))}
    inside = {bound for pair in bounds.values() for bound in pair}
    shown = [name for name in columns if name not in inside]

    def cell(row: Mapping[str, Any], name: str) -> Any:
        if name not in bounds:
            return row[name]
        low, high = (row[bound] for bound in bounds[name])
        return figure_text(row[name], None if low is None or high is None else (low, high))

    cells = [[cell(row, name) for name in shown] for row in rows]
    return Table([_column(name) for name in shown], cells, caption)


def figure_text(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A figure and its 95 % interval: ``0.912 [0.880, 0.941]``; three decimals, one from 10 on.

    Args:
        value: None, NaN and infinity are "not measurable".
        interval: (low, high), or None: none was asked for.
    """
    if value is None or not isfinite(value):
        return NOT_MEASURABLE
    if interval is None:
        return _rounded(value, abs(value))
    if not all(map(isfinite, interval)):
        return f"{_rounded(value, abs(value))} [{NOT_MEASURABLE}]"
    low, high = interval
    largest = max(abs(value), abs(low), abs(high))
    return f"{_rounded(value, largest)} [{_rounded(low, largest)}, {_rounded(high, largest)}]"


def cell_text(cell: Any) -> str:
    """What a cell says: figures rounded, counts whole, lists joined."""
    if cell is None:
        return NOT_MEASURABLE
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, Integral):
        return str(int(cell))
    if isinstance(cell, Real):
        return figure_text(float(cell))
    if isinstance(cell, (list, tuple)):
        return ", ".join(map(cell_text, cell))
    return str(cell)


def table_html(table: Table) -> str:
    """The table with its caption, heads that say what they head, and a frame that scrolls when it is wide."""
    table = table.checked()
    heads = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in table.columns)
    body = "".join(_row_html([_breakable(cell_text(cell)) for cell in row]) for row in table.rows)
    caption = escape(table.caption)
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row_html(cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{cells[0]}</th>{"".join(map(_cell_html, cells[1:]))}</tr>'


def _cell_html(cell: str) -> str:
    kind = ' class="short"' if len(cell) <= _SHORT_LETTERS else ""
    return f"<td{kind}>{cell}</td>"


def _column(name: str) -> str:
    return " ".join(_SPELLED.get(word, word) for word in name.replace("_", " ").split(" "))


def _breakable(text: str) -> str:
    """Escaped; a UID or another long word may be broken every few letters."""
    parts = re.split(rf"(\S{{{_LONG},}})", text)
    return "".join(
        "<wbr>".join(escape(part[i : i + _PIECE]) for i in range(0, len(part), _PIECE)) if n % 2 else escape(part)
        for n, part in enumerate(parts)
    )


def _bounds(name: str, columns: Sequence[str]) -> tuple[str, str] | None:
    for joint in ("_", " "):
        low, high = f"{name}{joint}low", f"{name}{joint}high"
        if low in columns and high in columns:
            return low, high
    return None


def _rounded(value: float, largest: float) -> str:
    """Three decimals, one if figures reach 10; what they would round to zero keeps three digits instead."""
    text = f"{value:.{3 if largest < 10 else 1}f}"
    return number(value) if float(text) == 0 and value != 0 else text
