"""Sentences and clauses of a report: where they end, and dropping or shuffling them in training without lying."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from monai_medclip.transforms.mapped_text import MappedText
from monai_medclip.transforms.report import SECTION_HEADINGS, split_sections

_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|mr|mrs|ms|prof|vs|approx|cf|fig|st|resp|e\.g|i\.e|\d{1,2})\.$", re.IGNORECASE
)
_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
_COMMA = re.compile(r"[,;](?=\s)")
_NEGATION = re.compile(
    r"\b(?:no|not|nor|neither|without|never|none|free of|negative for|absent|denies|cannot|rule out)\b|n't\b",
    re.IGNORECASE,
)
_NEGATED_START = re.compile(
    r"\s*(?:(?:and|or|but|almost|there (?:is|are))\s+)?(?:no|not|nor|without|never|none|free of|negative for)\b",
    re.IGNORECASE,
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where sentences begin and end: "Dr. Smith", "2.5 cm" and "1. Nodule" stay whole.

    Args:
        text: one report.

    Returns:
        (start, end) of each sentence, end exclusive, without white space around; they do not overlap.
    """
    cuts = [
        match.end()
        for match in _END.finditer(text)
        if match.group().startswith("\n") or not _is_abbreviation(text, match.end())
    ]
    return _trimmed(text, [0, *cuts, len(text)])


def _is_abbreviation(text: str, end: int) -> bool:
    head = text[max(0, end - 12) : end]
    if not _ABBREVIATION.search(head):
        return re.search(r"\bno\.$", head, re.IGNORECASE) is not None and re.match(r"\s*\d", text[end:]) is not None
    number = re.search(r"(\S*\s*)\b\d{1,2}\.$", head)  # "1." numbers an item at a start, but ends "stable since 10."
    return number is None or not re.search(r"[a-z,%]\s+$", number.group(1), re.IGNORECASE)


def clause_spans(text: str) -> list[tuple[int, int]]:
    """Where clauses (sentences cut at commas and semicolons) begin and end.

    A clause that a negation before it may reach ("no effusion, pneumothorax or edema") stays with the negated one,
    unless it begins with a negation of its own: dropping a clause never turns another around.
    """
    spans: list[tuple[int, int]] = []
    for start, end in sentence_spans(text):
        cuts, negated = [start], False
        points = [start, *(match.end() + start for match in _COMMA.finditer(text[start:end])), end]
        for left, right in pairwise(points):
            clause = text[left:right]
            if left > start and (not negated or _stands_alone(clause)):
                cuts.append(left)
            negated = negated or _NEGATION.search(clause) is not None
        spans += _trimmed(text, [*cuts, end])
    return spans


def _stands_alone(clause: str) -> bool:
    return _NEGATED_START.match(clause) is not None


def _trimmed(text: str, cuts: list[int]) -> list[tuple[int, int]]:
    spans = []
    for left, right in pairwise(cuts):
        piece = text[left:right]
        if re.search(r"\w", piece):
            start = left + len(piece) - len(piece.lstrip())
            spans.append((start, start + len(piece.strip())))
    return spans


_UNITS = {"sentence": sentence_spans, "clause": clause_spans}


class _UnitTransform(Randomizable, MapTransform):
    """What sampling and shuffling share: a report as a list of sentences or clauses."""

    def __init__(self, keys: KeysCollection, unit: str, allow_missing_keys: bool) -> None:
        super().__init__(keys, allow_missing_keys)
        if unit not in _UNITS:
            raise ValueError(f"unit is {unit!r}; choose one of {list(_UNITS)}.")
        self.unit = unit

    def randomize(self, data: Any = None) -> None:
        """Nothing is drawn ahead: how much depends on the report."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its report changed; "text_offsets" still lead to the original."""
        item = dict(data)
        for key in self.key_iterator(item):
            report = MappedText.from_item(item, key)
            self._rearranged(report, _UNITS[self.unit](report.text)).into_item(item, key)
        return item

    @abstractmethod
    def _rearranged(self, report: MappedText, spans: list[tuple[int, int]]) -> MappedText:
        """The report made anew of its units, whose (start, end) are `spans`."""


