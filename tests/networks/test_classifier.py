"""Zero-shot, image-only probe, multimodal probe: one shape, and one score whether an explainer came by or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monai_medclip.networks import CLIP, Classifier, PrecomputedFeatures, ProbeClassifier

from .toys import BagOfWords, tiny_clip, tokenize

FINDINGS = ("nodule", "effusion", "mass")
REPORTS = ["There is a nodule.", "The lungs are clear."]


def zero_shot(clip: CLIP) -> Classifier:
    return clip.classifier(FINDINGS, tokenize)


def image_probe(clip: CLIP) -> Classifier:
    return ProbeClassifier(clip, nn.Linear(16, 3), FINDINGS)


def multimodal_probe(clip: CLIP) -> Classifier:
    head = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3))
    return ProbeClassifier(clip, head, FINDINGS, with_text=True)


KINDS = pytest.mark.parametrize("kind", [zero_shot, image_probe, multimodal_probe])


def context_of(classifier: Classifier) -> dict[str, Tensor]:
    return {key: getattr(tokenize(REPORTS), key) for key in classifier.context_keys}


@KINDS
def test_every_classifier_has_the_shape_that_other_rooms_take(kind: Callable[[CLIP], Classifier]) -> None:
    classifier = kind(tiny_clip().eval())
    assert isinstance(classifier, Classifier)
    assert classifier.findings == FINDINGS
    assert classifier(torch.rand(2, 1, 32, 32), **context_of(classifier)).shape == (2, 3)


@KINDS
def test_scoring_the_encoders_features_is_the_whole_classifier(kind: Callable[[CLIP], Classifier]) -> None:
    classifier = kind(tiny_clip().eval())
    image, context = torch.rand(2, 1, 32, 32), context_of(classifier)
    features = classifier.image_encoder(image)
    assert features.shape == (2, 64)
    torch.testing.assert_close(classifier.score_features(features, **context), classifier(image, **context))


@KINDS
def test_classifier_of_precomputed_features_takes_them_as_its_image(kind: Callable[[CLIP], Classifier]) -> None:
    classifier = kind(CLIP(PrecomputedFeatures(20), BagOfWords(), embed_dim=16).eval())
    features, context = torch.rand(2, 20), context_of(classifier)
    torch.testing.assert_close(classifier.score_features(features, **context), classifier(features, **context))


@KINDS
def test_weights_are_shared_and_not_copied(kind: Callable[[CLIP], Classifier]) -> None:
    clip = tiny_clip().eval()
    classifier = kind(clip)
    image, context = torch.rand(2, 1, 32, 32), context_of(classifier)
    before = classifier(image, **context)
    assert classifier.image_encoder is clip.image_encoder
    with torch.no_grad():
        clip.image_projection.weight.neg_()
    assert not torch.allclose(classifier(image, **context), before)


def test_multimodal_probe_needs_its_report_and_reads_it() -> None:
    classifier = multimodal_probe(tiny_clip().eval())
    image, tokens = torch.rand(2, 1, 32, 32), tokenize(REPORTS)
    assert classifier.context_keys == ("input_ids", "attention_mask")
    with pytest.raises(ValueError, match="input_ids and attention_mask"):
        classifier(image)
    with pytest.raises(ValueError, match="input_ids and attention_mask"):
        classifier.score_features(classifier.image_encoder(image), input_ids=tokens.input_ids)
    swapped = {name: tensor.flip(0) for name, tensor in tokens._asdict().items()}
    assert not torch.allclose(classifier(image, **tokens._asdict()), classifier(image, **swapped))


def test_image_probe_is_its_head_on_the_unit_embedding() -> None:
    clip = tiny_clip().eval()
    classifier, image = image_probe(clip), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(classifier(image), classifier.head(clip.encode_image(image)))
    assert classifier.context_keys == ()


def pooled_probe(clip: CLIP) -> Classifier:
    return ProbeClassifier(clip, nn.Linear(64, 3), FINDINGS, space="pooled")


def pooled_multimodal_probe(clip: CLIP) -> Classifier:
    return ProbeClassifier(clip, nn.Linear(64 + 16, 3), FINDINGS, space="pooled", with_text=True)


@pytest.mark.parametrize("kind", [pooled_probe, pooled_multimodal_probe])
def test_pooled_probe_scores_features_as_the_whole_classifier(kind: Callable[[CLIP], Classifier]) -> None:
    classifier = kind(tiny_clip().eval())
    image, context = torch.rand(2, 1, 32, 32), context_of(classifier)
    assert isinstance(classifier, Classifier)
    features = classifier.image_encoder(image)
    torch.testing.assert_close(classifier.score_features(features, **context), classifier(image, **context))


def test_pooled_probe_is_its_head_on_the_encoders_own_features_at_unit_length() -> None:
    clip = tiny_clip().eval()
    classifier, image = pooled_probe(clip), torch.rand(2, 1, 32, 32)
    features = clip.image_encoder(image)
    expected = classifier.head(features / features.norm(dim=1, keepdim=True))
    torch.testing.assert_close(classifier(image), expected)
    with torch.no_grad():
        clip.image_projection.weight.neg_()
    torch.testing.assert_close(classifier(image), expected)  # no projection comes between


def test_pooled_multimodal_probe_reads_the_report_after_the_image() -> None:
    clip = tiny_clip().eval()
    classifier, image, tokens = pooled_multimodal_probe(clip), torch.rand(2, 1, 32, 32), tokenize(REPORTS)
    features = clip.image_encoder(image)
    both = torch.cat([features / features.norm(dim=1, keepdim=True), clip.encode_text(*tokens)], dim=1)
    torch.testing.assert_close(classifier(image, **tokens._asdict()), classifier.head(both))


@pytest.mark.parametrize(
    ("options", "width"),
    [({}, 16), ({"with_text": True}, 32), ({"space": "pooled"}, 64), ({"space": "pooled", "with_text": True}, 80)],
)
def test_width_is_what_the_head_takes(options: dict, width: int) -> None:
    assert ProbeClassifier(tiny_clip(), nn.Identity(), FINDINGS, **options).width == width


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(ValueError, match="space='tokens': choose 'embedding'"):
        ProbeClassifier(tiny_clip(), nn.Identity(), FINDINGS, space="tokens")
