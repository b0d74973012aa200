"""Words of tokens: sub-words merged, places in the original report, marks apart."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.explainers.words import merge_weights, words_of_tokens
from monai_medclip.transforms import ReportTokenizer


def words(text: str, *pieces: str) -> list[tuple[str, list[int]]]:
    """Words of the tokens that stand at these pieces of a text, found from left to right."""
    spans, place = [], 0
    for piece in pieces:
        place = text.index(piece, place)
        spans.append((place, place + len(piece)))
        place += len(piece)
    found = words_of_tokens(text, torch.tensor(spans).view(-1, 2))
    return [(text[word.start : word.end], word.tokens) for word in found]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("No effusion.", ["No", "eff", "us", "ion", "."], [("No", [0]), ("effusion", [1, 2, 3]), (".", [4])]),
        ("left-sided", ["left", "-", "sided"], [("left-sided", [0, 1, 2])]),
        (
            "patient\u2019s 2.5 cm",
            ["patient", "\u2019", "s", "2", ".", "5", "cm"],
            [("patient\u2019s", [0, 1, 2]), ("2.5", [3, 4, 5]), ("cm", [6])],
        ),
        ("clear.No mass", ["clear", ".", "No", "mass"], [("clear", [0]), (".", [1]), ("No", [2]), ("mass", [3])]),
        (
            "(see 3/4).",
            ["(", "see", "3", "/", "4", ")", "."],
            [("(", [0]), ("see", [1]), ("3/4", [2, 3, 4]), (").", [5, 6])],
        ),
        ("a - b", ["a", "-", "b"], [("a", [0]), ("-", [1]), ("b", [2])]),
        ("cafe\u0301 noir", ["cafe", "\u0301", "noir"], [("cafe\u0301", [0, 1]), ("noir", [2])]),
    ],
)
def test_a_word_keeps_its_inner_marks_and_no_others(text, pieces, expected):
    assert words(text, *pieces) == expected


def test_what_cleaning_took_out_of_a_word_does_not_split_it():
    assert words("can't see", "can", "t", "see") == [("can't", [0, 1]), ("see", [2])]


def test_words_without_a_token_are_left_out_and_cut_words_are_whole():
    assert words("no large effusion today", "no", "effu") == [("no", [0]), ("effusion", [1])]


def test_a_token_over_several_words_makes_one_of_them_and_space_makes_none():
    text = "pleural effusion left"
    found = words_of_tokens(text, torch.tensor([[0, 4], [5, 16], [7, 8], [16, 21]]))
    assert [(text[w.start : w.end], w.tokens) for w in found] == [("pleural effusion", [0, 1]), ("left", [3])]


def test_tokens_of_a_shuffled_report_come_back_in_its_own_order():
    found = words_of_tokens("one two", torch.tensor([[4, 7], [0, 3]]))
    assert [word.tokens for word in found] == [[1], [0]]


def test_spans_of_another_text_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 9\) does not lie in a text of 7 characters"):
        words_of_tokens("one two", torch.tensor([[0, 3], [4, 9]]))


def test_sum_and_largest_keep_the_sign():
    found = words_of_tokens("one two", torch.tensor([[0, 1], [1, 2], [2, 3], [4, 7]]))
    weights = torch.tensor([1.0, -3.0, 1.5, 0.25])
    assert merge_weights(weights, found, "sum").tolist() == [-0.5, 0.25]
    assert merge_weights(weights, found, "max").tolist() == [-3.0, 0.25]
    with pytest.raises(ValueError, match="merge='mean'"):
        merge_weights(weights, found, "mean")


def test_a_trained_tokenizer_gives_the_words_of_the_report():
    report = "Left-sided effusion, 2.5 cm. No pneumothorax."
    encoded = ReportTokenizer.train([report, "effusions and masses"], vocab_size=60).encode(report)
    real = encoded.token_spans[encoded.token_spans[:, 0] >= 0]
    found = words_of_tokens(report, real)
    assert len(real) > len(found)  # there were sub-words
    assert [report[w.start : w.end] for w in found] == [
        "Left-sided", "effusion", ",", "2.5", "cm", ".", "No", "pneumothorax", ".",
    ]  # fmt: skip
