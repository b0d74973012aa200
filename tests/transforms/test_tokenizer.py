"""Tokenizers of three libraries behind one face: same ids as the library's own, spans that point at the words."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch

from monai_medclip.transforms import ReportTokenizer
from monai_medclip.transforms.open_clip_tokenizer import align

REPORTS = [
    "The heart is normal in size. No pleural effusion.",
    "Large left pleural effusion; no pneumothorax.",
    "No focal consolidation. The heart size is normal.",
    "The lungs are clear. No effusion or pneumothorax.",
]
UNUSUAL = "  Caf\u00e9: na\u00efve\tX-ray (2.5 CM)\n\nNO  effusion &amp; \u2018clear\u2019 \U0001f600 "


@pytest.fixture(scope="module")
def trained() -> ReportTokenizer:
    return ReportTokenizer.train(REPORTS * 2, vocab_size=400, max_length=64)


def words(tokenizer: ReportTokenizer, text: str) -> list[tuple[str, str]]:
    """Every token beside the characters that its span points at."""
    ids, spans = tokenizer.encode(text)
    return [
        (token, text[start:end])
        for token, (start, end) in zip(tokenizer.tokens(ids), spans.tolist())
        if (start, end) != (-1, -1)
    ]


def test_trained_tokenizer_knows_its_words_and_frames_them(trained):
    ids, spans = trained.encode("No effusion")
    assert trained.tokens(ids) == ["[CLS]", "no", "effusion", "[SEP]"]
    assert spans.tolist() == [[-1, -1], [0, 2], [3, 11], [-1, -1]]
    assert trained.pad_id == 0
    assert trained.vocab_size <= 400


def test_spans_of_pieces_and_odd_characters_point_at_their_letters(trained):
    text = "pneumo-effusions Pl\u00c9ural\n(left)"
    for token, letters in words(trained, text):
        plain = letters.lower().replace("\u00e9", "e")
        assert token in (plain, f"##{plain}", "[UNK]")


def test_equal_texts_give_an_equal_vocabulary_in_any_process(trained, tmp_path):
    trained.encode(REPORTS[0], max_length=5)  # leaves no trace in what is saved
    trained.save(tmp_path / "here")
    code = (
        "import sys, json; from monai_medclip.transforms import ReportTokenizer; "
        "ReportTokenizer.train(json.loads(sys.argv[1]) * 2, path=sys.argv[2], vocab_size=400, max_length=64)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, json.dumps(REPORTS), tmp_path / "there"], check=True, env=environment)
    assert (tmp_path / "here" / "tokenizer.json").read_text() == (tmp_path / "there" / "tokenizer.json").read_text()


def test_written_tokenizer_reads_back_equal(trained, tmp_path):
    trained.save(tmp_path)
    for source in (tmp_path, str(tmp_path), tmp_path / "tokenizer.json"):
        loaded = ReportTokenizer.load(source)
        assert loaded.vocab_size == trained.vocab_size
        for ours, theirs in zip(loaded(REPORTS), trained(REPORTS)):
            assert torch.equal(ours, theirs)
    assert ReportTokenizer.load(tmp_path).max_length == 64


def test_load_or_train_learns_once(tmp_path):
    first = ReportTokenizer.load_or_train(tmp_path, REPORTS, vocab_size=100)
    again = ReportTokenizer.load_or_train(tmp_path, ["other words entirely"], vocab_size=100)
    assert torch.equal(first(REPORTS).input_ids, again(REPORTS).input_ids)


def test_vocabulary_file_of_a_published_bert_loads(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "eff", "##usion"])
    )
    tokenizer = ReportTokenizer.load(tmp_path / "vocab.txt")
    assert tokenizer.encode("No effusion").input_ids.tolist() == [2, 5, 6, 7, 3]
    assert words(tokenizer, "No effusion") == [("no", "No"), ("eff", "eff"), ("##usion", "usion")]


def test_batch_is_padded_to_its_longest(trained):
    batch = trained(["No effusion", "No pleural effusion or pneumothorax"])
    assert batch.input_ids.shape == (2, 7)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert batch.input_ids[0, 4:].tolist() == [0, 0, 0]


def test_truncation_keeps_the_end_token(trained):
    assert trained.tokens(trained.encode(REPORTS[0], max_length=5).input_ids) == [
        "[CLS]",
        "the",
        "heart",
        "is",
        "[SEP]",
    ]
    assert trained.count(REPORTS[0]) == 13


@pytest.mark.parametrize("text", ["", "  \n "])
def test_empty_report_is_refused(trained, text):
    with pytest.raises(ValueError, match="empty report"):
        trained.encode(text)


def test_vocabulary_needs_texts_and_room():
    with pytest.raises(ValueError, match="every text is empty"):
        ReportTokenizer.train(["", " "])
    with pytest.raises(ValueError, match="smaller than the alphabet"):
        ReportTokenizer.train(REPORTS, vocab_size=12)


def test_missing_folder_names_itself_and_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*ReportTokenizer\.train"):
        ReportTokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", [*REPORTS, UNUSUAL], ids=range(5))
def test_open_clip_ids_are_open_clips_own(text):
    tokenizer = ReportTokenizer.load("ViT-B-32")
    ids = tokenizer.encode(text).input_ids
    expected = open_clip.get_tokenizer("ViT-B-32")([text])[0]
    assert torch.equal(ids, expected[: len(ids)])
    assert not expected[len(ids) :].any()
    assert (tokenizer.vocab_size, tokenizer.max_length) == (49408, 77)


def test_open_clip_spans_point_at_the_words():
    tokenizer = ReportTokenizer.load("ViT-B-32")
    for text in REPORTS:
        assert all(token.removesuffix("</w>") == letters.lower() for token, letters in words(tokenizer, text))
    found = dict(words(tokenizer, UNUSUAL))
    assert found["no</w>"] == "NO"
    assert found["cm</w>"] == "CM"
    assert found["clear</w>"] == "clear"


def test_open_clip_end_token_survives_truncation_and_saving(tmp_path):
    tokenizer = ReportTokenizer.load("ViT-B-32", max_length=6)
    assert tokenizer.tokens(tokenizer.encode(REPORTS[0]).input_ids)[-1] == "<end_of_text>"
    tokenizer.save(tmp_path)
    assert torch.equal(ReportTokenizer.load(tmp_path, max_length=6)(REPORTS).input_ids, tokenizer(REPORTS).input_ids)


@pytest.fixture
def siglip(trained, tmp_path):
    """A SigLIP-like folder: its tokenizer drops punctuation, and its network reads padding."""
    trained.save(tmp_path)
    text = {
        "context_length": 16,
        "hf_tokenizer_name": "owner/name",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "pool_type": "last",
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"text_cfg": text}}))
    return tmp_path


def test_siglip_tokens_fill_the_context_and_skip_punctuation(siglip):
    tokenizer = ReportTokenizer.load(siglip)
    text = "No, pleural-effusion."
    ids, spans = tokenizer.encode(text)
    expected = open_clip.get_tokenizer(f"local-dir:{siglip}")([text])[0]
    assert torch.equal(ids, expected)
    assert len(spans) == 16
    assert words(tokenizer, text)[0] == ("no", "No")
    letters = "".join(part for _, part in words(tokenizer, text))
    assert letters.replace("-", "") == "Nopleuraleffusion"
    assert tokenizer([text]).attention_mask.all()


def test_alignment_follows_dropped_and_replaced_characters():
    assert align("A  b\n", "a b") == [0, 1, 3]
    assert align("x-ray", "xray") == [0, 2, 3, 4]
    entity = align("a &amp; b", "a & b")
    assert (entity[0], entity[2], entity[4]) == (0, 2, 8)
