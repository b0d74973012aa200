"""Contributions per feature: they add up to the logit, name the feature that matters, and need no pixels."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medclip import explainers
from monai_medclip.explainers import Explainer, FeatureContributions, UnfaithfulError
from monai_medclip.networks import (
    CLIP,
    PROMPT_RULES,
    BackboneClassifier,
    PrecomputedFeatures,
    ProbeClassifier,
    SmallViT,
)

from ..networks.toys import BagOfWords, tiny_clip, tokenize

WIDTH, EMBED = 1024, 32
FINDINGS = ("nodule", "pleural effusion", "mass")
REPORTS = tokenize(["There is a nodule.", "The lungs are clear.", "The heart is large."])._asdict()
PIXEL_EXPLAINERS = sorted(
    name
    for name in explainers.__all__
    if inspect.isclass(getattr(explainers, name))
    and issubclass(getattr(explainers, name), Explainer)
    and not inspect.isabstract(getattr(explainers, name))
)


def features_clip(**arguments: Any) -> CLIP:
    return CLIP(PrecomputedFeatures(WIDTH), BagOfWords(), embed_dim=EMBED, **arguments).eval()


def probe(*layers: nn.Module, with_text: bool = False, clip: CLIP | None = None) -> ProbeClassifier:
    head = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
    return ProbeClassifier(clip or features_clip(), head, FINDINGS, with_text=with_text).eval()


def densenet_like() -> Tensor:
    """Pooled ReLU features are never negative."""
    return torch.rand(3, WIDTH).square()


@pytest.mark.parametrize("rule", PROMPT_RULES)
def test_contributions_to_a_zero_shot_logit_add_up_to_it_without_its_bias(rule: str) -> None:
    clip = features_clip(logit_bias=-3.0)
    classifier = clip.classifier(FINDINGS, tokenize, rule=rule)
    features = densenet_like()
    found = FeatureContributions()(classifier, features)
    assert found.method == "exact"
    assert found.contributions.shape == (3, 3, WIDTH)
    bias = -3.0 if rule in ("positive", "name") else 0.0
    torch.testing.assert_close(found.scores, classifier(features))
    torch.testing.assert_close(found.offset, torch.full((3, 3), bias))
    torch.testing.assert_close(found.contributions.sum(-1), classifier(features) - bias, atol=1e-5, rtol=1e-5)


def test_each_contribution_is_the_equation_of_the_docstring() -> None:
    clip = features_clip()
    classifier, features = clip.classifier(FINDINGS, tokenize), densenet_like()
    found = FeatureContributions()(classifier, features)
    weight, directions = clip.image_projection.weight, classifier.refresh()
    item, finding, j = 1, 2, 77
    expected = (
        features[item, j] * (weight.T @ directions[finding])[j] * clip.logit_scale / (weight @ features[item]).norm()
    )
    torch.testing.assert_close(found.contributions[item, finding, j], expected.detach())


def test_top_names_the_feature_that_was_planted() -> None:
    clip = features_clip()
    classifier = clip.classifier(FINDINGS, tokenize)
    directions = classifier.refresh()
    with torch.no_grad():  # feature 700 speaks for the second finding, feature 3 against it
        clip.image_projection.weight[:, 700] = directions[1]
        clip.image_projection.weight[:, 3] = -0.5 * directions[1]
    features = 0.01 * torch.rand(2, WIDTH)
    features[:, [3, 700]] = 1.0
    found = FeatureContributions(names=[f"channel {j}" for j in range(WIDTH)])(classifier, features)
    first, second, third = found.top(3)[0][1]
    assert (first.column, first.name, second.column) == (700, "channel 700", 3)
    assert first.contribution > 0 > second.contribution
    assert abs(second.contribution) > abs(third.contribution)
    assert first.contribution == pytest.approx(float(found.contributions[0, 1, 700]))
    assert [len(found.top(4)), len(found.top(4)[0]), len(found.top(4)[0][0])] == [2, 3, 4]


def test_features_are_counted_where_they_have_no_names_and_k_is_checked() -> None:
    found = FeatureContributions()(features_clip().classifier(["nodule"], tokenize), densenet_like())
    (best,) = found.top(1)[0][0]
    assert best.name == f"feature {best.column}"
    assert len(found.top(WIDTH)[0][0]) == WIDTH
    for k in (0, WIDTH + 1):
        with pytest.raises(ValueError, match=f"k={k}: there are 1024 features"):
            found.top(k)


def test_linear_probe_is_exact_and_its_bias_is_no_features() -> None:
    classifier, features = probe(nn.Linear(EMBED, 3)), densenet_like()
    found = FeatureContributions()(classifier, features)
    assert found.method == "exact"
    torch.testing.assert_close(found.offset, classifier.head.bias.detach().expand(3, 3))
    torch.testing.assert_close(found.contributions.sum(-1) + found.offset, classifier(features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize(("activation", "allowed"), [(nn.GELU, 1e-4), (nn.ReLU, 5e-3)])
def test_integrated_gradients_of_a_nonlinear_head_are_complete(
    activation: type[nn.Module], allowed: float, with_text: bool
) -> None:
    layers = (nn.Linear(EMBED * (1 + with_text), 64), activation(), nn.Dropout(0.5), nn.Linear(64, 3))
    classifier, features = probe(*layers, with_text=with_text), densenet_like()
    with torch.no_grad():
        layers[0].weight.mul_(8)  # far from linear
    context = REPORTS if with_text else {}
    found = FeatureContributions()(classifier, features, **context)
    assert found.method == "integrated gradients"
    torch.testing.assert_close(found.scores, classifier(features, **context))
    error = (found.contributions.sum(-1) + found.offset - found.scores).abs().max()
    assert error < allowed
    assert found.contributions.sum(-1).abs().max() > 0.1  # something was to be explained


def test_integrated_gradients_of_a_squared_head_are_those_of_paper_and_pencil() -> None:
    class Squared(nn.Linear):
        def forward(self, embedding: Tensor) -> Tensor:
            return super().forward(embedding).square()

    head, features = Squared(EMBED, 3, bias=False), densenet_like()
    classifier = probe(nn.Sequential(head))
    weight = classifier.clip.image_projection.weight
    embedding = classifier.clip.encode_image(features)
    along = features / (features @ weight.T).norm(dim=1, keepdim=True)  # x_j / |W x|
    # grad h(a e) = 2 a (w . e) w, whose mean over a is (w . e) w
    expected = torch.einsum("bj,fj,bf->bfj", along, head.weight @ weight, embedding @ head.weight.T)
    found = FeatureContributions(steps=2)(classifier, features)
    torch.testing.assert_close(found.contributions, expected.detach())


def test_head_with_one_linear_layer_agrees_between_both_ways() -> None:
    clip, head, features = features_clip(), nn.Linear(EMBED, 3), densenet_like()
    exact = FeatureContributions()(probe(head, clip=clip), features)
    integrated = FeatureContributions(steps=4)(probe(nn.Identity(), head, clip=clip), features)
    assert (exact.method, integrated.method) == ("exact", "integrated gradients")
    torch.testing.assert_close(exact.contributions, integrated.contributions, atol=1e-6, rtol=1e-4)


def test_too_few_steps_are_noticed_and_not_hidden() -> None:
    class Step(nn.Module):
        def forward(self, embedding: Tensor) -> Tensor:
            return 40 * (100 * (embedding.square().sum(1, keepdim=True) - 0.5)).sigmoid().expand(-1, 3)

    with pytest.raises(UnfaithfulError, match=r"integrated gradients, 1 steps.*more steps"):
        FeatureContributions(steps=1)(probe(Step()), densenet_like())
    FeatureContributions(steps=512)(probe(Step()), densenet_like())


def test_report_moves_the_offset_of_a_multimodal_probe_only_where_the_head_is_linear() -> None:
    classifier, features = probe(nn.Linear(2 * EMBED, 3), with_text=True), densenet_like()
    swapped = {name: tensor.flip(0) for name, tensor in REPORTS.items()}
    first, second = (FeatureContributions()(classifier, features, **tokens) for tokens in (REPORTS, swapped))
    torch.testing.assert_close(first.contributions, second.contributions)
    assert not torch.allclose(first.offset, second.offset)
    with pytest.raises(ValueError, match="input_ids and attention_mask"):
        FeatureContributions()(classifier, features)


def test_zero_features_contribute_nothing() -> None:
    found = FeatureContributions()(features_clip().classifier(FINDINGS, tokenize), torch.zeros(1, WIDTH))
    assert not found.contributions.any()
    assert not found.scores.any()


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.inference_mode])
def test_surroundings_change_nothing_and_nothing_is_left_behind(surrounding: Any) -> None:
    classifier, features = probe(nn.Linear(EMBED, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)), densenet_like()
    expected = FeatureContributions()(classifier, features)
    classifier.train()
    with surrounding(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = FeatureContributions()(torch.compile(classifier, backend="eager"), features.clone())
    torch.testing.assert_close(found.contributions, expected.contributions)
    assert all(module.training for module in classifier.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in classifier.head.parameters())
    assert not found.contributions.requires_grad


def test_items_of_a_batch_do_not_meet() -> None:
    classifier, features = probe(nn.Linear(EMBED, 8), nn.GELU(), nn.Linear(8, 3)), densenet_like()
    together = FeatureContributions()(classifier, features).contributions
    apart = torch.cat([FeatureContributions()(classifier, one[None]).contributions for one in features])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=1e-4)


def test_classifiers_that_cannot_be_explained_so_are_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"SmallViT takes images. Use GradCAM"):
        FeatureContributions()(tiny_clip().eval().classifier(["nodule"], tokenize), torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match="2 names for 1024 features"):
        FeatureContributions(names=["a", "b"])(features_clip().classifier(["nodule"], tokenize), densenet_like())
    with pytest.raises(ValueError, match="steps=0"):
        FeatureContributions(steps=0)
    with pytest.raises(ValueError, match=r"must be \(B, 1024\)"):
        FeatureContributions()(features_clip().classifier(["nodule"], tokenize), torch.rand(2, 10))

    class Own(nn.Module):
        findings, context_keys, image_encoder = ("nodule",), (), PrecomputedFeatures(8)

    with pytest.raises(TypeError, match="Own is neither a ZeroShotClassifier nor a ProbeClassifier"):
        FeatureContributions()(Own(), torch.rand(1, 8))


def test_composed_classifier_sends_to_its_two_parts() -> None:
    backbone, image = SmallViT(32, width=64, num_heads=2).eval(), torch.rand(2, 1, 32, 32)
    inner = CLIP(PrecomputedFeatures(64), BagOfWords(), embed_dim=EMBED).eval().classifier(FINDINGS, tokenize)
    composed = BackboneClassifier(backbone, inner, [(image, backbone(image).detach())])
    with pytest.raises(TypeError, match="of a BackboneClassifier, give its classifier and the features"):
        FeatureContributions()(composed, image)
    found = FeatureContributions()(composed.classifier, composed.image_encoder(image))
    torch.testing.assert_close(found.scores, composed(image))


@pytest.mark.parametrize("name", PIXEL_EXPLAINERS)
def test_pixel_explainers_refuse_features_and_name_both_remedies(name: str) -> None:
    classifier = features_clip().classifier(FINDINGS, tokenize)
    calls: list[Any] = []
    classifier.image_encoder.register_forward_pre_hook(lambda *seen: calls.append(seen))
    made = getattr(explainers, name)
    explainer = made(explainers.GradECLIP()) if name == "SliceWise" else made()
    with pytest.raises(TypeError, match=r"precomputed features have none.*FeatureContributions.*BackboneClassifier"):
        explainer.explain(classifier, densenet_like())
    assert calls == []