class SampleSentencesd(_UnitTransform):
    """Drop random sentences or clauses of a report, in training: the rest stays in order."""

    def __init__(
        self,
        keys: KeysCollection = "text",
        *,
        drop_prob: float = 0.5,
        at_least: int = 1,
        at_most: int | None = None,
        keep_section: str | None = None,
        unit: str = "sentence",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the sampling.

        Args:
            keys: report texts, cleaned but not tokenized.
            drop_prob: probability, 0 to 1, with which each sentence is dropped.
            at_least: so many are always kept, if the report has them.
            at_most: no more than so many are kept; ``None`` for no limit.
            keep_section: a section as `split_sections` names it, such as "impression", whose sentences are never
                dropped; they count for `at_least` and not for `at_most`. Reports without it are sampled as a whole.
            unit: "sentence" or "clause".
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, unit, allow_missing_keys)
        if not 0 <= drop_prob <= 1 or at_least < 1 or (at_most is not None and at_most < at_least):
            raise ValueError(
                f"drop_prob {drop_prob} must lie in 0..1, and 1 <= at_least {at_least} <= at_most {at_most}."
            )
        if keep_section is not None and keep_section not in SECTION_HEADINGS:
            raise ValueError(f"keep_section {keep_section!r} is unknown; choose from {list(SECTION_HEADINGS)}.")
        self.drop_prob, self.at_least, self.at_most = drop_prob, at_least, at_most
        self.keep_section = keep_section

    def _rearranged(self, report: MappedText, spans: list[tuple[int, int]]) -> MappedText:
        safe = self._safe(report.text, spans) if self.keep_section else []
        free = [i for i in range(len(spans)) if i not in safe]
        order = self.R.permutation(len(free))  # who is kept first when the number is bounded
        survivors = int((self.R.random_sample(len(free)) >= self.drop_prob).sum())
        number = max(self.at_least - len(safe), min(survivors, len(free) if self.at_most is None else self.at_most))
        kept = sorted([*safe, *(free[i] for i in order[:number].tolist())])
        return MappedText.concatenate([report.cut(*spans[i]) for i in kept], " ").stripped(" ,;")

    def _safe(self, text: str, spans: list[tuple[int, int]]) -> list[int]:
        """Units that touch the section that is never dropped."""
        sections = [part for title, part in split_sections(text).items() if title.split()[0] == self.keep_section]
        return [i for i, (start, end) in enumerate(spans) if any(p.start < end and start < p.end for p in sections)]


class ShuffleSentencesd(_UnitTransform):
    """Put the sentences or clauses (a dermoscopy caption's criteria) of a report in random order, in training."""

    def __init__(
        self,
        keys: KeysCollection = "text",
        *,
        prob: float = 1.0,
        unit: str = "sentence",
        keep_first: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the shuffling.

        Args:
            keys: texts, cleaned but not tokenized.
            prob: probability of shuffling, 0 to 1.
            unit: "sentence" or "clause".
            keep_first: leave the first unit in front ("Dermoscopic image of a nevus, ...").
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, unit, allow_missing_keys)
        self.prob, self.keep_first = prob, keep_first

    def _rearranged(self, report: MappedText, spans: list[tuple[int, int]]) -> MappedText:
        units = [report.cut(start, end) for start, end in spans]
        first = int(self.keep_first)
        order = first + self.R.permutation(max(len(units) - first, 0))
        if self.R.random_sample() < self.prob:
            units = [*units[:first], *(units[i] for i in order)]
        if self.unit == "sentence":
            return MappedText.concatenate(units, " ")
        return MappedText.concatenate([unit.stripped(" ,;.") for unit in units], ", ")
