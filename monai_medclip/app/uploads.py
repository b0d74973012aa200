"""Studies that were dropped on the page: kept under names that nobody can guess, in a bounded folder, for an hour."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from monai_medclip.app.dropped_files import DroppedFile, stored_images
from monai_medclip.app.limits import Limits

__all__ = ["UPLOAD", "Place", "Uploads"]

UPLOAD = "upload-"
"""What ids of dropped studies begin with."""

# A path in the words of some library's error; a slash between words or numbers is none.
_PATH = re.compile(r"(?<![\w.)/])(?:/[^\s/:'\",;()]+)+/([^\s/:'\",;()]+)")


class Place(NamedTuple):
    """Where a study lies, and what its reader calls it."""

    path: Path  # a file or a folder of slices
    names: Mapping[Path, str]  # paths whose place is nobody's business, with the names to say instead

    def cleaned(self, text: str) -> str:
        """A text without server paths: the files' own names instead."""
        for path in sorted(self.names, key=lambda path: -len(str(path))):
            text = text.replace(str(path), self.names[path])
        return _PATH.sub(r"\1", text)


class _Kept(NamedTuple):
    folder: Path
    place: Place
    size: int  # bytes on disk
    timer: threading.Timer


class Uploads:
    """The dropped studies. Thread-safe; the oldest go first when there are too many or they are too large."""

    def __init__(self, *, seconds: float = 3600, studies: int = 16) -> None:
        """Nothing is written before the first study comes.

        Args:
            seconds: after which a study is forgotten and its files are deleted.
            studies: how many are kept.
        """
        self.seconds, self.studies = seconds, studies
        self._root: tempfile.TemporaryDirectory[str] | None = None
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are kept now."""
        return len(self._kept)

    def add(self, files: Sequence[DroppedFile], limits: Limits) -> str:
        """Keep a study.

        Returns:
            Its id.

        Raises:
            Refused: see `stored_images`; nothing is kept then.
        """
        key = UPLOAD + secrets.token_hex(16)
        folder = self._folder() / key
        folder.mkdir()
        try:
            stored = stored_images(files, folder, limits)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        path = folder if len(stored) > 1 else next(iter(stored))
        size = sum(file.stat().st_size for file in stored)
        timer = threading.Timer(self.seconds, self.forget, (key,))
        timer.daemon = True
        with self._lock:
            self._kept[key] = _Kept(folder, Place(path, {**stored, folder: "the upload"}), size, timer)
            surplus = self._surplus(limits.expanded_bytes)
        timer.start()
        for other in surplus:
            self.forget(other)
        return key

    def place(self, key: str) -> Place | None:
        """Where a study lies; None if it was forgotten or never known."""
        with self._lock:
            kept = self._kept.get(key)
        return kept.place if kept else None

    def forget(self, key: str) -> None:
        """Delete a study, if it is there."""
        with self._lock:
            kept = self._kept.pop(key, None)
        if kept:
            kept.timer.cancel()
            shutil.rmtree(kept.folder, ignore_errors=True)

    def _folder(self) -> Path:
        with self._lock:
            if self._root is None:
                self._root = tempfile.TemporaryDirectory(prefix="medclip-")  # goes with the process
            return Path(self._root.name)

    def _surplus(self, most_bytes: int) -> list[str]:
        """The oldest, down to the allowed number and size; never the newest."""
        keys, sizes = list(self._kept), [kept.size for kept in self._kept.values()]
        first = max(0, len(keys) - self.studies)
        while first < len(keys) - 1 and sum(sizes[first:]) > most_bytes:
            first += 1
        return keys[:first]
