"""Text that knows where in the original report each of its characters came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class MappedText(NamedTuple):
    """A cleaned, cut or reordered report and the way back, so that word weights can be shown in the original.

    In an item it is two keys, "text" and "text_offsets"; without the second the text is the original itself. The first
    transform that changes a text keeps the original under "text_original".
    """

    text: str
    offsets: NDArray[np.int64]  # (len(text),) index of the original character that each one stands for

    @classmethod
    def original(cls, text: str) -> MappedText:
        """A text as it was written."""
        return cls(text, np.arange(len(text), dtype=np.int64))

    @classmethod
    def from_item(cls, item: dict[Any, Any], key: str = "text") -> MappedText:
        """The text that an item holds, with its offsets if it has been changed before."""
        text = str(item.get(key) or "")
        offsets = item.get(f"{key}_offsets")
        return cls.original(text) if offsets is None else cls(text, np.asarray(offsets, np.int64))

    def into_item(self, item: dict[Any, Any], key: str = "text") -> None:
        """Write text and offsets into an item; the original is kept beside them."""
        item.setdefault(f"{key}_original", item[key])
        item[key], item[f"{key}_offsets"] = self.text, self.offsets

    @classmethod
    def concatenate(cls, parts: Iterable[MappedText], separator: str = "") -> MappedText:
        """Join texts, leaving out empty ones; a separator stands for the first character after it."""
        parts = [part for part in parts if part.text]
        offsets = [np.empty(0, np.int64)]
        for number, part in enumerate(parts):
            gap = len(separator) if number else 0
            offsets += [np.full(gap, part.offsets[0]), part.offsets]
        return cls(separator.join(part.text for part in parts), np.concatenate(offsets))

    def cut(self, start: int, end: int | None = None) -> MappedText:
        """The characters from `start` up to `end`."""
        return MappedText(self.text[start:end], self.offsets[start:end])

    def renamed(self, text: str) -> MappedText:
        """Other characters in the same place: each points at the original's character at its position, or the last."""
        index = np.minimum(np.arange(len(text)), len(self.text) - 1)
        return MappedText(text, self.offsets[index])

    def stripped(self, characters: str | None = None) -> MappedText:
        """Without `characters` (white space by default) at either end."""
        start = len(self.text) - len(self.text.lstrip(characters))
        return self.cut(start, max(start, len(self.text.rstrip(characters))))

    def substituted(self, pattern: re.Pattern[str], replacement: str) -> MappedText:
        """Every match replaced by a plain string of at most the match's length."""
        parts, end = [], 0
        for match in pattern.finditer(self.text):
            parts.append(self.cut(end, match.start()))
            if replacement and match.group():
                parts.append(self.cut(match.start(), match.end()).renamed(replacement))
            end = match.end()
        return MappedText.concatenate([*parts, self.cut(end)])
