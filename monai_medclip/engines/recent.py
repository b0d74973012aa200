"""What was asked for lately, kept up to a number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """A bounded cache for several threads: what was used least recently goes first; equal questions are made once.

    Args:
        size: entries at most, at least 1.
    """

    def __init__(self, size: int) -> None:
        """See the class."""
        if size < 1:
            raise ValueError(f"size={size}: at least one entry must be kept.")
        self.size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of a key, made if it is not there; a second thread that asks for it meanwhile waits for it.

        Whatever `make` raises is raised, and nothing is kept.
        """
        with self._lock:
            making = self._making.setdefault(key, Lock())
        with making:
            try:
                with self._lock:
                    if key in self._kept:
                        self._kept.move_to_end(key)
                        return self._kept[key]
                made = make()
                with self._lock:
                    self._kept[key] = made
                    while len(self._kept) > self.size:
                        self._kept.popitem(last=False)
                return made
            finally:
                with self._lock:
                    if self._making.get(key) is making:
                        del self._making[key]
