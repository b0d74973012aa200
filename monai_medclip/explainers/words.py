"""From tokens back to words: sub-words of one word share its place in the original report."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MERGES", "Word", "merge_weights", "words_of_tokens"]

MERGES = ("sum", "max")

# Letters and digits; an apostrophe or hyphen inside them ("x-ray", "patient's") and a point, comma, colon or slash
# between digits ("2.5", "3/4") belong to the word. A run of any other marks is a word of its own.
_LETTERS = r"[\w\u0300-\u036f]+"
_WORD = re.compile(rf"{_LETTERS}(?:['\u2019-]{_LETTERS}|(?<=\d)[.,:/](?=\d){_LETTERS})*|[^\w\s]+")


class Word(NamedTuple):
    """One word or run of marks, and the tokens that carry it."""

    start: int  # first character in the report
    end: int  # behind the last one
    tokens: list[int]  # rows of the spans; at least one


def words_of_tokens(text: str, spans: Tensor) -> list[Word]:
    """Group tokens by the words of a report.

    A word is a run of letters and digits with the hyphens, apostrophes and decimal points inside it; other marks are
    words of their own, so that the weight of a full stop does not count for the word before it. A token that reaches
    over several words makes one of them. Words without a token (cut off, or cleaned away) are left out; of a word that
    is only in part among the tokens the whole span is given.

    Args:
        text: the report that the spans point into.
        spans: (V, 2) int64 characters [start, end) of every token, in any order.

    Returns:
        Words in the order of the report; each token with a visible character belongs to exactly one.

    Raises:
        ValueError: a span is empty or reaches beyond the text, which then is not the one that was tokenized.
    """
    found = [match.span() for match in _WORD.finditer(text)]
    ends = [end for _, end in found]
    words: list[Word] = []
    pairs: list[tuple[int, int]] = [(int(start), int(end)) for start, end in spans.tolist()]
    for token in sorted(range(len(pairs)), key=lambda row: pairs[row]):
        start, end = pairs[token]
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"Token span ({start}, {end}) does not lie in a text of {len(text)} characters: give the original "
                "report that was tokenized."
            )
        first = bisect_left(ends, start + 1)  # the first word that ends behind the token's start
        touched = [span for span in found[first : first + end - start] if span[0] < end]
        if touched:
            _add(words, Word(touched[0][0], touched[-1][1], [token]))
    return words


def _add(words: list[Word], word: Word) -> None:
    """Append a word, or join it with the last ones if they overlap."""
    while words and word.start < words[-1].end:
        last = words.pop()
        word = Word(min(last.start, word.start), max(last.end, word.end), [*last.tokens, *word.tokens])
    words.append(word)


def merge_weights(weights: Tensor, words: list[Word], merge: str = "sum") -> Tensor:
    """One weight per word from one per token.

    Args:
        weights: (V,) of the tokens.
        words: W words.
        merge: ``"sum"`` of the word's tokens, or ``"max"``, the one of the largest size with its sign.

    Returns:
        (W,) weights.
    """
    if merge not in MERGES:
        raise ValueError(f"merge={merge!r}: use one of {', '.join(MERGES)}.")
    parts = [weights[word.tokens] for word in words]
    merged = [part.sum() if merge == "sum" else part[part.abs().argmax()] for part in parts]
    return torch.stack(merged) if merged else weights.new_zeros(0)
