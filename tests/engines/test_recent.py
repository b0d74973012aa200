"""A bounded cache that several threads ask at once."""

from __future__ import annotations

import threading
import time

import pytest

from monai_medclip.engines.recent import Recent


def test_the_least_recently_used_goes_first() -> None:
    recent: Recent[int] = Recent(2)
    for key in ("a", "b", "a", "c"):
        recent.get(key, lambda key=key: ord(key))
    made: list[str] = []
    for key in ("a", "c", "b"):
        recent.get(key, lambda key=key: made.append(key) or 0)  # type: ignore[func-returns-value]
    assert made == ["b"]
    assert len(recent) == 2


def test_equal_questions_at_once_are_answered_once() -> None:
    recent: Recent[int] = Recent(2)
    made: list[int] = []

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return 7

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(recent.get("a", make))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, made) == ([7] * 5, [1])


def test_an_error_is_not_kept() -> None:
    recent: Recent[int] = Recent(1)
    with pytest.raises(ZeroDivisionError):
        recent.get("a", lambda: 1 // 0)
    assert recent.get("a", lambda: 3) == 3


def test_at_least_one_entry_must_fit() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recent(0)


def test_nothing_of_what_was_asked_stays_but_the_entries() -> None:
    recent: Recent[int] = Recent(2)
    for number in range(20):
        for _ in range(2):
            recent.get(f"question {number}", lambda: 1)
    assert len(recent) == 2
    assert not recent._making
