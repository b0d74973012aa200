"""What a viewer asks with: the options of a request, whatever form each client gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai_medclip.app.limits import Refused

__all__ = ["choice", "number", "prompts_of", "text"]


def text(request: Mapping[str, Any], name: str, default: str = "") -> str:
    """A text option.

    A client that leaves a choice alone sends the whole list of the task's configuration; then the first is meant.
    """
    value = request.get(name, default)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else default
    return str(default if value is None else value).strip()


def choice(request: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """One of several words; the first if the request names none.

    Raises:
        Refused: another word.
    """
    value = text(request, name) or choices[0]
    if value not in choices:
        raise Refused(f"{name}={value[:80]!r}: use one of {', '.join(choices)}.", 400)
    return value


def number(request: Mapping[str, Any], name: str, default: float, *, low: float, high: float) -> float:
    """A number from low to high; OHIF sends an empty text for one that was left alone.

    Raises:
        Refused: no number, or out of range.
    """
    value = text(request, name, str(default)) or str(default)
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not low <= found <= high:
        raise Refused(f"{name}={value[:80]!r}: give a number from {low:g} to {high:g}.", 400)
    return found


def prompts_of(request: Mapping[str, Any], name: str = "prompts") -> list[str] | None:
    """Several prompts: a list, a JSON list, or a text with one per line or semicolon; None if there is none.

    Raises:
        Refused: something else than texts.
    """
    value = request.get(name)
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Refused(f"{name} is no JSON list: give one prompt per line.", 400) from error
    if isinstance(value, str):
        value = [part.strip() for part in re.split(r"[;\n]", value) if part.strip()]
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(prompt, str) for prompt in value):
        raise Refused(f"{name}: give a list of texts.", 400)
    return value
