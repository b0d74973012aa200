"""Rows that were refused: which file, which row, by what rule, so that nothing is lost silently.

The columns are those of `monai_medclip.transforms.write_rejected`, which adds to the same ``rejected.csv`` the files
that turn out to be unusable.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from monai_medclip.notice import RESEARCH_USE

__all__ = ["Rejected", "read_rejected", "write_rejected"]

REJECTED_COLUMNS = ("id", "file", "row", "reason", "remedy", "notice")


class Rejected(NamedTuple):
    """One refused row of a manifest, or one refused report or image of a dataset."""

    file: str  # the manifest, report or image that was refused
    row: int  # line number in `file`, counted from 1; 0 where a file as a whole is refused
    reason: str  # the rule that it breaks and the remedy
    id: str = ""  # the item's id, where it is known

    def __str__(self) -> str:
        """File, row and reason in one line."""
        where = f"{self.file}, row {self.row}" if self.row else self.file
        return f"{where}: {self.reason}"


def write_rejected(rejected: Iterable[Rejected], path: str | Path) -> Path:
    """Write refused rows to a CSV with the columns id, file, row, reason, remedy (empty: the reason names it), notice.

    Args:
        rejected: refused rows; an empty list writes the header alone.
        path: where to write; missing folders are made.

    Returns:
        The path written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, REJECTED_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({**one._asdict(), "row": one.row or "", "notice": RESEARCH_USE} for one in rejected)
    return path


def read_rejected(path: str | Path) -> list[Rejected]:
    """Read what `write_rejected` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        rows = csv.DictReader(handle)
        return [Rejected(row["file"], int(row["row"] or 0), row["reason"], row["id"]) for row in rows]
