"""The image-only baseline: a classifier as others are, on the encoders that the papers fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.explainers import GradCAM, GradECLIP
from monai_medclip.networks import (
    Classifier,
    ImageClassifier,
    MonaiImageEncoder,
    SmallViT,
    TimmImageEncoder,
    named_encoder,
    parameter_groups,
)

FINDINGS = ("nodule", "effusion", "mass")
SIZE = 64


def small() -> ImageClassifier:
    return ImageClassifier(SmallViT(32, width=64, depth=2, num_heads=2, patch_drop=0.0), FINDINGS).eval()


def test_a_linear_layer_on_the_pooled_features() -> None:
    classifier, image = small(), torch.rand(2, 1, 32, 32)
    features = classifier.image_encoder(image)
    assert isinstance(classifier, Classifier)
    assert (classifier.findings, classifier.context_keys) == (FINDINGS, ())
    torch.testing.assert_close(classifier(image), features @ classifier.head.weight.T + classifier.head.bias)
    torch.testing.assert_close(classifier.score_features(features), classifier(image))
    assert type(classifier(MetaTensor(image))) is torch.Tensor


def test_a_checkpoint_comes_back_and_another_networks_is_refused(tmp_path: Path) -> None:
    first, second, image = small(), small(), torch.rand(1, 1, 32, 32)
    torch.save(first.state_dict(), tmp_path / "model.pt")
    assert not torch.allclose(first(image), second(image))
    assert second.load(tmp_path / "model.pt") is second
    torch.testing.assert_close(second(image), first(image))
    torch.save(ImageClassifier(SmallViT(32, width=64, depth=1, num_heads=2), FINDINGS).state_dict(), tmp_path / "b.pt")
    with pytest.raises((ValueError, RuntimeError)):
        second.load(tmp_path / "b.pt")


def test_every_weight_is_trained() -> None:
    classifier = small().train()
    groups = parameter_groups(classifier, 0.1, 0.05)
    trained = {id(weight) for group in groups for weight in group["params"]}
    assert trained == {id(weight) for weight in classifier.parameters()}


def test_without_findings_there_is_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="needs findings with labels"):
        ImageClassifier(small().image_encoder, [])


@pytest.mark.parametrize(
    ("architecture", "width", "explainer"),
    [("small", 128, GradECLIP), ("resnet50", 2048, GradCAM), ("densenet121", 1024, GradCAM), ("vit", 768, GradECLIP)],
)
def test_named_encoders_are_trained_and_explained_by_their_own_kind_of_map(
    architecture: str, width: int, explainer: Any
) -> None:
    encoder = named_encoder(architecture, image_size=SIZE)
    assert type(encoder) is (SmallViT if architecture == "small" else TimmImageEncoder)
    assert (encoder.spatial_dims, encoder.width, tuple(encoder.image_size)) == (2, width, (SIZE, SIZE))
    classifier, image = ImageClassifier(encoder, FINDINGS), torch.rand(2, 1, SIZE, SIZE)
    classifier.train()(image).sum().backward()
    assert all(weight.grad is not None for weight in classifier.parameters())
    classifier.eval()
    with torch.no_grad():
        scores = classifier(image)
    found = explainer().explain(classifier, image)
    assert found.heatmap.shape == (2, 3, SIZE, SIZE)
    assert bool(found.heatmap.isfinite().all())
    assert float(found.heatmap.std()) > 0
    torch.testing.assert_close(found.scores, scores, rtol=1e-3, atol=1e-3)


def test_volumes_are_read_by_monais_networks() -> None:
    encoder = named_encoder("densenet121", image_size=(32, 32, 48), spatial_dims=3)
    assert type(encoder) is MonaiImageEncoder
    classifier = ImageClassifier(encoder, FINDINGS).eval()
    assert classifier(torch.rand(1, 1, 32, 32, 48)).shape == (1, 3)


def test_another_name_is_timms() -> None:
    assert named_encoder("test_resnet", image_size=SIZE).width > 0


@pytest.mark.parametrize(("architecture", "spatial_dims", "told"), [("small", 2, "small"), ("resnet50", 3, "volumes")])
def test_weights_that_do_not_exist_are_refused(architecture: str, spatial_dims: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        named_encoder(architecture, image_size=SIZE, pretrained=True, spatial_dims=spatial_dims)
