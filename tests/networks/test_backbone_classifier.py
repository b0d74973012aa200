"""A backbone in front of a classifier over its features: checked first, and then the network built directly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_medclip.explainers import GradCAM, GradECLIP
from monai_medclip.networks import (
    CLIP,
    BackboneClassifier,
    Classifier,
    MonaiImageEncoder,
    PrecomputedFeatures,
    ProbeClassifier,
    SmallViT,
    TimmImageEncoder,
)

from .toys import BagOfWords, tokenize

FINDINGS = ("nodule", "effusion", "mass")
REPORTS = tokenize(["There is a nodule.", "The lungs are clear.", "The heart is large."])._asdict()


def densenet() -> MonaiImageEncoder:
    """What made the 1024 features of the lung-cancer paper."""
    return MonaiImageEncoder("densenet121", image_size=64)


def timm_cnn() -> TimmImageEncoder:
    return TimmImageEncoder("test_resnet", image_size=64, in_channels=1)


def small_vit() -> SmallViT:
    return SmallViT(64, width=64, num_heads=2, patch_drop=0.0)


BACKBONES = pytest.mark.parametrize(
    ("build", "method"), [(densenet, GradCAM), (timm_cnn, GradCAM), (small_vit, GradECLIP)]
)


def lively(backbone: Any) -> Any:
    """Fresh running statistics are 0 and 1, so that all images look alike: give the network some of its own."""
    generator = torch.Generator().manual_seed(1)
    backbone.train()
    with torch.no_grad():
        backbone(torch.rand(8, 1, 64, 64, generator=generator))
    return backbone.eval()


def classifier_on(image_encoder: Any, kind: str) -> Any:
    """The same weights on whatever encoder, so that two of them can be compared."""
    torch.manual_seed(2)
    clip = CLIP(image_encoder, BagOfWords(), embed_dim=16).eval()
    if kind == "zero-shot":
        return clip.classifier(FINDINGS, tokenize)
    with_text = kind == "multimodal probe"
    head = nn.Sequential(nn.Linear(32 if with_text else 16, 8), nn.GELU(), nn.Linear(8, 3))
    return ProbeClassifier(clip, head, FINDINGS, with_text=with_text)


def composed_and_direct(backbone: Any, kind: str, image: Tensor) -> tuple[BackboneClassifier, Any]:
    stored = backbone(image).detach()
    inner = classifier_on(PrecomputedFeatures(backbone.width), kind)
    return BackboneClassifier(backbone, inner, [(image, stored)]), classifier_on(backbone, kind)


@BACKBONES
@pytest.mark.parametrize("kind", ["zero-shot", "probe", "multimodal probe"])
def test_composition_scores_and_is_explained_as_the_network_built_directly(build: Any, method: Any, kind: str) -> None:
    image = torch.rand(3, 1, 64, 64)
    composed, direct = composed_and_direct(lively(build()), kind, image)
    context = REPORTS if kind == "multimodal probe" else {}
    assert isinstance(composed, Classifier)
    assert (composed.findings, composed.context_keys) == (FINDINGS, tuple(context))
    torch.testing.assert_close(composed(image, **context), direct(image, **context))
    features = composed.image_encoder(image)
    torch.testing.assert_close(composed.score_features(features, **context), direct(image, **context))
    torch.testing.assert_close(composed.classifier(features, **context), direct(image, **context))

    found, expected = (method(verify=True).explain(one, image, **context) for one in (composed, direct))
    assert found.heatmap.shape == (3, 3, 64, 64)
    assert found.heatmap.std() > 0
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.scores, expected.scores)


def test_cosine_can_be_the_target_where_the_inner_classifier_has_one() -> None:
    image = torch.rand(2, 1, 64, 64)
    composed, direct = composed_and_direct(small_vit().eval(), "zero-shot", image)
    expected = direct.as_cosine(direct(image))
    torch.testing.assert_close(GradECLIP(target="cosine").explain(composed, image).scores, expected)
    probe, _ = composed_and_direct(small_vit().eval(), "probe", image)
    with pytest.raises(TypeError, match="no cosine"):
        GradECLIP(target="cosine").explain(probe, image)


def test_parts_are_shared_and_not_copied() -> None:
    image = torch.rand(2, 1, 64, 64)
    backbone = small_vit().eval()
    composed, _ = composed_and_direct(backbone, "zero-shot", image)
    assert composed.image_encoder is backbone
    with torch.no_grad():
        before = composed(image)
        composed.classifier.clip.image_projection.weight.neg_()
    torch.testing.assert_close(composed(image), -before)


def test_worst_item_of_all_batches_is_named_with_its_difference_and_the_remedies() -> None:
    backbone = small_vit().eval()
    image = torch.rand(5, 1, 64, 64)
    stored = backbone(image).detach()
    stored[3, 7] += 0.25
    stored[1, 2] += 0.01
    inner = classifier_on(PrecomputedFeatures(64), "probe")
    with pytest.raises(ValueError, match=r"item 3 \(of 5.*feature 7 .* 0\.25 apart.* 2 items differ") as raised:
        BackboneClassifier(backbone, inner, [(image[:2], stored[:2]), (image[2:], stored[2:])])
    assert "weights that made the features" in str(raised.value)
    assert "same preprocessing" in str(raised.value)


@pytest.mark.parametrize(
    ("size", "factor", "agrees"), [(0.0, 0.9, True), (0.0, 1.2, False), (9.0, 0.9, True), (9.0, 1.2, False)]
)
def test_tolerance_is_1e_4_absolute_plus_1e_4_relative(size: float, factor: float, agrees: bool) -> None:
    class Constant(nn.Module):
        spatial_dims, width, in_channels = 2, 4, 1

        def forward(self, image: Tensor) -> Tensor:
            return torch.full((len(image), 4), size)

    stored = torch.full((1, 4), size)
    stored[0, 2] += factor * 1e-4 * (1 + size)
    inner = classifier_on(PrecomputedFeatures(4), "probe")
    pairs = [(torch.rand(1, 1, 8, 8), stored)]
    if agrees:
        BackboneClassifier(Constant(), inner, pairs)
    else:
        with pytest.raises(ValueError, match=r"0\.0001 \+ 0\.0001 of the stored value"):
            BackboneClassifier(Constant(), inner, pairs)


def test_other_weights_another_preprocessing_and_values_that_are_not_finite_are_refused() -> None:
    backbone, image = small_vit().eval(), torch.rand(3, 1, 64, 64)
    stored = backbone(image).detach()
    inner = classifier_on(PrecomputedFeatures(64), "probe")
    refused = pytest.raises(ValueError, match="does not reproduce the stored features")
    with refused:
        BackboneClassifier(small_vit().eval(), inner, [(image, stored)])
    with refused:
        BackboneClassifier(backbone, inner, [(2 * image - 1, stored)])
    with refused:
        BackboneClassifier(backbone, inner, [(image.flip(0), stored)])
    with refused:
        BackboneClassifier(backbone, inner, [(image, torch.full_like(stored, torch.nan))])


def test_what_cannot_be_checked_is_not_composed() -> None:
    backbone, image = small_vit().eval(), torch.rand(2, 1, 64, 64)
    features, inner = PrecomputedFeatures(64), classifier_on(PrecomputedFeatures(64), "probe")
    stored = backbone(image).detach()
    with pytest.raises(ValueError, match="no pairs"):
        BackboneClassifier(backbone, inner, [])
    with pytest.raises(ValueError, match="one vector for each image"):
        BackboneClassifier(backbone, inner, [(image, stored[:1])])
    with pytest.raises(ValueError, match="makes 64 features and the classifier takes 20"):
        BackboneClassifier(backbone, classifier_on(PrecomputedFeatures(20), "probe"), [(image, stored)])
    with pytest.raises(TypeError, match="has to take images"):
        BackboneClassifier(features, inner, [(stored, stored)])
    with pytest.raises(TypeError, match="has to take images"):
        BackboneClassifier(backbone, classifier_on(backbone, "probe"), [(image, stored)])


def test_check_is_made_in_evaluation_mode_and_leaves_modes_and_tensor_types_as_they_were() -> None:
    backbone = lively(timm_cnn())
    image = torch.rand(2, 1, 64, 64)
    stored = backbone(image).detach()
    backbone.train()
    frozen = next(module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modes = [module.training for module in backbone.modules()]
    inner = classifier_on(PrecomputedFeatures(backbone.width), "probe")
    composed = BackboneClassifier(backbone, inner, [(MetaTensor(image), MetaTensor(stored))])
    assert [module.training for module in backbone.modules()] == modes
    assert not frozen.training
    torch.testing.assert_close(dict(backbone.state_dict()), before)  # no running statistics were moved
    assert type(composed.eval()(MetaTensor(image))) is Tensor
