"""Grad-ECLIP on text: the paper's identities, signs, and a planted word, in every library's tower."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.base import UnfaithfulError
from monai_medclip.explainers.text_chefer import TextChefer
from monai_medclip.explainers.text_grad_eclip import TextGradECLIP
from monai_medclip.networks import attend

from ..networks.text_towers import END, TOWERS, encode, report_for, tiny_pair
from ..networks.toys import tiny_clip

REPORT = "no big mass in left lung ."  # every word is one token
WORDS = tuple(REPORT.split())
IMAGE = torch.linspace(-1, 1, 32 * 32).view(1, 1, 32, 32)


def explained(name: str, **options):
    ids, spans, _ = report_for(name, REPORT)
    return TextGradECLIP(**options)(tiny_pair(name), IMAGE, REPORT, ids, spans)


def by_hand(clip, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of the last block: G (H, Nq, V) = d logit / d attention, q (Nq, D), k (V, D), the words alone as keys."""
    ids, spans, mask = report_for(name, REPORT)
    encoder = clip.text_encoder
    report = encoder.read(ids[None], mask[None])
    tokens = report.entering
    for block in range(encoder.num_blocks - 1):
        tokens = encoder.leave(tokens, attend(encoder.qkv(tokens, block), report.mask)[1], block)
    qkv = encoder.qkv(tokens, block + 1)
    attention = attend(qkv, report.mask)[0].detach().requires_grad_()
    context = (attention @ qkv.v).transpose(1, 2).flatten(2)
    features = encoder.pool(encoder.leave(tokens, context, block + 1), report.pooled)
    text = F.normalize(clip.text_projection(features), dim=-1)
    logit = clip.logit_scale * (clip.encode_image(IMAGE) * text).sum() + clip.logit_bias
    (gradient,) = torch.autograd.grad(logit, attention)
    read = slice(None) if report.pooled is None else slice(report.pooled, report.pooled + 1)
    columns = [row for row, at in enumerate(report.positions.tolist()) if at >= 0 and spans[at, 0] >= 0]
    q, k = (heads.transpose(1, 2).flatten(2)[0].detach() for heads in qkv[:2])
    return gradient[0][:, read][..., columns], q[read], k[columns]


