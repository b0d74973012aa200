"""Captions made of criteria ("solid nodule of 7 mm with sharp margin and no calcification"), and dropping some."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from monai.config import KeysCollection

from monai_medclip.transforms.mapped_text import MappedText
from monai_medclip.transforms.sentences import _NEGATION, SampleSentencesd, _stands_alone, clause_spans

__all__ = ["DropClausesd", "criterion_spans"]

CONNECTORS = ("with", "and", "of")
_EDGES = " ,;:."


def criterion_spans(text: str, connectors: Sequence[str] = CONNECTORS) -> list[tuple[int, int]]:
    """Where the criteria of a caption begin and end: its clauses, cut again at connecting words and colons.

    As in `clause_spans`, what a negation before it may reach stays with it: "no lobulation and spiculation" is one
    criterion, "no lobulation and no spiculation" are two.

    Args:
        text: one caption.
        connectors: words that join two criteria and belong to neither.

    Returns:
        (start, end) of each criterion, end exclusive, without connectors, punctuation or white space around.
    """
    words = "|".join(re.escape(word) for word in connectors)
    connector = re.compile(rf":\s+|\s+(?:{words})\s+" if words else r":\s+", re.IGNORECASE)
    spans = []
    for start, end in clause_spans(text):
        left, cuts = start, []
        for match in connector.finditer(text, start, end):
            negated = _NEGATION.search(text[left : match.start()]) is not None
            if not negated or _stands_alone(text[match.end() : end]):
                cuts.append((left, match.start()))
                left = match.end()
        spans += [*cuts, (left, end)]
    return [span for span in (_trimmed(text, *span) for span in spans) if span[0] < span[1]]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip(_EDGES)), start + len(piece.rstrip(_EDGES))


class DropClausesd(SampleSentencesd):
    """Drop random criteria of a caption, in training: the rest stays in order, joined by commas.

    A caption that lists everything lets a network read only what is easiest to see. With half of it gone, the rest has
    to do: this is what makes single criteria answer to prompts. Meant for captions; sentences of prose lose their
    grammar by it: use `SampleSentencesd` there.
    """

    def __init__(
        self,
        keys: KeysCollection = "text",
        *,
        drop_prob: float = 0.5,
        at_least: int = 1,
        connectors: Sequence[str] = CONNECTORS,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the sampling.

        Args:
            keys: captions, not tokenized.
            drop_prob: probability, 0 to 1, with which each criterion is dropped.
            at_least: so many are always kept, if the caption has them.
            connectors: words at which clauses are cut into criteria; see `criterion_spans`.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(
            keys, drop_prob=drop_prob, at_least=at_least, unit="clause", allow_missing_keys=allow_missing_keys
        )
        self.connectors = tuple(connectors)

    def _units(self, report: MappedText) -> list[MappedText]:
        criteria = [report.cut(start, end) for start, end in criterion_spans(report.text, self.connectors)]
        return [MappedText(f"{part.text},", np.append(part.offsets, part.offsets[-1])) for part in criteria]
