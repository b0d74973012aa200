"""Every method on every encoder and classifier, in 2D and 3D: a map of the model's own score, or a refusal in words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medclip import explainers
from monai_medclip.explainers import Explainer
from monai_medclip.findings import Finding
from monai_medclip.networks import CLIP, ProbeClassifier, SliceEncoder

from ..networks.toys import BagOfWords, tokenize
from .encoders import CONVOLUTIONAL, ENCODERS, TRANSFORMERS, encoder, images

# The second speaks against the first, so that one of their maps is above zero where a method cuts off what is below.
FINDINGS = (
    Finding("nodule", ("There is a nodule.",), ("The lungs are clear.",)),
    Finding("no nodule", ("The lungs are clear.",), ("There is a nodule.",)),
    Finding("effusion", ("There is fluid.",), ("There is none.",)),
)
REPORTS = tokenize(["There is a nodule.", "The lungs are clear."])._asdict()

# What a method reads, by the name of its class, and small settings for a test; "half" of the image along each axis.
ATTENTION: dict[str, list[dict[str, Any]]] = {
    "GradECLIP": [{}, {"blocks": None}, {"loosening": "none", "target": "cosine"}, {"heads": "published"}],
    "AttentionGradCAM": [{}],
    "TokenGradCAM": [{}],
    "ConservativePropagation": [{}],
    "GatedPropagation": [{}],
    "Chefer": [{}, {"blocks": 1}],
    "AttentionRollout": [{}],
    "PatchSimilarity": [{}],
    "MedGradECLIP": [{"radius": 2}],
    "M2IB": [{"blocks": 1, "steps": 2, "samples": 1}],
}
FEATURE_MAP: dict[str, list[dict[str, Any]]] = {"GradCAM": [{}]}
ANY: dict[str, list[dict[str, Any]]] = {
    "RandomMap": [{}],
    "CentreBlob": [{}],
    "RISE": [{"masks": 4, "cells": 2}],
    "Occlusion": [{"window": "half", "stride": "half"}],
    "IntegratedGradients": [{"steps": 2}],
    "KernelSHAP": [{"cell": "half", "samples": 12}],
    "LIME": [{"cell": "half", "samples": 12}],
}
METHODS = ATTENTION | FEATURE_MAP | ANY
WRAPPERS = {"SliceWise"}  # around any of the others
TEXT_INDEPENDENT = {"AttentionRollout", "CentreBlob"}  # the same map for every finding

EXPORTED = {
    name
    for name in explainers.__all__
    if inspect.isclass(getattr(explainers, name))
    and issubclass(getattr(explainers, name), Explainer)
    and not inspect.isabstract(getattr(explainers, name))
}
KINDS = ("zero-shot", "probe", "multimodal probe")


def refuses(method: str, name: str, kind: str) -> str | None:
    """What the refusal must say; None where there is a map."""
    if method in ATTENTION and name in CONVOLUTIONAL:
        return "reads attention.*Use GradCAM"
    if method in FEATURE_MAP and name in TRANSFORMERS:
        return "holds a transformer.*TokenGradCAM or AttentionGradCAM"
    if method == "PatchSimilarity" and kind == "multimodal probe":
        return "no further context"
    return None


def kinds(method: str, name: str, setting: int) -> tuple[str, ...]:
    """All for the default setting; one is enough for another, and for an encoder that is refused anyway."""
    return KINDS[:1] if setting or refuses(method, name, KINDS[0]) else KINDS


SLICED = ("SmallViT 2D", "timm SigLIP", "open_clip OpenAI", "MONAI ViT mean 2D", "SmallCNN 2D", "MONAI DenseNet 2D")
CASES = [
    (method, setting, name, kind)
    for method in METHODS
    if method in EXPORTED
    for number, setting in enumerate(METHODS[method])
    for name in ENCODERS
    for kind in kinds(method, name, number)
]


def identity(value: Any) -> str | None:
    return ",".join(f"{key}={one}" for key, one in value.items()) or "default" if isinstance(value, dict) else None


@cache
def classifier_of(name: str, kind: str) -> tuple[Any, dict[str, Tensor]]:
    """A zero-shot classifier, a probe, or a multimodal probe, and the context that it needs."""
    torch.manual_seed(3)
    return classifier_over(encoder(name), kind)


@cache
def volume_classifier_of(name: str, kind: str) -> tuple[Any, dict[str, Tensor]]:
    """The same of volumes, whose slices such an encoder reads; some slices count more than others."""
    torch.manual_seed(3)
    slices = SliceEncoder(encoder(name), chunk=2)
    nn.init.normal_(slices.pooling.query, std=0.5)
    return classifier_over(slices, kind)


def classifier_over(image_encoder: Any, kind: str) -> tuple[Any, dict[str, Tensor]]:
    clip = CLIP(image_encoder, BagOfWords(), embed_dim=16).eval()
    if kind == "zero-shot":
        return clip.classifier(FINDINGS, tokenize, rule="positive_minus_negative"), {}
    with_text = kind == "multimodal probe"
    inputs = clip.embed_dim * (2 if with_text else 1)
    head = nn.Sequential(nn.Linear(inputs, 8), nn.GELU(), nn.Linear(8, len(FINDINGS)))
    with torch.no_grad():
        head[-1].weight[1] = -head[-1].weight[0]
    return ProbeClassifier(
        clip, head, [finding.name for finding in FINDINGS], with_text=with_text
    ).eval(), REPORTS if with_text else {}


@contextmanager
def counting(module: nn.Module) -> Iterator[list[str]]:
    """The modules that are called meanwhile."""
    calls: list[str] = []
    handles = [
        part.register_forward_pre_hook(lambda it, _: calls.append(type(it).__name__)) for part in module.modules()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("method", "setting", "name", "kind"), CASES, ids=identity)
def test_map_of_the_models_own_score_or_a_refusal_in_words(
    method: str, setting: dict[str, Any], name: str, kind: str
) -> None:
    classifier, context = classifier_of(name, kind)
    image = images(encoder(name))
    half = [size // 2 for size in image.shape[2:]]
    arguments = {key: half if value == "half" else value for key, value in setting.items()}
    explainer = getattr(explainers, method)(**arguments, verify=True)
    refusal = refuses(method, name, kind)
    if refusal is not None:
        with counting(classifier) as calls, pytest.raises(TypeError, match=refusal):
            explainer.explain(classifier, image, **context)
        assert calls == []
        return
    heatmap, scores = explainer.explain(classifier, image, **context)

    assert heatmap.shape == (2, 3, *image.shape[2:])
    assert heatmap.dtype == scores.dtype == torch.float32
    assert bool(heatmap.isfinite().all())
    for of_one_image in heatmap:
        assert float(of_one_image.flatten(1).std(dim=1).max()) > 0
    alike = torch.equal(heatmap[:, 0], heatmap[:, 1])
    assert alike == (method in TEXT_INDEPENDENT)
    own_score(classifier, image, context, scores, setting)


def own_score(
    classifier: Any, image: Tensor, context: dict[str, Tensor], scores: Tensor, setting: dict[str, Any]
) -> None:
    if setting.get("heads") != "published":  # that one explains another model, and says so
        own = classifier(image, **context)
        own = classifier.as_cosine(own) if setting.get("target") == "cosine" else own
        torch.testing.assert_close(scores, own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero-shot", "multimodal probe"])
@pytest.mark.parametrize("name", SLICED)
@pytest.mark.parametrize("method", sorted((EXPORTED & set(METHODS)) - WRAPPERS))
def test_slice_by_slice_every_method_explains_the_volumes_own_score(method: str, name: str, kind: str) -> None:
    classifier, context = volume_classifier_of(name, kind)
    two_d = encoder(name)
    volume = torch.rand(2, two_d.in_channels, 3, *two_d.image_size, generator=torch.Generator().manual_seed(5))
    setting = METHODS[method][0]
    half = [size // 2 for size in two_d.image_size]
    arguments = {key: half if value == "half" else value for key, value in setting.items()}
    explainer = explainers.SliceWise(getattr(explainers, method)(**arguments, verify=True), chunk=2)
    refusal = refuses(method, name, "multimodal probe")  # the other slices are further context
    if refusal is not None:
        with counting(classifier) as calls, pytest.raises(TypeError, match=refusal):
            explainer.explain(classifier, volume, **context)
        assert calls == []
        return
    heatmap, scores = explainer.explain(classifier, volume, **context)
    assert heatmap.shape == (2, 3, *volume.shape[2:])
    assert bool(heatmap.isfinite().all())
    assert all(float(one.abs().max()) > 0 for one in heatmap)
    own_score(classifier, volume, context, scores, setting)


def test_cosine_of_a_probe_is_refused_before_any_work() -> None:
    classifier, _ = classifier_of("timm CLS", "probe")
    with counting(classifier) as calls, pytest.raises(TypeError, match="no cosine to explain"):
        explainers.GradECLIP(target="cosine").explain(classifier, images(encoder("timm CLS")))
    assert calls == []


def test_more_blocks_than_there_are_is_refused_before_any_work() -> None:
    classifier, _ = classifier_of("timm CLS", "zero-shot")
    with counting(classifier) as calls, pytest.raises(TypeError, match="blocks=3, but TimmImageEncoder has 2"):
        explainers.Chefer(blocks=3).explain(classifier, images(encoder("timm CLS")))
    assert calls == []


def test_every_exported_explainer_is_in_the_matrix() -> None:
    assert set(METHODS) | WRAPPERS >= EXPORTED
