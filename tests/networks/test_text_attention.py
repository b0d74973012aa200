"""Attention access to text towers: walking it gives the encoder's own features, in every library and pooling."""

from __future__ import annotations

import pytest
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor
from transformers import BertConfig, DistilBertConfig

from monai_medclip.networks import OpenClipTextEncoder, TransformersTextEncoder, attend
from monai_medclip.networks.text_attention import ReportTokens, has_text_attention

from .text_towers import BERT, MEAN_POOLED, TOWERS, bert_tower, encode, open_clip_tower, report_for
from .toys import BagOfWords

REPORT = "Small left-sided effusion. No mass."


def walked(encoder, report: ReportTokens) -> tuple[Tensor, list[Tensor]]:
    """Features (1, width) and every block's attention, through the access alone."""
    tokens, attentions = report.entering, []
    for block in range(encoder.num_blocks):
        attention, context = attend(encoder.qkv(tokens, block), report.mask)
        attentions.append(attention)
        tokens = encoder.leave(tokens, context, block)
    return encoder.pool(tokens, report.pooled), attentions


def padded(name: str) -> tuple[Tensor, Tensor]:
    """A report (1, N) with three columns of padding, but for the tower that reads its own."""
    ids, _, mask = report_for(name, REPORT)
    extra = 0 if name == "siglip" else 3
    pad = 3 if name == "roberta-cls" else 0
    ids = torch.nn.functional.pad(ids, (0, extra), value=pad)
    return ids[None], torch.nn.functional.pad(mask, (0, extra))[None]


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_walk_gives_what_the_encoder_gives(name):
    encoder = TOWERS[name]().eval()
    ids, mask = padded(name)
    assert has_text_attention(encoder)
    assert encoder.num_blocks == 3
    features, attentions = walked(encoder, encoder.read(ids, mask))
    torch.testing.assert_close(features, encoder(ids, mask), atol=1e-5, rtol=1e-5)
    for attention in attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:-1]))


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_positions_lead_back_to_the_ids(name):
    encoder = TOWERS[name]().eval()
    ids, mask = padded(name)
    changed = ids.clone()
    changed[0, 4] = 7 if ids[0, 4] != 7 else 8
    before, after = encoder.read(ids, mask), encoder.read(changed, mask)
    moved = (before.entering - after.entering).abs().sum(-1)[0] > 0  # (N,)
    assert before.positions[moved].tolist() == [4]
    real = before.positions[before.positions >= 0]
    assert real.tolist() == list(range(int(mask.sum())))


@pytest.mark.parametrize("name", sorted(set(TOWERS) - MEAN_POOLED))
@torch.no_grad()
def test_pooling_reads_the_pooled_token_and_no_other(name):
    encoder = TOWERS[name]().eval()
    report = encoder.read(*padded(name))
    tokens = torch.randn_like(report.entering)
    others = torch.randn_like(tokens)
    others[:, report.pooled] = tokens[:, report.pooled]
    torch.testing.assert_close(encoder.pool(others, report.pooled), encoder.pool(tokens, report.pooled))
    expected = {
        "clip": END_OF_REPORT,
        "clip-eos": END_OF_REPORT,
        "clip-scaled": END_OF_REPORT,
        "coca": 24,
        "siglip": 23,
    }
    assert report.pooled == expected.get(name, 0)


END_OF_REPORT = len(encode(REPORT)[0]) - 1


@torch.no_grad()
def test_causal_tower_looks_back_only():
    encoder = open_clip_tower().eval()
    _, attentions = walked(encoder, encoder.read(*padded("clip")))
    assert all((attention.triu(1) == 0).all() for attention in attentions)
    assert (attentions[0].tril() > 0).sum() == 4 * 24 * 25 // 2


REFUSED = {
    "distilbert": lambda: TransformersTextEncoder(DistilBertConfig(vocab_size=60, dim=32, n_heads=4, n_layers=1)),
    "decoder": lambda: TransformersTextEncoder(BertConfig.from_dict({**BERT.to_dict(), "is_decoder": True})),
    "max pooling": lambda: bert_tower("max_pooler"),
    "other blocks": lambda: open_clip_tower(qk_norm=True),
    "no pooling": lambda: OpenClipTextEncoder(TextTransformer(16, 60, 32, 4, 1, pool_type="none")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_tower_says_which_can_be_read(name):
    encoder = REFUSED[name]()
    assert not has_text_attention(encoder)
    with pytest.raises(TypeError, match="BERT, RoBERTa, XLM-RoBERTa and CamemBERT"):
        encoder.read(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4))


def test_encoder_without_access_has_none():
    assert not has_text_attention(BagOfWords())


@pytest.mark.parametrize("name", ["bert-cls", "clip", "open-clip-bert-cls"])
def test_what_the_encoder_refuses_is_refused(name):
    encoder = TOWERS[name]()
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="one report at a time, not 2"):
        encoder.read(ids, torch.ones_like(ids))
    with pytest.raises(ValueError, match="do not fit"):
        encoder.read(ids[:1].repeat(1, 20), torch.ones(1, 80))
    if name != "clip":
        with pytest.raises(ValueError, match="attention_mask is all zero"):
            encoder.read(ids[:1], torch.zeros(1, 4))
