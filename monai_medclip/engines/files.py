"""Result files of a run: written whole or not at all, each one saying what it may be used for."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medclip.files import atomic_write
from monai_medclip.notice import RESEARCH_USE

__all__ = ["RESEARCH_USE", "atomic_write", "write_csv", "write_json"]


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Writes a result file whose first entry says what it may be used for.

    Args:
        path: file to write.
        content: anything that JSON can hold; NaN and infinity become ``null``, which every JSON reader understands.
    """
    with atomic_write(path) as file:
        text = json.dumps(_finite({"intended_use": RESEARCH_USE, **content}), indent=2, default=str, allow_nan=False)
        file.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes rows as CSV with a last column that says what the file may be used for.

    Args:
        path: file to write.
        rows: one mapping per row; columns are in order of first appearance, floats are written to read back equal.
    """
    columns = [*dict.fromkeys(key for row in rows for key in row), "notice"]
    with atomic_write(path) as file, file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({**row, "notice": RESEARCH_USE} for row in rows)
    return Path(path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return _finite(value.tolist())
    if isinstance(value, float) and value - value != 0:
        return None
    return value
