"""BLIP: transformers' own numbers, one score by every way, mismatches that are mismatches, and a head that learns."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from monai_medclip.engines import embed
from monai_medclip.explainers import (
    M2IB,
    AttentionGradCAM,
    AttentionRollout,
    Chefer,
    ConservativePropagation,
    GatedPropagation,
    GradCAM,
    GradECLIP,
    IntegratedGradients,
    MedGradECLIP,
    Occlusion,
    PatchSimilarity,
    ReportGrounding,
    TextGradECLIP,
    TokenGradCAM,
)
from monai_medclip.findings import Finding
from monai_medclip.losses import ContrastiveLoss
from monai_medclip.networks import BLIPMatcher, Classifier, ZeroShotClassifier, attend
from monai_medclip.networks.blip import MatchingBatch
from monai_medclip.outputs import TokenBatch
from monai_medclip.transforms import ReportTokenizer

from .toys import VOCABULARY, tokenize

NODULE = Finding("nodule", ("There is a nodule.", "Pulmonary nodule."), ("No nodule.",))
EFFUSION = Finding("effusion", ("There is a large effusion on the left.",), ("No effusion.", "No fluid."))
TEXTS = ["There is a nodule.", "The lungs are clear.", "Effusion.", "The heart is large, the lungs are clear."]


def loud(module: nn.Module) -> Any:
    """Fresh biases are 0 and BLIP's fresh weights 1e-10: that would hide errors."""
    for parameter in module.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.2)
    return module.eval()


def config(**vision: Any) -> BlipConfig:
    common = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    text = {**common, "vocab_size": VOCABULARY, "bos_token_id": None, "sep_token_id": None}
    return BlipConfig(
        vision_config={**common, "image_size": 32, "patch_size": 8, **vision},
        text_config=text,
        image_text_hidden_size=12,
    )


def tiny() -> BLIPMatcher:
    """Heads of 32 channels are the only size of `small`, so its width is the least that its stem allows."""
    return loud(BLIPMatcher.small(VOCABULARY, image_size=32, width=64, max_length=16))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 32, 32)


def test_both_halves_are_those_of_transformers_and_class_1_is_a_match(tmp_path: Path) -> None:
    reference = loud(BlipForImageTextRetrieval(config()))
    reference.save_pretrained(tmp_path)
    matcher = BLIPMatcher.load(tmp_path).eval()
    image, tokens = torch.rand(4, 3, 32, 32), tokenize(TEXTS)
    both = reference(tokens.input_ids, image, attention_mask=tokens.attention_mask).itm_score
    features = matcher.image_encoder(image)
    expected = both.softmax(dim=1)[:, 1]  # transformers' conversion of BLIP's weights takes column 1 for the match
    torch.testing.assert_close(matcher.match(matcher.memory(features), *tokens).sigmoid(), expected)
    cosines = reference(tokens.input_ids, image, False, attention_mask=tokens.attention_mask).itm_score
    output = matcher(image, *tokens)
    torch.testing.assert_close(output.image @ output.text.T, cosines)
    torch.testing.assert_close(output.image, matcher.embed_features(features))


