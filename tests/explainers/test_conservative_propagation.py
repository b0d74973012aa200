"""Conservative propagation: constants stay constant, the score stays the model's own, and its gradient by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.conservative_propagation import ConservativePropagation, _FixedScales
from monai_medclip.networks import CLIP, ZeroShotClassifier

from ..networks.toys import BagOfWords, tiny_clip, tokenize
from .encoders import TRANSFORMERS, encoder, images
from .quadrants import Quadrants, bright, real_classifier

NAMES = ["nodule", "mass"]


def classifier_on(name: str) -> ZeroShotClassifier:
    torch.manual_seed(3)
    clip = CLIP(encoder(name), BagOfWords(), embed_dim=16)
    return clip.eval().classifier(NAMES, tokenize, rule="name")


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_every_transformer_gets_a_map_of_its_own_score(name: str) -> None:
    classifier, image = classifier_on(name), images(encoder(name))
    heatmap, scores = ConservativePropagation(verify=True).explain(classifier, image)
    assert heatmap.shape == (2, 2, *image.shape[2:])
    assert bool((heatmap >= 0).all())
    assert float(heatmap.max()) > 0
    torch.testing.assert_close(scores, classifier(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("normalize", "shape"),
    [
        (lambda x: F.layer_norm(x, (6,), torch.arange(6.0), torch.ones(6), 0.1), (2, 3, 6)),
        (lambda x: F.layer_norm(x, (3, 6)), (2, 3, 6)),
        (lambda x: F.normalize(x, dim=-1), (2, 6)),
        (lambda x: F.normalize(x, 1.0, 0), (2, 6)),
    ],
)
def test_within_fixed_scales_values_are_the_same_and_the_divisor_has_no_gradient(normalize: Any, shape: Any) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with _FixedScales():
        fixed = normalize(x)
    torch.testing.assert_close(fixed, normalize(x))
    # A constant divisor makes the function linear up to its bias: what x adds is all that there is.
    with _FixedScales():
        bias = normalize(0 * x)
    (gradient,) = torch.autograd.grad(fixed.sum(), x)
    torch.testing.assert_close((gradient * x).sum(), (fixed - bias).sum(), rtol=1e-4, atol=1e-4)
    (ordinary,) = torch.autograd.grad(normalize(x).square().sum(), x)
    assert not torch.allclose(ordinary, torch.autograd.grad(_squared(normalize, x), x)[0])


def _squared(normalize: Any, x: Tensor) -> Tensor:
    with _FixedScales():
        return normalize(x).square().sum()


def test_contributions_are_those_of_a_network_written_out_by_hand() -> None:
    classifier = tiny_clip().eval().classifier(NAMES, tokenize, rule="name")
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gradient = torch.stack(
        [torch.autograd.grad(_by_hand(classifier, image)[:, f].sum(), image)[0] for f in range(2)], dim=1
    )  # (B, F, C, rows, columns)
    contrast = (image - image.mean(dim=(2, 3), keepdim=True)).detach()
    expected = F.relu(GaussianFilter(2, 0.5 * 8)((gradient * contrast.unsqueeze(1)).sum(2)))
    heatmap, scores = ConservativePropagation(sigma=0.5).explain(classifier, image.detach())
    torch.testing.assert_close(scores, _by_hand(classifier, image).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(heatmap, expected, rtol=1e-3, atol=1e-6)


def _by_hand(classifier: ZeroShotClassifier, image: Tensor) -> Tensor:
    """Logits of a SmallViT's CLIP, with attention weights, deviations and lengths cut out of the graph."""
    trunk = classifier.clip.image_encoder.trunk

    def norm(x: Tensor, layer: Any) -> Tensor:
        deviation = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / deviation * layer.weight + layer.bias

    x = trunk._pos_embed(trunk.patch_embed(image))
    for block in trunk.blocks:
        q, k, v = block.attn.qkv(norm(x, block.norm1)).unflatten(-1, (3, 2, 32)).permute(2, 0, 3, 1, 4)
        weights = (block.attn.q_norm(q) @ block.attn.k_norm(k).mT / 32**0.5).softmax(-1).detach()
        x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(norm(x, block.norm2))
    features = trunk.fc_norm(norm(x, trunk.norm)[:, 0]) if hasattr(trunk.norm, "weight") else trunk.fc_norm(x[:, 0])
    embedding = classifier.clip.image_projection(features)
    unit = embedding / embedding.norm(dim=-1, keepdim=True).detach()
    return classifier.clip.logit_scale.detach() * unit @ classifier.refresh().T


def test_an_image_without_contrast_has_no_heat() -> None:
    classifier, image = real_classifier(2)
    assert float(ConservativePropagation()(classifier.eval(), torch.full_like(image, 0.3)).max()) < 1e-6


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_images_and_findings_do_not_see_each_other(spatial_dims: int) -> None:
    classifier, image = real_classifier(spatial_dims)
    explainer = ConservativePropagation()
    both = explainer(classifier, image)
    assert not torch.allclose(both[:, 0], both[:, 1])
    torch.testing.assert_close(explainer(classifier, image.flip(0)), both.flip(0), rtol=1e-4, atol=1e-6)
    one = classifier.clip.classifier(["mass"], tokenize, rule="name")
    torch.testing.assert_close(explainer(one, image[:1]), both[:1, 1:], rtol=1e-4, atol=1e-6)


def test_a_wider_sigma_is_smoother() -> None:
    classifier, image = real_classifier(2)

    def roughness(sigma: float) -> float:
        heat = ConservativePropagation(sigma=sigma)(classifier, image)
        return float(heat.diff(dim=-1).abs().mean() / heat.mean())

    assert roughness(0.2) > 1.5 * roughness(0.6) > 1.5 * roughness(1.2)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails: bool) -> None:
    classifier, image = real_classifier(2)
    classifier.train()
    if fails:
        with pytest.raises(RuntimeError, match="size of tensor"):
            ConservativePropagation()(classifier, image[:, :, :17])
    else:
        ConservativePropagation()(classifier, image)
    assert classifier.training
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    x = torch.randn(1, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(F.normalize(x)[0, 0], x)
    assert float((gradient * x).sum().abs()) < 1e-6  # unit length does not depend on x's: no constant is left


def test_refusals() -> None:
    with pytest.raises(TypeError, match="reads attention"):
        ConservativePropagation()(Quadrants(2), bright(2))
    with pytest.raises(ValueError, match="sigma=0"):
        ConservativePropagation(sigma=0)