@pytest.mark.parametrize("name", TOWERS)
def test_without_lambda_it_is_the_sum_of_attention_gradients(name):
    clip = tiny_pair(name)
    ids, spans, _ = report_for(name, REPORT)
    gradient = by_hand(clip, name)[0].sum(dim=(0, 1))  # (V,)
    signed = TextGradECLIP(loosening="none")(clip, IMAGE, REPORT, ids, spans)
    paper = TextGradECLIP(loosening="none", signed=False)(clip, IMAGE, REPORT, ids, spans)
    assert signed.words == WORDS
    torch.testing.assert_close(signed.weights, gradient, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(paper.weights, gradient.relu(), atol=1e-5, rtol=1e-4)
    assert signed.signed
    assert not paper.signed
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bert-cls", "bert-mean", "clip", "siglip"])
def test_lambda_is_scaled_over_the_words_alone(name):
    clip = tiny_pair(name)
    gradient, q, k = by_hand(clip, name)
    cosine = F.cosine_similarity(q.sum(0, keepdim=True), k)
    scaled = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    ids, spans, _ = report_for(name, REPORT)
    weights = TextGradECLIP()(clip, IMAGE, REPORT, ids, spans).weights
    torch.testing.assert_close(weights, scaled * gradient.sum(dim=(0, 1)), atol=1e-5, rtol=1e-4)
    assert weights[cosine.argmin()] == 0


@pytest.mark.parametrize("name", ["bert-cls", "clip"])
def test_words_that_pull_up_pull_the_opposite_image_down(name):
    clip = tiny_pair(name)
    ids, spans, _ = report_for(name, REPORT)
    before = TextGradECLIP(blocks=2)(clip, IMAGE, REPORT, ids, spans)
    with torch.no_grad():
        clip.image_projection.weight.neg_()
    after = TextGradECLIP(blocks=2)(clip, IMAGE, REPORT, ids, spans)
    torch.testing.assert_close(after.weights, -before.weights)
    torch.testing.assert_close(after.score, -before.score)
    assert before.weights.min() < 0 < before.weights.max()


@pytest.mark.parametrize("name", ["bert-cls", "bert-mean", "clip", "siglip"])
@pytest.mark.parametrize("method", [TextGradECLIP, TextChefer])
def test_a_word_made_to_raise_the_score_weighs_most(name, method):
    """In towers of one block, where the words themselves are what the attention reads."""
    clip = tiny_pair(name)
    encoder = clip.text_encoder
    if name.startswith("bert"):
        encoder.model.encoder.layer = encoder.model.encoder.layer[:1]
    else:
        encoder.tower.transformer.resblocks = encoder.tower.transformer.resblocks[:1]
    ids, spans, mask = report_for(name, REPORT)
    row = ids[1 + WORDS.index("left")]
    words = next(
        p for n, p in clip.named_parameters() if n.endswith(("word_embeddings.weight", "token_embedding.weight"))
    )
    image = clip.encode_image(IMAGE).detach()
    for _ in range(40):
        (slope,) = torch.autograd.grad((image * clip.encode_text(ids[None], mask[None])).sum(), words)
        with torch.no_grad():
            words[row] += 0.5 * F.normalize(slope[row], dim=0)
    found = method()(clip, IMAGE, REPORT, ids, spans)
    assert found.words[int(found.weights.argmax())] == "left"


def test_blocks_are_added_after_their_own_relu():
    clip, (ids, spans) = tiny_pair("clip"), encode(REPORT)
    one, two, paper = (
        TextGradECLIP(loosening="none", blocks=blocks, signed=signed)(clip, IMAGE, REPORT, ids, spans)
        for blocks, signed in ((1, True), (2, True), (2, False))
    )
    before = two.weights - one.weights
    assert before.abs().max() > 1e-3
    torch.testing.assert_close(paper.weights, one.weights.relu() + before.relu(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", ["logit", "cosine"])
def test_score_is_the_models_own(target):
    clip = tiny_pair("roberta-cls")
    with torch.no_grad():
        clip.logit_bias.fill_(-3.0)
    ids, spans, mask = report_for("roberta-cls", REPORT)
    found = TextGradECLIP(target=target)(clip, IMAGE, REPORT, ids, spans)
    output = clip(IMAGE, ids[None], mask[None])
    cosine = (output.image * output.text).sum().detach()
    expected = cosine if target == "cosine" else output.logit_scale * cosine - 3.0
    torch.testing.assert_close(found.score, expected.detach(), atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing():
    clip = tiny_pair("bert-cls")
    ids, spans = encode(REPORT)
    plain = TextGradECLIP()(clip, IMAGE, REPORT, ids, spans)
    ids, spans = encode(REPORT, padded_to=20)
    padded = TextGradECLIP()(clip, IMAGE, REPORT, ids, spans, (ids != 0).long())
    assert padded.words == plain.words
    torch.testing.assert_close(padded.weights, plain.weights)


def test_what_comes_behind_the_end_token_is_not_explained():
    ids, spans = encode(REPORT)
    ids[4], spans[4] = END, -1  # the causal tower reads its first: "left lung ." cannot be seen from there
    assert TextGradECLIP()(tiny_pair("clip"), IMAGE, REPORT, ids, spans).words == ("no", "big", "mass")


def test_sub_words_become_words_with_their_place():
    text = "Moderate cardiomegaly."
    clip, (ids, spans) = tiny_pair("clip"), encode(text)
    tokens = [text[start:end] for start, end in spans.tolist() if start >= 0]
    assert tokens == ["Mode", "rate", "card", "iome", "galy", "."]
    summed, largest = (
        TextGradECLIP(merge=merge, loosening="none")(clip, IMAGE, text, ids, spans) for merge in ("sum", "max")
    )
    assert summed.words == ("Moderate", "cardiomegaly", ".")
    assert summed.spans.tolist() == [[0, 8], [9, 21], [21, 22]]
    assert not torch.allclose(summed.weights[:2], largest.weights[:2])
    torch.testing.assert_close(summed.weights[2], largest.weights[2])


def test_nothing_to_compare_gives_zeros_and_a_flag():
    clip, (ids, spans) = tiny_pair("bert-cls"), encode("effu")
    found = TextGradECLIP()(clip, IMAGE, "effu", ids, spans)
    assert (found.flat, found.weights.tolist(), found.shares().tolist()) == (True, [0.0], [0.0])
    assert not explained("bert-cls").flat
    torch.testing.assert_close(explained("bert-cls").shares().abs().sum(), torch.tensor(1.0))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")])
def test_surroundings_do_not_matter_and_nothing_is_left_behind(around):
    clip = tiny_pair("bert-cls").train()
    frozen = clip.text_encoder.model.embeddings.word_embeddings.weight.requires_grad_(False)
    ids, spans = encode(REPORT)
    expected = TextGradECLIP()(clip, IMAGE, REPORT, ids, spans)
    with around():
        found = TextGradECLIP(verify=True)(clip, IMAGE.clone(), REPORT, ids.clone(), spans.clone())
    torch.testing.assert_close(found.weights, expected.weights)
    assert all(module.training for module in clip.modules())
    assert [p for p in clip.parameters() if not p.requires_grad] == [frozen]
    assert all(p.grad is None for p in clip.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in clip.modules())
    assert not found.weights.requires_grad


def test_modes_come_back_after_an_error():
    clip = tiny_pair("clip").train()
    ids, spans = encode(REPORT)
    with pytest.raises(ValueError, match="No token stands for a character"):
        TextGradECLIP()(clip, IMAGE, REPORT, ids, torch.full_like(spans, -1))
    assert all(module.training for module in clip.modules())
    assert all(p.requires_grad for p in clip.parameters())


def test_a_score_that_is_not_the_models_own_is_refused(monkeypatch):
    clip, (ids, spans) = tiny_pair("clip"), encode(REPORT)
    pool = type(clip.text_encoder).pool

    def twisted(encoder, tokens, pooled):
        return pool(encoder, tokens, pooled).flip(1)

    with monkeypatch.context() as patch:
        patch.setattr(type(clip.text_encoder), "pool", twisted)
        for _ in range(2):  # a failure is not remembered as verified
            with pytest.raises(UnfaithfulError, match="no weights are given"):
                TextGradECLIP()(clip, IMAGE, REPORT, ids, spans)
    TextGradECLIP()(clip, IMAGE, REPORT, ids, spans)
    monkeypatch.setattr(type(clip.text_encoder), "pool", twisted)
    TextGradECLIP()(clip, IMAGE, REPORT, ids, spans)  # compared once before
    with pytest.raises(UnfaithfulError):
        TextGradECLIP(verify=True)(clip, IMAGE, REPORT, ids, spans)
    with pytest.raises(UnfaithfulError):  # another method has not been
        TextChefer()(clip, IMAGE, REPORT, ids, spans)


def test_bad_input_names_the_remedy():
    ids, spans = encode(REPORT)
    with pytest.raises(TypeError, match=r"BagOfWords gives none\. Attention can be read in BERT"):
        TextGradECLIP()(tiny_clip(), IMAGE, REPORT, ids, spans)
    with pytest.raises(TypeError, match="blocks=4, but OpenClipTextEncoder has 3"):
        TextGradECLIP(blocks=4)(tiny_pair("clip"), IMAGE, REPORT, ids, spans)
    with pytest.raises(ValueError, match="One image and one report"):
        TextGradECLIP()(tiny_pair("clip"), IMAGE.repeat(2, 1, 1, 1), REPORT, ids, spans)
    for options in ({"blocks": 0}, {"target": "probability"}, {"merge": "mean"}, {"loosening": "entropy"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            TextGradECLIP(**options)
