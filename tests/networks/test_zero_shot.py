"""Zero-shot directions with hand-made answers, and a classifier that never goes stale."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.findings import Finding
from monai_medclip.networks import PROMPT_RULES, ZeroShotClassifier, prompt_directions
from monai_medclip.outputs import TokenBatch

from .toys import tiny_clip, tokenize

NODULE = Finding("nodule", ("There is a nodule.", "Pulmonary nodule."), ("No nodule.",))
EFFUSION = Finding("effusion", ("There is an effusion.",), ("No effusion.", "No fluid."))
NORMAL = ("The lungs are clear.",)


def embed(clip, *texts: str) -> torch.Tensor:
    return clip.eval().encode_text(*tokenize(list(texts)))


def test_positive_rule_is_the_renormalized_mean_of_unit_embeddings() -> None:
    clip = tiny_clip()
    direction = prompt_directions(clip, [NODULE], tokenize)[0]
    torch.testing.assert_close(direction, F.normalize(embed(clip, *NODULE.positive).mean(0), dim=0))


def test_name_pair_is_the_name_against_no_name() -> None:
    clip = tiny_clip()
    direction = prompt_directions(clip, [EFFUSION], tokenize, "name_pair")[0]
    yes, no = embed(clip, "effusion", "no effusion")
    torch.testing.assert_close(direction, yes - no)


@pytest.mark.parametrize("rule", ["positive_minus_negative", "positive_minus_normal"])
def test_sigmoid_of_a_difference_is_the_softmax_over_the_pair(rule: str) -> None:
    clip = tiny_clip().eval()
    image = torch.rand(3, 1, 32, 32)
    logits = clip.classifier([EFFUSION], tokenize, rule=rule, normal_prompts=NORMAL)(image)
    con = NORMAL if rule.endswith("normal") else EFFUSION.negative
    pair = torch.stack([F.normalize(embed(clip, *t).mean(0), dim=0) for t in (EFFUSION.positive, con)])
    softmax = (clip.logit_scale * clip.encode_image(image) @ pair.T).softmax(dim=1)
    torch.testing.assert_close(logits.sigmoid()[:, 0], softmax[:, 0])


@pytest.mark.parametrize("rule", PROMPT_RULES)
def test_classifier_equals_cached_embeddings_times_directions(rule: str) -> None:
    clip = tiny_clip().eval()
    image = torch.rand(3, 1, 32, 32)
    classifier = clip.classifier([NODULE, EFFUSION], tokenize, rule=rule)
    directions = prompt_directions(clip, [NODULE, EFFUSION], tokenize, rule)
    expected = clip.logit_scale * clip.encode_image(image) @ directions.T
    torch.testing.assert_close(classifier(image), expected)
    assert classifier.findings == ("nodule", "effusion")


def test_weights_are_shared_and_not_copied() -> None:
    clip = tiny_clip()
    assert clip.classifier(["nodule"], tokenize).clip is clip


def test_loading_trained_weights_into_the_clip_changes_the_directions() -> None:
    trained = tiny_clip().eval()
    classifier = ZeroShotClassifier(tiny_clip(), ["nodule", "mass"], tokenize).eval()
    image = torch.rand(2, 1, 32, 32)
    before = classifier(image)
    classifier.clip.load_state_dict(trained.state_dict())
    after = classifier(image)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, trained.classifier(["nodule", "mass"], tokenize)(image))


def test_a_training_step_on_the_text_side_changes_the_directions() -> None:
    clip = tiny_clip()
    classifier = clip.classifier(["nodule"], tokenize)
    before = classifier.refresh().clone()
    optimizer = torch.optim.SGD(clip.text_projection.parameters(), lr=0.1)
    clip.encode_text(*tokenize(["nodule"])).sum().backward()
    optimizer.step()
    assert not torch.equal(classifier.refresh(), before)


def test_directions_are_computed_once_while_nothing_changes() -> None:
    calls: list[list[str]] = []

    def counting(texts: list[str]):
        calls.append(texts)
        return tokenize(texts)

    classifier = tiny_clip().eval().classifier(["nodule"], counting)
    for _ in range(3):
        classifier(torch.rand(1, 1, 32, 32))
    assert len(calls) == 1
    classifier.set_rule("name")
    classifier(torch.rand(1, 1, 32, 32))
    assert len(calls) == 2


def test_state_dict_round_trip_needs_no_tokenizer() -> None:
    classifier = tiny_clip().eval().classifier([NODULE, EFFUSION], tokenize)
    image = torch.rand(2, 1, 32, 32)
    expected = classifier(image)
    copy = ZeroShotClassifier(tiny_clip(), ["nodule", "effusion"], None).eval()
    copy.load_state_dict(classifier.state_dict())
    torch.testing.assert_close(copy(image), expected)


def test_directions_ignore_dropout_and_leave_the_mode_as_it_was() -> None:
    clip = tiny_clip().train()
    first, second = (prompt_directions(clip, [NODULE], tokenize) for _ in range(2))
    assert torch.equal(first, second)
    assert clip.text_encoder.training


def test_explainers_can_differentiate_after_a_first_pass_in_inference_mode() -> None:
    classifier = tiny_clip().eval().classifier([NODULE], tokenize)
    image = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        classifier(image)
    image.requires_grad_()
    classifier(image).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_findings_may_be_names_or_a_config_mapping() -> None:
    clip = tiny_clip()
    mapping = {"name": "nodule", "positive": list(NODULE.positive), "negative": list(NODULE.negative)}
    as_mapping = ZeroShotClassifier(clip, [mapping], tokenize).refresh()
    torch.testing.assert_close(as_mapping, ZeroShotClassifier(clip, [NODULE], tokenize).refresh())


def test_sigmoid_loss_bias_is_part_of_a_single_rule_and_cancels_in_a_difference() -> None:
    clip = tiny_clip(logit_bias=-3.0).eval()
    image = torch.rand(1, 1, 32, 32)
    scores = clip.logit_scale * clip.encode_image(image)
    single, difference = (clip.classifier([EFFUSION], tokenize, rule=r) for r in ("name", "name_pair"))
    torch.testing.assert_close(single(image), scores @ single.directions.T - 3.0)
    torch.testing.assert_close(difference(image), scores @ difference.directions.T)


def test_unknown_rule_or_missing_prompts_are_refused() -> None:
    clip = tiny_clip()
    with pytest.raises(ValueError, match="positive_minus_normal"):
        clip.classifier([NODULE], tokenize, rule="best")
    with pytest.raises(ValueError, match="'mass' has no prompts"):
        prompt_directions(clip, [Finding("mass", ("A mass.",), ())], tokenize, "positive_minus_negative")


def test_a_prompt_that_the_tokenizer_would_cut_is_refused() -> None:
    class Counting:
        max_length = 6

        def __call__(self, texts: list[str]) -> TokenBatch:
            return tokenize(texts)

        def count(self, text: str) -> int:
            return len(text.split()) + 2

    clip = tiny_clip()
    long = Finding("nodule", ("one two three four five.",), ())
    with pytest.raises(ValueError, match=r"1 of 1 prompts are longer than the 6 tokens .* with 7"):
        prompt_directions(clip, [long], Counting())
    fits = Finding("nodule", ("one two three four.",), ())
    assert torch.equal(prompt_directions(clip, [fits], Counting()), prompt_directions(clip, [fits], tokenize))
