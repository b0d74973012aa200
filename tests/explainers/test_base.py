"""What every explainer promises: nothing stays behind, surroundings change nothing, another score's map is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_medclip.explainers import (
    AttentionGradCAM,
    AttentionRollout,
    CentreBlob,
    Chefer,
    Explainer,
    GatedPropagation,
    GradCAM,
    GradECLIP,
    PatchSimilarity,
    RandomMap,
    TokenGradCAM,
    UnfaithfulError,
)
from monai_medclip.explainers.base import gradients, upsample
from monai_medclip.networks import CLIP, ProbeClassifier, SmallCNN, SmallViT

from ..networks.toys import BagOfWords, tiny_clip, tokenize
from .encoders import encoder, images

FINDINGS = ("nodule", "effusion", "mass")
PAIRS = [
    (GradECLIP, "SmallViT 2D"),
    (AttentionGradCAM, "timm registers"),
    (TokenGradCAM, "MONAI ViT CLS 3D"),
    (Chefer, "timm SigLIP"),
    (AttentionRollout, "timm mean"),
    (PatchSimilarity, "open_clip OpenAI"),
    (GradCAM, "MONAI DenseNet 2D"),
    (CentreBlob, "SmallCNN 2D"),
]
EVERY_METHOD = pytest.mark.parametrize(
    ("method", "name"), PAIRS, ids=[f"{method.__name__}-{name}" for method, name in PAIRS]
)


def zero_shot(name: str) -> Any:
    """On a network of one's own, to be put into any mode."""
    torch.manual_seed(4)
    return CLIP(copy.deepcopy(encoder(name)), BagOfWords(), embed_dim=16).eval().classifier(FINDINGS, tokenize)


def state_of(module: nn.Module) -> tuple[Any, ...]:
    """Hooks, modes, gradient flags and gradients of every part."""
    hooks = [
        [len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)] for part in module.modules()
    ]
    modes = [part.training for part in module.modules()]
    flags = [(weight.requires_grad, weight.grad is None) for weight in module.parameters()]
    return hooks, modes, flags


def in_mixed_modes(classifier: nn.Module) -> nn.Module:
    """Training mode, but for some parts; some weights frozen."""
    classifier.train()
    for part in list(classifier.modules())[3::4]:
        part.training = False
    for weight in list(classifier.parameters())[::3]:
        weight.requires_grad_(False)
    return classifier


@EVERY_METHOD
def test_hooks_modes_flags_and_gradients_are_left_as_they_were(method: Callable[[], Explainer], name: str) -> None:
    classifier = in_mixed_modes(zero_shot(name))
    weight = next(iter(classifier.clip.image_encoder.parameters()))
    weight.grad = torch.full_like(weight, 7.0)
    statistics = {key: tensor.clone() for key, tensor in classifier.state_dict().items() if "directions" not in key}
    image = images(encoder(name)).requires_grad_()
    before = state_of(classifier)
    heatmap = method()(classifier, image)
    assert state_of(classifier) == before
    assert bool((weight.grad == 7.0).all())
    assert image.grad is None
    assert not heatmap.requires_grad
    after = classifier.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in statistics.items())


class Raising(nn.Linear):
    """A head that fails."""

    def forward(self, embedding: Tensor) -> Tensor:
        raise RuntimeError("out of order")


class Detached(nn.Linear):
    """A head that no gradient passes: the failure comes late."""

    def forward(self, embedding: Tensor) -> Tensor:
        return super().forward(embedding).detach()


@pytest.mark.parametrize(("head", "message"), [(Raising, "out of order"), (Detached, "does not require grad")])
@pytest.mark.parametrize(
    ("method", "name"), [(GradECLIP, "SmallViT 2D"), (Chefer, "timm SigLIP"), (GradCAM, "SmallCNN 2D")]
)
def test_also_when_the_model_raises(method: Any, name: str, head: type[nn.Linear], message: str) -> None:
    clip = CLIP(copy.deepcopy(encoder(name)), BagOfWords(), embed_dim=16)
    classifier = in_mixed_modes(ProbeClassifier(clip, head(16, 2), FINDINGS[:2]))
    before = state_of(classifier)
    with pytest.raises(RuntimeError, match=message):
        method()(classifier, images(encoder(name)))
    assert state_of(classifier) == before
    assert torch.is_grad_enabled()


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "nothing": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS)
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@EVERY_METHOD
def test_surroundings_change_nothing(method: Callable[[], Explainer], name: str, mode: str, surrounding: str) -> None:
    classifier, image = zero_shot(name), images(encoder(name))
    expected = method().explain(classifier, image)
    classifier.train(mode == "training")
    with SURROUNDINGS[surrounding]():
        found = method().explain(classifier, image * 1.0)  # made in there
        assert torch.is_grad_enabled() == (surrounding not in ("no_grad", "inference_mode"))
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.scores, expected.scores)


@EVERY_METHOD
def test_compiled_classifier_and_meta_tensor_give_the_same_map(method: Callable[[], Explainer], name: str) -> None:
    classifier, image = zero_shot(name), images(encoder(name))
    expected = method()(classifier, image)
    found = method()(torch.compile(classifier, backend="eager"), MetaTensor(image))
    assert type(found) is Tensor
    torch.testing.assert_close(found, expected)


