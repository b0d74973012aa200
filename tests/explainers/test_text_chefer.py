"""Chefer on text: the paper's recursion with whole matrices, its last-block identity, and no negative weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.text_chefer import TextChefer
from monai_medclip.networks import attend

from ..networks.text_towers import TOWERS, encode, report_for, tiny_pair

REPORT = "no big mass in left lung ."  # every word is one token
IMAGE = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)


def relevance(clip, name: str, blocks: int) -> Tensor:
    """R - I (N x N) over the last blocks, multiplied out, and its rows that pooling reads, averaged: (V,)."""
    ids, spans, mask = report_for(name, REPORT)
    encoder = clip.text_encoder
    report = encoder.read(ids[None], mask[None])
    tokens, attentions = report.entering, []
    for block in range(encoder.num_blocks):
        attention, context = attend(encoder.qkv(tokens, block), report.mask)
        attentions.append(attention)
        tokens = encoder.leave(tokens, context, block)
    text = F.normalize(clip.text_projection(encoder.pool(tokens, report.pooled)), dim=-1)
    logit = clip.logit_scale * (clip.encode_image(IMAGE) * text).sum()
    grads = torch.autograd.grad(logit, attentions)
    identity = torch.eye(tokens.shape[1])
    product = identity
    for attention, gradient in list(zip(attentions, grads, strict=True))[-blocks:]:
        product = product + (attention * gradient).relu().mean(dim=1)[0].detach() @ product
    rows = product - identity
    row = rows.mean(dim=0) if report.pooled is None else rows[report.pooled]
    return row[[n for n, at in enumerate(report.positions.tolist()) if at >= 0 and spans[at, 0] >= 0]]


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("blocks", [1, 2, None])
def test_it_is_the_papers_recursion(name, blocks):
    clip = tiny_pair(name)
    ids, spans, _ = report_for(name, REPORT)
    found = TextChefer(blocks=blocks)(clip, IMAGE, REPORT, ids, spans)
    assert found.words == tuple(REPORT.split())
    torch.testing.assert_close(found.weights, relevance(clip, name, blocks or 3), atol=1e-6, rtol=1e-4)
    assert found.weights.max() > 1e-4


def test_weights_are_never_negative_and_say_so():
    ids, spans = encode(REPORT)
    clip = tiny_pair("bert-cls")
    for sign in (1, -1):
        with torch.no_grad():
            clip.image_projection.weight.mul_(sign)
        found = TextChefer()(clip, IMAGE, REPORT, ids, spans)
        assert found.weights.min() >= 0
        assert not found.signed


def test_a_score_that_nothing_moves_is_flat():
    clip, (ids, spans) = tiny_pair("clip"), encode(REPORT)
    with torch.no_grad():
        for block in clip.text_encoder.tower.transformer.resblocks:
            block.attn.out_proj.weight.zero_()
    found = TextChefer()(clip, IMAGE, REPORT, ids, spans)
    assert found.flat
    assert found.shares().tolist() == [0.0] * 7


def test_logit_and_cosine_differ_by_the_scale_in_one_block():
    clip, (ids, spans) = tiny_pair("clip"), encode(REPORT)
    logit, cosine = (TextChefer(blocks=1, target=t)(clip, IMAGE, REPORT, ids, spans) for t in ("logit", "cosine"))
    torch.testing.assert_close(logit.weights, cosine.weights * clip.logit_scale.item(), atol=1e-6, rtol=1e-4)