def test_positions_are_interpolated_for_an_image_of_another_size(tmp_path: Path) -> None:
    reference = loud(BlipForImageTextRetrieval(config()))
    reference.save_pretrained(tmp_path)
    matcher = BLIPMatcher.load(tmp_path, image_size=(48, 64)).eval()
    image = torch.rand(2, 3, 48, 64)
    expected = reference.vision_model(image, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(matcher.image_encoder.tokens_of(matcher.image_encoder(image)), expected)
    assert matcher.image_encoder.grid_size == (6, 8)
    assert matcher.image_encoder.width == 49 * 24


def test_a_captioning_checkpoint_has_no_matching_head_and_is_refused(tmp_path: Path) -> None:
    BlipForConditionalGeneration(config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \d+ weights of BlipForImageTextRetrieval"):
        BLIPMatcher.load(tmp_path)


def test_logit_is_the_heads_match_minus_mismatch() -> None:
    matcher = tiny()
    with torch.no_grad():
        matcher.matching_head.weight.zero_()
        matcher.matching_head.bias.copy_(torch.tensor([2.0, 5.0]))
    logits = matcher.match(matcher.memory(matcher.image_encoder(images(4))), *tokenize(TEXTS))
    torch.testing.assert_close(logits, torch.full((4,), 3.0))


@pytest.mark.parametrize("block", [0, 1])
def test_finishing_from_the_captured_attention_equals_forward(tmp_path: Path, block: int) -> None:
    loud(BlipForImageTextRetrieval(config())).save_pretrained(tmp_path)
    encoder = BLIPMatcher.load(tmp_path).eval().image_encoder
    image = torch.rand(2, 3, 32, 32)
    tokens = encoder.tokens_entering(image, block)
    finished = encoder.finish(tokens, attend(encoder.qkv(tokens, block))[1], block)
    torch.testing.assert_close(finished, encoder(image), rtol=1e-4, atol=1e-5)
    assert encoder.num_blocks == 2


def test_classifier_gives_mean_logits_of_its_prompts_by_every_way() -> None:
    matcher = tiny()
    classifier = matcher.classifier([NODULE, EFFUSION], tokenize)
    assert isinstance(classifier, Classifier)
    assert classifier.findings == ("nodule", "effusion")
    assert classifier.matcher is matcher
    image = images()
    features = matcher.image_encoder(image)
    one, two, three = (
        matcher.match(matcher.memory(features), *(part.expand(3, -1) for part in tokenize([text])))
        for text in (*NODULE.positive, *EFFUSION.positive)
    )
    expected = torch.stack([(one + two) / 2, three], dim=1)
    torch.testing.assert_close(classifier(image), expected, rtol=1e-4, atol=1e-5)  # prompts were padded there
    torch.testing.assert_close(classifier.score_features(features), classifier(image))


def test_difference_rules_subtract_the_mean_of_the_prompts_against() -> None:
    matcher, image = tiny(), images()
    against = [Finding(one.name, one.negative, ()) for one in (NODULE, EFFUSION)]
    pro, con = (matcher.classifier(findings, tokenize)(image) for findings in ([NODULE, EFFUSION], against))
    difference = matcher.classifier([NODULE, EFFUSION], tokenize, rule="positive_minus_negative")
    torch.testing.assert_close(difference(image), pro - con, rtol=1e-4, atol=1e-5)
    normal = matcher.classifier([NODULE], tokenize, rule="positive_minus_normal", normal_prompts=NODULE.negative)
    torch.testing.assert_close(normal(image), (pro - con)[:, :1], rtol=1e-4, atol=1e-5)


def test_an_image_is_encoded_once_and_every_prompt_costs_a_pass() -> None:
    matcher = tiny()
    classifier = matcher.classifier([NODULE, EFFUSION], tokenize, rule="positive_minus_negative")
    seen = Counter[str]()

    def count(name: str) -> Any:
        def add(_: nn.Module, args: Any, output: Tensor) -> None:
            seen[name] += len(output)

        return add

    matcher.image_encoder.register_forward_hook(count("images"))
    matcher.text_encoder.encoder.layer[1].crossattention.self.key.register_forward_hook(count("keys of images"))
    matcher.matching_head.register_forward_hook(count("pairs"))
    classifier(images(3))
    assert seen == {"images": 3, "keys of images": 3, "pairs": 3 * 6}


@pytest.mark.parametrize("pairs_at_once", [1, 4, 1000])
def test_scores_do_not_depend_on_chunks_or_on_the_order_of_the_batch(pairs_at_once: int) -> None:
    matcher, image = tiny(), images(3)
    classifier = matcher.classifier([NODULE, EFFUSION], tokenize)
    chunked = type(classifier)(matcher, [NODULE, EFFUSION], tokenize, pairs_at_once=pairs_at_once)
    torch.testing.assert_close(chunked(image.flip(0)).flip(0), classifier(image), rtol=1e-4, atol=1e-5)


def test_classifier_follows_the_weights_without_being_told() -> None:
    matcher, other, image = tiny(), tiny(), images()
    classifier = matcher.classifier(["nodule"], tokenize)
    before = classifier(image)
    matcher.load_state_dict(other.state_dict())
    assert not torch.allclose(classifier(image), before)
    torch.testing.assert_close(classifier(image), other.classifier(["nodule"], tokenize)(image))


def test_integrated_gradients_add_up_to_the_matching_score() -> None:
    matcher, image = tiny(), images(2)
    classifier = matcher.classifier([NODULE, EFFUSION], tokenize)
    maps, scores = IntegratedGradients(steps=60, baseline=0.0).explain(classifier, image)
    with torch.no_grad():
        added = scores - classifier(torch.zeros_like(image))
    assert added.abs().min() > 1e-3
    torch.testing.assert_close(maps.flatten(2).sum(-1), added, rtol=2e-2, atol=2e-4)


def test_occlusion_of_the_whole_image_is_what_the_image_adds() -> None:
    matcher, image = tiny(), images(2)
    classifier = matcher.classifier([NODULE, EFFUSION], tokenize)
    maps, scores = Occlusion(window=32, stride=32, baseline=0.0).explain(classifier, image)
    with torch.no_grad():
        added = scores - classifier(torch.zeros_like(image))
    torch.testing.assert_close(maps[:, :, 0, 0], added, rtol=1e-4, atol=1e-5)


ATTENTION: list[Any] = [
    GradECLIP,
    AttentionGradCAM,
    TokenGradCAM,
    Chefer,
    ConservativePropagation,
    GatedPropagation,
    PatchSimilarity,
    partial(MedGradECLIP, radius=2),
    partial(M2IB, blocks=1, steps=2, samples=1),
]


@pytest.mark.parametrize("method", ATTENTION)
def test_methods_that_read_attention_explain_the_matching_score_itself(method: Any) -> None:
    image = images(2)
    opposite = Finding("no nodule", NODULE.negative, NODULE.positive)  # one of the two maps is not cut off to zero
    classifier = tiny().classifier([NODULE, opposite], tokenize, rule="positive_minus_negative")
    maps, scores = method(verify=True).explain(classifier, image)
    assert maps.shape == (2, 2, 32, 32)
    assert (maps.flatten(2).std(-1).amax(dim=1) > 0).all()
    torch.testing.assert_close(scores, classifier(image).detach(), rtol=1e-4, atol=1e-4)


def test_rollout_is_the_same_for_every_finding_and_a_stem_is_no_feature_map() -> None:
    classifier = tiny().classifier([NODULE, EFFUSION], tokenize)
    maps = AttentionRollout()(classifier, images(1))
    torch.testing.assert_close(maps[:, 0], maps[:, 1])
    with pytest.raises(TypeError, match="holds a transformer"):
        GradCAM().explain(classifier, images(1))
    with pytest.raises(TypeError, match="no cosine"):
        GradECLIP(target="cosine").explain(classifier, images(1))


def test_sentences_are_grounded_as_with_a_clip_and_words_are_refused() -> None:
    matcher, image = tiny(), images(1)
    grounding = ReportGrounding(Chefer(), tokenize)(matcher, image, TEXTS[:2], [(0, 18), (19, 39)])
    expected = matcher.classifier([Finding(text, (text,), ()) for text in TEXTS[:2]], tokenize)(image)
    torch.testing.assert_close(grounding.scores, expected.detach(), rtol=1e-4, atol=1e-4)
    assert grounding.heatmap.shape == (1, 2, 32, 32)
    with pytest.raises(TypeError, match="BlipTextModel gives none"):
        TextGradECLIP().check(matcher)


def test_contrastive_half_serves_where_a_clip_does() -> None:
    matcher, image = tiny(), images(4)
    batch = {"image": image, "positives": torch.arange(4), **tokenize(TEXTS)._asdict()}
    stored = embed(matcher, [batch])
    torch.testing.assert_close(stored.image.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(stored.text, matcher.encode_text(*tokenize(TEXTS)).detach())
    classifier = ZeroShotClassifier(matcher, [NODULE], tokenize)
    expected = matcher.logit_scale * stored.image @ classifier.refresh().T
    torch.testing.assert_close(classifier(image), expected)
    explained = GradECLIP(target="cosine", verify=True).explain(classifier, image)
    torch.testing.assert_close(explained.scores, classifier.as_cosine(expected).detach())


def seen_pairs(
    matcher: BLIPMatcher, image: Tensor, texts: list[str], positives: Tensor, seed: int = 0, **options: Any
) -> tuple[MatchingBatch, list[tuple[int, int]]]:
    """The batch of a step, and the (image, text) numbers of the pairs that its matching head was given."""
    tokens, own, taken = tokenize(texts), matcher.match, []

    def noting(memory: Any, input_ids: Tensor, attention_mask: Tensor, images: Tensor) -> Tensor:
        numbers = (input_ids[:, None] == tokens.input_ids).all(-1).int().argmax(dim=1)
        taken.extend(zip(images.tolist(), numbers.tolist(), strict=True))
        return own(memory, input_ids, attention_mask, images)

    matcher.match = noting  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(seed)
    try:
        return matcher.training_batch(image, *tokens, positives, generator=generator, **options), taken
    finally:
        matcher.match = own  # type: ignore[method-assign]


def test_a_step_has_every_match_and_two_mismatches_for_each_that_are_none_of_the_same_text() -> None:
    positives = torch.tensor([0, 0, 1, 2])
    texts = [TEXTS[0], TEXTS[0] + " Again.", TEXTS[1], TEXTS[2]]
    for seed in range(5):
        step, pairs = seen_pairs(tiny(), images(4), texts, positives, seed)
        assert pairs[:4] == [(i, i) for i in range(4)]
        assert step.match.tolist() == [1.0] * 4 + [0.0] * 8
        assert all(positives[image] != positives[text] for image, text in pairs[4:])
        assert [image for image, _ in pairs[4:8]] == [text for _, text in pairs[8:]] == [0, 1, 2, 3]


def test_the_most_similar_wrong_text_is_drawn() -> None:
    matcher = tiny()
    with torch.no_grad():
        matcher.log_scale.fill_(6.0)  # so sharp that the draw is sure
    image = images(4)
    step, pairs = seen_pairs(matcher, image, TEXTS, torch.arange(4))
    similarity = step.output.image @ step.output.text.T
    similarity.fill_diagonal_(-2)
    assert [text for _, text in pairs[4:8]] == similarity.argmax(dim=1).tolist()
    assert [number for number, _ in pairs[8:]] == similarity.argmax(dim=0).tolist()


def test_without_hardness_every_wrong_text_is_drawn_alike() -> None:
    matcher, image = tiny(), images(4)
    with torch.no_grad():
        matcher.log_scale.fill_(6.0)  # with hardness the draw would be sure
    drawn = Counter[tuple[int, int]]()
    for seed in range(60):
        drawn.update(seen_pairs(matcher, image, TEXTS, torch.arange(4), seed, hardness=0.0)[1][4:8])
    assert len(drawn) == 12  # every wrong text of every image
    assert min(drawn.values()) >= 8  # 20 expected


def test_a_batch_of_one_text_has_no_mismatch() -> None:
    step, pairs = seen_pairs(tiny(), images(3), TEXTS[:3], torch.zeros(3, dtype=torch.int64))
    assert pairs == [(0, 0), (1, 1), (2, 2)]
    assert step.match.tolist() == [1.0] * 3
    assert step.logits.shape == (3,)


def test_matching_is_learned() -> None:
    bright = torch.zeros(4, 1, 32, 32)
    for number, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        bright[number, :, row : row + 16, column : column + 16] = 1.0
    tokens = tokenize(["upper left", "upper right", "lower left", "lower right"])
    matcher = BLIPMatcher.small(VOCABULARY, image_size=32, width=64, max_length=16)
    optimizer = torch.optim.AdamW(matcher.parameters(), lr=2e-3)
    generator, contrast = torch.Generator().manual_seed(0), ContrastiveLoss()
    for _ in range(80):
        step = matcher.training_batch(bright, *tokens, torch.arange(4), generator=generator)
        loss = contrast(step.output, torch.arange(4)) + F.binary_cross_entropy_with_logits(step.logits, step.match)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    matcher.eval()
    memory = matcher.memory(matcher.image_encoder(bright))
    logits = torch.stack([matcher.match(memory, *(part[i].expand(4, -1) for part in tokens)) for i in range(4)])
    assert ((logits > 0) == torch.eye(4, dtype=torch.bool)).all()
    output = matcher(bright, *tokens)
    assert (output.image @ output.text.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_temperature_stays_within_clips_limit() -> None:
    matcher = tiny().train()
    with torch.no_grad():
        matcher.log_scale.fill_(9.0)
    matcher(images(4), *tokenize(TEXTS))
    torch.testing.assert_close(matcher.logit_scale, torch.tensor(100.0))


def test_reranking_reorders_the_candidates_by_their_matching_logits() -> None:
    matcher, image = tiny(), images(5)
    features, queries = matcher.image_encoder(image).detach(), tokenize(TEXTS[:2])
    candidates = torch.tensor([[4, 1, 2], [0, 3, 4]])
    order, logits = matcher.rerank(features, TokenBatch(*queries), candidates)
    assert [sorted(row) for row in order.tolist()] == [sorted(row) for row in candidates.tolist()]
    assert all(first >= second for row in logits.tolist() for first, second in pairwise(row))
    for query, (row, values) in enumerate(zip(order, logits, strict=True)):
        own = matcher.match(matcher.memory(features[row]), *(part[query].expand(3, -1) for part in queries))
        torch.testing.assert_close(values, own.detach(), rtol=1e-4, atol=1e-5)


def test_gray_image_equals_its_three_copies(tmp_path: Path) -> None:
    loud(BlipForImageTextRetrieval(config())).save_pretrained(tmp_path)
    matcher, gray = BLIPMatcher.load(tmp_path).eval(), images(2)
    torch.testing.assert_close(matcher.encode_image(gray), matcher.encode_image(gray.repeat(1, 3, 1, 1)))


def test_what_cannot_be_asked_is_refused_in_words() -> None:
    matcher = tiny()
    with pytest.raises(ValueError, match="0 findings"):
        matcher.classifier([], tokenize)
    with pytest.raises(ValueError, match="unknown prompt rule 'best'"):
        matcher.classifier([NODULE], tokenize, rule="best")
    long = tokenize([" ".join(["word"] * 17)])
    with pytest.raises(ValueError, match=re.escape("Texts of 17 tokens do not fit this BLIP's 16")):
        matcher.encode_text(*long)
    with pytest.raises(ValueError, match="temperature 0 must be positive"):
        BLIPMatcher(loud(BlipForImageTextRetrieval(config())), temperature=0)


def test_the_page_about_clip_or_blip_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = ReportTokenizer.train([*TEXTS, "Right pleural effusion.", "Cardiomegaly."], path=tmp_path / "blip-itm")
    assert tokenizer.vocab_size <= VOCABULARY
    loud(BlipForImageTextRetrieval(config())).save_pretrained(tmp_path / "blip-itm")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "explanation" / "clip-or-blip.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"image": torch.rand(2, 3, 32, 32)}
    exec(compile(code, page.name, "exec"), names)
    assert names["logits"].shape == (2, 2)
    assert names["maps"].shape == (2, 2, 32, 32)
