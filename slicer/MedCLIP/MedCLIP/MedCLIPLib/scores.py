"""Findings with their scores, and cases like this one, as a server's JSON names them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Case", "Score", "merged", "read_cases", "read_scores", "sorted_scores"]


class Score(NamedTuple):
    """One finding's answer."""

    finding: str
    probability: float  # 0 to 1
    logit: float


class Case(NamedTuple):
    """A case of the server's index."""

    id: str
    cosine: float  # of the embeddings, -1 to 1
    text: str  # its report or its labels; "" where the index keeps none


def read_scores(rows: Iterable[Mapping[str, Any]]) -> list[Score]:
    """Scores from JSON objects ``{finding, logit, probability}``.

    Raises:
        ValueError: one lacks a number, or has one that is not finite.
    """
    try:
        scores = [Score(str(row["finding"]), float(row["probability"]), float(row["logit"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a score lacks its finding, logit or probability ({type(error).__name__}).") from error
    for score in scores:
        if not (math.isfinite(score.logit) and 0 <= score.probability <= 1):
            raise ValueError(f"{score.finding}: logit {score.logit}, probability {score.probability}: not a score.")
    return scores


def read_cases(rows: Iterable[Mapping[str, Any]]) -> list[Case]:
    """Cases from JSON objects ``{id, cosine, text?, labels?}``; labels stand in where there is no text.

    Raises:
        ValueError: one lacks its id or its cosine.
    """
    try:
        return [Case(str(row["id"]), float(row["cosine"]), _words(row)) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"a similar case lacks its id or cosine ({type(error).__name__}).") from error


def _words(row: Mapping[str, Any]) -> str:
    """The case's report, else the names of its labels."""
    text, labels = row.get("text"), row.get("labels")
    if text or not labels:
        return str(text or "")
    if isinstance(labels, Mapping):
        labels = [name for name, value in labels.items() if value]
    return ", ".join(str(label) for label in labels)


def sorted_scores(scores: Iterable[Score]) -> list[Score]:
    """The likeliest first; equals by logit, then by name."""
    return sorted(scores, key=lambda score: (-score.probability, -score.logit, score.finding))


def merged(scores: Iterable[Score], newer: Iterable[Score]) -> list[Score]:
    """Sorted scores, where a newer one replaces the older one of the same finding."""
    return sorted_scores({score.finding: score for score in (*scores, *newer)}.values())
