"""What LIDC-IDRI's readers say of a lung nodule: nine ratings, the words for each value, and what several agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import mode

__all__ = ["NODULE_CHARACTERISTICS", "ReaderConsensus", "nodule_sentences", "rating_words", "reader_consensus"]


def _graded(noun: str, *adjectives: str) -> dict[int, str]:
    return {value: f"{adjective} {noun}" for value, adjective in enumerate(adjectives, start=1)}


# The names of the XML files and, value by value, the terms of the LIDC documentation (as pylidc's `Annotation` prints
# them), in the wording of reports: "Non-Solid/GGO" is ground-glass, "Near Marked" is rather marked, and so on.
NODULE_CHARACTERISTICS: dict[str, dict[int, str]] = {
    "subtlety": {
        value: f"{words} on the image"
        for value, words in enumerate(
            ("extremely subtle", "moderately subtle", "fairly subtle", "moderately obvious", "obvious"), start=1
        )
    },
    "internalStructure": {
        value: f"internal structure of {words}"
        for value, words in enumerate(("soft tissue", "fluid", "fat", "air"), start=1)
    },
    "calcification": _graded("calcification", "popcorn", "laminated", "solid", "non-central", "central", "no"),
    "sphericity": dict(enumerate(("linear", "ovoid to linear", "ovoid", "ovoid to round", "round"), start=1)),
    "margin": _graded(
        "margin", "poorly defined", "rather poorly defined", "moderately defined", "nearly sharp", "sharp"
    ),
    "lobulation": _graded("lobulation", "no", "almost no", "medium", "rather marked", "marked"),
    "spiculation": _graded("spiculation", "no", "almost no", "medium", "rather marked", "marked"),
    "texture": dict(enumerate(("ground-glass", "mostly ground-glass", "part-solid", "mostly solid", "solid"), start=1)),
    "malignancy": dict(
        enumerate(
            (
                "highly unlikely",
                "moderately unlikely",
                "indeterminate",
                "moderately suspicious",
                "highly suspicious",
            ),
            start=1,
        )
    ),
}

_KINDS = ("internalStructure", "calcification")  # kinds without an order; the other seven are grades
_SHAPE = ("texture", "sphericity")  # said of the nodule itself, not in a clause of their own
_CLAUSES = ("margin", "lobulation", "spiculation", "calcification", "internalStructure", "subtlety")
_MIDDLE = 3  # of five grades


class ReaderConsensus(NamedTuple):
    """One characteristic of one nodule, as its readers rated it."""

    value: int  # what they say together
    readers: tuple[int, ...]  # what each says, in the order of the readers
    range: int  # highest minus lowest grade; of a kind without order, the number of different answers minus 1
    agreement: float  # 0 opposite ends to 1 all alike, over pairs of readers; NaN of a single reader


def rating_words(name: str, value: int) -> str:
    """The words for a rating, such as ``"nearly sharp margin"`` for margin 4.

    Raises:
        ValueError: no such characteristic, or a value outside of its scale.
    """
    if name not in NODULE_CHARACTERISTICS:
        raise ValueError(f"characteristic {name!r} is none of LIDC's: use one of {list(NODULE_CHARACTERISTICS)}.")
    words = NODULE_CHARACTERISTICS[name]
    if value not in words:
        raise ValueError(f"{name} is {value!r}: LIDC rates it 1 to {len(words)}. Correct the rating or leave it out.")
    return words[value]


def nodule_sentences(
    ratings: Mapping[str, int],
    *,
    with_malignancy: bool,
    diameter_mm: float | None = None,
    mention: Sequence[str] = tuple(NODULE_CHARACTERISTICS),
) -> str:
    """Ratings as a caption, such as "Chest CT: solid round lung nodule of 5 mm, sharp margin, no spiculation.".

    Every clause can be dropped or moved by itself (`SampleSentencesd` with ``unit="clause"``): what is absent comes
    last and begins with its own negation, so that `clause_spans` never ties a present characteristic to it. The
    malignancy is a sentence of its own, because it is an opinion and the others are looks: without it a caption does
    not say the answer that a malignancy probe is asked for.

    Args:
        ratings: values by name, of `NODULE_CHARACTERISTICS`; what is not in there is not mentioned.
        with_malignancy: whether the rating of malignancy is told.
        diameter_mm: told in whole mm if given. Size gives most of the malignancy away: compare with diameter alone.
        mention: the characteristics that may be told.

    Raises:
        ValueError: an unknown characteristic, or a value outside of its scale.
    """
    words = {name: rating_words(name, value) for name, value in ratings.items()}
    if unknown := [name for name in mention if name not in NODULE_CHARACTERISTICS]:
        raise ValueError(f"mention={unknown} are no characteristics: use some of {list(NODULE_CHARACTERISTICS)}.")
    told = {name: text for name, text in words.items() if name in mention}
    size = "" if diameter_mm is None else f" of {diameter_mm:.0f} mm"
    shape = " ".join([told[name] for name in _SHAPE if name in told] + ["lung nodule"])
    clauses = sorted((told[name] for name in _CLAUSES if name in told), key=_is_absent)
    sentence = ", ".join([f"Chest CT: {shape}{size}", *clauses]) + "."
    if with_malignancy and "malignancy" in told:
        sentence += f" Malignancy rated {told['malignancy']}."
    return sentence


def _is_absent(words: str) -> bool:
    return words.startswith(("no ", "almost no "))


def reader_consensus(name: str, values: Sequence[int]) -> ReaderConsensus:
    """What several readers say together of one characteristic, and how far they are apart.

    A grade is the median; a median between two grades is rounded away from 3, the middle of the scale: so malignancy is
    4 or more exactly where the median is above 3 and 2 or less where it is below, the usual rule for malignant, benign
    and indeterminate on this collection. Calcification and internal structure are kinds, not grades: the most frequent
    answer, of equally frequent ones the first of the scale, which is calcified rather than not.

    The agreement is the weighted share of agreeing pairs of readers: 1 - |a - b| / (grades - 1) each, and 1 or 0 of a
    kind. It is not corrected for chance; for a whole collection Cohen's or Fleiss' kappa of the readers' values is.

    Args:
        name: one of `NODULE_CHARACTERISTICS`.
        values: one rating per reader, at least one.

    Raises:
        ValueError: no value, or one outside of the scale.

    References:
        Cohen, Weighted kappa, Psychological Bulletin 70, 1968 (the weights of the agreement).
    """
    for value in values:
        rating_words(name, value)
    if not values:
        raise ValueError(f"{name} has no reader: give the rating of at least one.")
    ratings = [int(value) for value in values]
    kind = name in _KINDS
    value = int(mode(ratings).mode) if kind else _away_from_middle(float(np.median(ratings)))
    spread = len(set(ratings)) - 1 if kind else max(ratings) - min(ratings)
    steps = len(NODULE_CHARACTERISTICS[name]) - 1
    pairs = [float(a == b) if kind else 1 - abs(a - b) / steps for a, b in combinations(ratings, 2)]
    return ReaderConsensus(value, tuple(ratings), spread, float(np.mean(pairs)) if pairs else math.nan)


def _away_from_middle(median: float) -> int:
    return math.ceil(median) if median > _MIDDLE else math.floor(median)
