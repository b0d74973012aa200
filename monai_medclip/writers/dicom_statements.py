"""What DICOM results say of their maps: prompts, scores, probabilities, and the model and method behind them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["DicomStatements", "Statement", "short", "told"]

_LONG_STRING = 64  # characters of a DICOM LO


class Statement(NamedTuple):
    """One question's answer."""

    text: str  # the prompt, or the finding's name
    logit: float
    probability: float | None  # 0 to 1; None where the model's question compares with nothing

    @property
    def score(self) -> str:
        """The number that is told first: ``p=0.83``, or ``logit=1.20`` without a probability."""
        return f"logit={self.logit:.2f}" if self.probability is None else f"p={self.probability:.2f}"


class DicomStatements(NamedTuple):
    """What the objects say of their maps."""

    answers: tuple[Statement, ...]  # one per map, in their order
    method: str  # the explainer's name
    model: str
    model_version: str
    findings: tuple[Statement, ...] = ()  # probabilities without a map, for the report
    threshold: float = 0.25  # share of a map's maximum: nothing is tinted and no heat band begins below it
    units: str = "logit"  # of the maps

    def checked(self) -> DicomStatements:
        """Itself, with texts that DICOM can hold: on one line, and no backslash, which separates values there.

        Raises:
            ValueError: an empty text, a prompt twice, or a number out of its range.
        """
        for text in (self.method, self.model, self.model_version, self.units):
            _plain(text)
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold={self.threshold} must be in [0, 1): it is a share of the map's maximum.")
        answers, findings = (tuple(map(_checked, group)) for group in (self.answers, self.findings))
        for group in (answers, findings):
            texts = [one.text for one in group]
            if twice := {text for text in texts if texts.count(text) > 1}:
                raise ValueError(f"{sorted(twice)} is asked twice: name each prompt and each finding once.")
        return self._replace(
            answers=answers,
            findings=findings,
            method=_plain(self.method),
            model=_plain(self.model),
            model_version=_plain(self.model_version),
            units=_plain(self.units),
        )


def short(text: str, length: int = _LONG_STRING) -> str:
    """A text of at most so many characters; dots tell that it goes on."""
    return text if len(text) <= length else text[: length - 3].rstrip() + "..."


def told(what: str, answer: Statement, method: str) -> str:
    """A series description: ``MedCLIP heatmap: nodule p=0.83 (recommended)``; a long prompt is cut, never the score."""
    head, tail = f"MedCLIP {what}: ", f" {answer.score}"
    room = _LONG_STRING - len(head) - len(tail)
    if len(answer.text) + len(method) + 3 <= room or room - len(method) - 3 >= 12:
        tail += f" ({short(method, 20)})"
    return head + short(answer.text, _LONG_STRING - len(head) - len(tail)) + tail


def _plain(text: str) -> str:
    plain = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip().replace("\\", "/")
    if not plain:
        raise ValueError(f"{text!r} says nothing: prompt, method, model, version and units need a text.")
    return plain


def _checked(one: Statement) -> Statement:
    if not (math.isfinite(one.logit) and (one.probability is None or 0 <= one.probability <= 1)):
        raise ValueError(
            f"{one.text!r} has logit {one.logit} and probability {one.probability}: both must be finite, and a "
            "probability lies within 0 and 1."
        )
    probability = None if one.probability is None else float(one.probability)
    return Statement(_plain(one.text), float(one.logit), probability)
