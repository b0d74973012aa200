"""Integrated gradients: completeness, and the answer for a linear score."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.explainers.integrated_gradients import IntegratedGradients
from monai_medclip.explainers.perturbation import blurred

from .quadrants import Quadrants, bright, real_classifier


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_linear_score_gives_weight_times_difference(spatial_dims: int) -> None:
    classifier, image = Quadrants(spatial_dims), bright(spatial_dims)
    maps = IntegratedGradients(steps=3, baseline=0.5)(classifier, image)
    weights = classifier.weights.detach().reshape(1, 2, *image.shape[2:])
    torch.testing.assert_close(maps, weights * (image - 0.5))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("target", ["logit", "cosine"])
def test_pixels_sum_to_what_the_image_adds_to_the_baseline(spatial_dims: int, target: str) -> None:
    classifier, image = real_classifier(spatial_dims)
    maps, scores = IntegratedGradients(steps=100, baseline="blur", target=target).explain(classifier, image)
    with torch.no_grad():
        start = classifier.eval()(blurred(image))
    added = scores - (classifier.as_cosine(start) if target == "cosine" else start)
    torch.testing.assert_close(maps.flatten(2).sum(-1), added, rtol=1e-2, atol=1e-5)


def test_steps_in_one_pass_or_in_many_are_the_same() -> None:
    classifier, image = real_classifier(2)
    maps = [IntegratedGradients(steps=10, batch_size=size)(classifier, image) for size in (1, 6, 100)]
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(maps[0], maps[2], rtol=1e-3, atol=1e-5)


def test_channels_are_summed() -> None:
    classifier = Quadrants(2)
    color = torch.cat([bright(2), 2 * bright(2), 3 * bright(2)], dim=1)  # the toy averages over channels
    maps = IntegratedGradients(steps=3, baseline=0.0)
    torch.testing.assert_close(maps(classifier, color), maps(classifier, 2 * bright(2)))


def test_positive_keeps_what_supports() -> None:
    classifier, image = real_classifier(2)
    signed = IntegratedGradients(steps=5)(classifier, image)
    assert (signed < 0).any()
    assert torch.equal(IntegratedGradients(steps=5, positive=True)(classifier, image), signed.clamp_min(0))


def test_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=0"):
        IntegratedGradients(steps=0)
