"""Files that appear whole or not at all, for every room that writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write"]


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write to that takes its final name only when the block ends well.

    A process killed while writing leaves the former file as it was. The unfinished file keeps one fixed name, so that
    the next write replaces it.

    Args:
        path: the final name; missing parent folders are made.

    Yields:
        The path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())  # the name must not outlive the content when power fails
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
