"""What one request to our routes may ask for, and how long its answer may take."""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = ["Limits", "Refused", "limits"]


class Refused(ValueError):  # noqa: N818  # it is raised by its rule, nothing is broken
    """A request that is not answered; the text says which rule it breaks and what to do, and names no server path."""

    def __init__(self, text: str, status: int = 422) -> None:
        """Say why.

        Args:
            text: rule, value and remedy.
            status: HTTP status, 4xx or 5xx.
        """
        self.status = status
        super().__init__(text)


class Limits(NamedTuple):
    """Bounds of a request."""

    upload_bytes: int  # of all files of an upload together
    seconds: float  # for an answer; the work then ends in the background
    upload_files: int = 4000  # of an upload, packed or not
    prompt_characters: int = 300
    prompts: int = 16
    report_characters: int = 20_000
    cases: int = 50  # similar ones
    studies: int = 1000  # listed
    json_bytes: int = 1 << 20  # of a request that is no upload

    @property
    def expanded_bytes(self) -> int:
        """Of an upload's images once unpacked and decoded."""
        return 4 * self.upload_bytes


def limits() -> Limits:
    """The limits, as MEDCLIP_MAX_UPLOAD_MB (default 1024) and MEDCLIP_TIMEOUT_S (default 120) set them.

    Raises:
        ValueError: one of them is not a positive number.
    """
    megabytes = _positive("MEDCLIP_MAX_UPLOAD_MB", 1024)
    return Limits(upload_bytes=int(megabytes * (1 << 20)), seconds=_positive("MEDCLIP_TIMEOUT_S", 120))


def _positive(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}={text!r} in the environment must be a positive number.")
    return value
