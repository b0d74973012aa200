"""What every audit hands over: a verdict in words, a table, and whether to read it before the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["AuditResult"]


class AuditResult(NamedTuple):
    """One audit's findings, for a summary, ``metrics.json`` and a report alike."""

    name: str  # such as "leakage"
    verdict: str  # one to three sentences in words that a clinician can read, numbers included
    rows: tuple[Mapping[str, Any], ...]  # a table: column -> text, number or None; all rows have the same columns
    warning: bool  # the figures beside it must not be read without the verdict

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {"verdict": self.verdict, "warning": self.warning, "rows": [dict(row) for row in self.rows]}

    def __str__(self) -> str:
        """The verdict and the table, for a summary in plain text."""
        columns = list(self.rows[0]) if self.rows else []
        cells = [columns, *([_cell(row[name]) for name in columns] for row in self.rows)]
        widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
        table = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells if columns
        ]
        return "\n".join([("WARNING: " if self.warning else "") + self.verdict, *table])


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
