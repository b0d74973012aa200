"""Marks: colors, points and lines that stay apart in print and for color-blind readers, the same in every chart."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Mark", "mark"]

# Okabe and Ito's palette (Color Universal Design, 2008) without its yellow, which paper swallows.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_POINTS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":", "-.")


class Mark(NamedTuple):
    """How one series looks, in matplotlib's words."""

    color: str  # "#rrggbb"
    point: str
    line: str


def mark(number: int) -> Mark:
    """The look of series 0, 1, ...: colors first, then other lines; 28 differ."""
    lap, place = divmod(number, len(_COLORS))
    return Mark(_COLORS[place], _POINTS[place], _LINES[lap % len(_LINES)])