@EVERY_METHOD
def test_batch_of_two_equals_two_singles(method: Callable[[], Explainer], name: str) -> None:
    classifier, image = zero_shot(name), images(encoder(name))
    together = method().explain(classifier, image)
    apart = [method().explain(classifier, one[None]) for one in image]
    scale = float(together.heatmap.abs().max())
    torch.testing.assert_close(
        together.heatmap, torch.cat([one.heatmap for one in apart]), atol=1e-4 * scale, rtol=1e-3
    )
    torch.testing.assert_close(together.scores, torch.cat([one.scores for one in apart]), atol=1e-5, rtol=1e-5)


@EVERY_METHOD
def test_one_finding_equals_its_row_among_many(method: Callable[[], Explainer], name: str) -> None:
    classifier, image = zero_shot(name), images(encoder(name))
    alone = classifier.clip.classifier(FINDINGS[1:2], tokenize)
    many, one = method()(classifier, image), method()(alone, image)
    scale = max(float(many.abs().max()), 1e-12)
    torch.testing.assert_close(one[:, 0], many[:, 1], atol=1e-4 * scale, rtol=1e-3)


class LyingViT(SmallViT):
    """What it says of its attention is true of another network."""

    honest = False

    def forward(self, image: Tensor) -> Tensor:
        features = super().forward(image)
        return features if self.honest else features.roll(1, dims=1)


class LyingCNN(SmallCNN):
    """Its feature map is pooled otherwise than it says."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).roll(1, dims=1)


@pytest.mark.parametrize(
    "method",
    [GradECLIP, AttentionGradCAM, TokenGradCAM, Chefer, AttentionRollout, PatchSimilarity, GatedPropagation],
)
def test_lying_attention_is_found_out_on_first_use_and_never_forgiven(method: Any) -> None:
    lying = LyingViT(32, width=64, num_heads=2)
    classifier = CLIP(lying, BagOfWords(), embed_dim=16).eval().classifier(FINDINGS, tokenize)
    for _ in range(2):
        with pytest.raises(UnfaithfulError, match=r"away from the model's own.*LyingViT.*no map is given"):
            method()(classifier, torch.rand(2, 1, 32, 32))


def test_lying_feature_map_is_found_out() -> None:
    lying = LyingCNN(16, in_channels=1, channels=(4, 8), width=16)
    classifier = CLIP(lying, BagOfWords(), embed_dim=16).eval().classifier(FINDINGS, tokenize)
    with pytest.raises(UnfaithfulError, match="LyingCNN"):
        GradCAM()(classifier, torch.rand(2, 1, 16, 16))


def test_who_lies_later_is_found_out_where_every_call_is_verified() -> None:
    encoder_of_two_faces = LyingViT(32, width=64, num_heads=2)
    classifier = CLIP(encoder_of_two_faces, BagOfWords(), embed_dim=16).eval().classifier(FINDINGS, tokenize)
    image = torch.rand(1, 1, 32, 32)
    encoder_of_two_faces.honest = True
    GradECLIP()(classifier, image)
    encoder_of_two_faces.honest = False
    with pytest.raises(UnfaithfulError):
        GradECLIP(verify=True)(classifier, image)


def test_missing_context_and_unknown_target_are_named() -> None:
    head = nn.Linear(32, 3)
    classifier = ProbeClassifier(tiny_clip().eval(), head, FINDINGS, with_text=True)
    with pytest.raises(ValueError, match="also needs attention_mask, input_ids"):
        GradECLIP()(classifier, torch.rand(1, 1, 32, 32))
    with pytest.raises(ValueError, match="target='probability': use one of logit, cosine"):
        RandomMap(target="probability")


def test_cosines_are_the_logits_without_scale_and_bias() -> None:
    clip = tiny_clip(logit_bias=-2.0).eval()
    classifier, image = clip.classifier(FINDINGS, tokenize), torch.rand(2, 1, 32, 32)
    cosines = clip.encode_image(image) @ classifier.refresh().T
    torch.testing.assert_close(GradECLIP(target="cosine").explain(classifier, image).scores, cosines)
    torch.testing.assert_close(
        GradECLIP().explain(classifier, image).heatmap,
        GradECLIP(target="cosine").explain(classifier, image).heatmap * clip.logit_scale,
        atol=1e-5,
        rtol=1e-4,
    )


def test_gradients_of_all_findings_at_once_are_those_of_each() -> None:
    inputs = torch.rand(2, 5, requires_grad=True)
    matrix = torch.rand(5, 3)
    (found,) = gradients((inputs.square() @ matrix).sin(), [inputs])
    expected = torch.cos(inputs.square() @ matrix)[:, :, None] * (2 * inputs)[:, None] * matrix.T
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("size", [(8, 12), (8, 12, 16)])
def test_upsampling_keeps_the_mean_the_corner_and_a_map_of_the_right_size(size: tuple[int, ...]) -> None:
    coarse = torch.zeros(1, 2, *(n // 4 for n in size))
    coarse[(0, 1, *(-1 for _ in size))] = 1.0
    fine = upsample(coarse, size)
    assert fine.shape == (1, 2, *size)
    assert float(fine[(0, 1, *(-1 for _ in size))]) == pytest.approx(1.0)
    torch.testing.assert_close(fine.mean(), coarse.mean())
    assert upsample(fine, size) is fine
