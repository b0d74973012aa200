"""Reports in items: tokens with spans into the original text, padded batches, lengths with a warning."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from monai_medclip.transforms import (
    BadInputError,
    ReportTokenizer,
    TokenizeReportd,
    collate_reports,
    token_length_report,
)

REPORTS = ["The heart is normal. No effusion.", "Large left effusion; no pneumothorax.", "No effusion."]


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    return ReportTokenizer.train(REPORTS * 2, vocab_size=400)


def test_item_gets_ids_mask_and_spans_and_keeps_its_text(tokenizer):
    item = TokenizeReportd("text", tokenizer)({"text": REPORTS[2], "id": "a"})
    assert tokenizer.tokens(item["input_ids"]) == ["[CLS]", "no", "effusion", ".", "[SEP]"]
    assert item["attention_mask"].tolist() == [1] * 5
    assert [REPORTS[2][start:end] for start, end in item["token_spans"].tolist()[1:-1]] == ["No", "effusion", "."]
    assert item["text"] == REPORTS[2]


def test_spans_go_back_to_the_report_before_cleaning(tokenizer):
    original = "IMPRESSION: XXXX No large   effusion."
    kept = [17, 18, 19, *range(20, 26), *range(28, 37)]
    cleaned = "".join(original[index] for index in kept)
    assert cleaned == "No large effusion."
    item = {"text": cleaned, "text_offsets": np.array([*kept, len(original)])}
    spans = TokenizeReportd("text", tokenizer)(item)["token_spans"].tolist()
    assert [original[start:end] for start, end in spans[1:-1]] == ["No", "large", "effusion", "."]
    assert spans[0] == spans[-1] == [-1, -1]


def test_empty_report_names_the_item(tokenizer):
    with pytest.raises(BadInputError, match=r"CXR7: An empty report cannot be tokenized\. Drop the case"):
        TokenizeReportd("text", tokenizer)({"text": " ", "id": "CXR7"})
    with pytest.raises(ValueError, match="one text key"):
        TokenizeReportd(["text", "findings"], tokenizer)


def test_max_length_cuts_the_end(tokenizer):
    item = TokenizeReportd("text", tokenizer, max_length=4)({"text": REPORTS[0]})
    assert tokenizer.tokens(item["input_ids"]) == ["[CLS]", "the", "heart", "[SEP]"]


def items(tokenizer: ReportTokenizer) -> list[dict]:
    tokenize = TokenizeReportd("text", tokenizer)
    return [
        tokenize(
            {
                "image": MetaTensor(torch.full((1, 4, 3), float(index))),
                "text": report,
                "label": torch.tensor([0.0, float("nan")]),
                "positives": torch.tensor(index),
                "labels": ["a"] * index,
                "view": None,
                "meta": {"rows": index},
            }
        )
        for index, report in enumerate(REPORTS)
    ]


def test_batch_pads_tokens_and_stacks_the_rest(tokenizer):
    batch = collate_reports(items(tokenizer))
    lengths = [tokenizer.count(report) for report in REPORTS]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["token_spans"].shape == (3, max(lengths), 2)
    assert (batch["token_spans"][2, lengths[2] :] == -1).all()
    assert batch["image"].shape == (3, 1, 4, 3)
    assert isinstance(batch["image"], MetaTensor)
    assert batch["label"].shape == (3, 2)
    assert batch["positives"].tolist() == [0, 1, 2]
    assert batch["text"] == REPORTS
    assert batch["labels"] == [[], ["a"], ["a", "a"]]
    assert batch["view"] == [None] * 3
    assert batch["meta"][2] == {"rows": 2}


def test_batch_equals_tokenizing_the_texts_together(tokenizer):
    batch, together = collate_reports(items(tokenizer)), tokenizer(REPORTS)
    assert torch.equal(batch["input_ids"], together.input_ids)
    assert torch.equal(batch["attention_mask"], together.attention_mask)


def test_items_without_tokens_and_lists_of_items_collate():
    flat = [{"image": torch.zeros(1, 2)}, {"image": torch.ones(1, 2)}]
    assert collate_reports(flat)["image"].shape == (2, 1, 2)
    assert collate_reports([flat, flat])["image"].shape == (4, 1, 2)


def test_a_loader_with_workers_carries_the_tokenizer(tokenizer):
    dataset = Dataset([{"text": report} for report in REPORTS], TokenizeReportd("text", tokenizer))
    loader = DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=collate_reports)
    assert torch.equal(next(iter(loader))["input_ids"], tokenizer(REPORTS).input_ids)


def test_length_report_counts_and_warns(tokenizer, caplog):
    texts = ["no effusion"] * 3 + ["no " * 10]
    with caplog.at_level(logging.WARNING):
        lengths = token_length_report(texts, tokenizer, max_length=8)
    assert lengths[:5] == (4, 6.0, 4.0, pytest.approx(10.8), 12)
    assert (lengths.max_length, lengths.truncated, lengths.truncated_fraction) == (8, 1, 0.25)
    assert "1 of 4 reports (25.0 %) are longer than 8 tokens" in caplog.text
    caplog.clear()
    assert token_length_report(texts, tokenizer).truncated == 0
    assert caplog.text == ""
    with pytest.raises(ValueError, match="empty"):
        token_length_report([], tokenizer)
