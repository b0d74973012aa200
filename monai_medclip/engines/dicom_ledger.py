"""What a batch has done so far, line by line on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DONE", "FAILED", "SKIPPED", "BatchRow", "Ledger"]

DONE, FAILED, SKIPPED = "done", "failed", "skipped"


class BatchRow(NamedTuple):
    """One line of a batch's results: what one image says to one question, or why it says nothing."""

    study_uid: str
    series_uid: str
    sop_uid: str  # of a radiograph; empty for a CT stack
    stack_uid: str  # of a CT stack: the series' own, with _1, _2, ... where it holds several
    file: str  # the radiograph, or the series' folder; empty where it came from an archive
    status: str  # DONE, FAILED or SKIPPED
    finding: str = ""  # of the bundle; empty for free text
    prompt: str = ""  # that a heatmap was made for; empty for a finding that has a score alone
    logit: float | None = None
    probability: float | None = None
    method: str = ""
    model: str = ""
    model_version: str = ""
    objects: str = ""  # of the prompt: files below the folder of results, or SOP Instance UIDs in the archive
    report: str = ""  # of the image, likewise
    seconds: float | None = None  # for the whole image
    reason: str = ""  # the rule that an image breaks
    remedy: str = ""


class Ledger:
    """The lines of a batch: its settings, then for each case that it began and what came of it.

    Each line is written at once and is on disk before the next step; a line that a kill cut off is dropped.

    Args:
        path: of the file.
        settings: what a run that goes on must have in common with the one before.
        resume: go on, if there is something to go on with.

    Raises:
        ValueError: a run is there and `resume` is off, or its settings are others.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        """See the class."""
        self.path = Path(path)
        self.ended: dict[str, tuple[BatchRow, ...]] = {}
        self._begun: set[str] = set()
        lines = self._whole_lines()
        begun = len(lines) > 1  # settings alone are no run
        if begun and not resume:
            raise ValueError(f"{self.path.parent} holds a batch already: add --resume, or name another folder.")
        if begun:
            self._check(lines[0]["settings"], settings)
            self._read(lines[1:])
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._append({"settings": dict(settings)})

    @property
    def rows(self) -> list[BatchRow]:
        """Of all cases, the latest of each."""
        return [row for rows in self.ended.values() for row in rows]

    def is_done(self, case: str) -> bool:
        """Whether a case needs no second run."""
        return case in self.ended and all(row.status == DONE for row in self.ended[case])

    def begin(self, case: str) -> bool:
        """Say that a case's results are about to be stored.

        Returns:
            Whether that was said before: some of them may be stored.
        """
        before = case in self._begun
        if not before:
            self._begun.add(case)
            self._append({"begun": case})
        return before

    def end(self, case: str, rows: Sequence[BatchRow]) -> None:
        """Say what came of a case."""
        self.ended[case] = tuple(rows)
        self._append({"ended": case, "rows": [row._asdict() for row in rows]})

    def _whole_lines(self) -> list[dict[str, Any]]:
        """The lines, after what follows the last line break is cut off."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return [json.loads(line) for line in whole.splitlines()]

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(dict(now)))  # as it reads back: tuples become lists
        other = [name for name in wanted if before.get(name) != wanted[name]]
        if other:
            raise ValueError(
                f"{self.path.parent} holds a batch with another {' and '.join(other)}: name another folder, or ask as "
                f"before ({'; '.join(f'{name}: {before.get(name)}' for name in other)})."
            )

    def _read(self, lines: Sequence[Mapping[str, Any]]) -> None:
        for line in lines:
            if "begun" in line:
                self._begun.add(line["begun"])
            else:
                self.ended[line["ended"]] = tuple(BatchRow(**row) for row in line["rows"])

    def _append(self, line: Mapping[str, Any]) -> None:
        text = (json.dumps(line, allow_nan=False) + "\n").encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, text)
            os.fsync(file)
        finally:
            os.close(file)
