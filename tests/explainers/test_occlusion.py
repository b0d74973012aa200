"""Occlusion: the drops of a linear score are known to the digit, on cells as on pixels."""

from __future__ import annotations

import captum.attr
import pytest
import torch

from monai_medclip.explainers.occlusion import Occlusion

from .quadrants import Quadrants, bright


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_equals_captum_over_pixels(spatial_dims: int) -> None:
    classifier, image = Quadrants(spatial_dims).eval(), bright(spatial_dims)
    maps, _ = Occlusion(window=8, stride=4, baseline=0.5)._maps(classifier, image, {})
    with torch.no_grad():
        pixels = captum.attr.Occlusion(classifier).attribute(
            image, (1, *(8,) * spatial_dims), (1, *(4,) * spatial_dims), baselines=0.5
        )  # (B F, 1, *spatial)
    first_of_each_cell = pixels.reshape(2, 2, *image.shape[2:])[(..., *(slice(0, None, 4),) * spatial_dims)]
    torch.testing.assert_close(maps, first_of_each_cell, rtol=1e-4, atol=1e-6)


def test_without_overlap_the_drops_add_up_to_the_whole() -> None:
    classifier, image = Quadrants(2), bright(2)
    maps, scores = Occlusion(window=8, stride=8, baseline=0.0)._maps(classifier.eval(), image, {})
    torch.testing.assert_close(maps.flatten(2).sum(-1), scores)  # the score of the empty image is 0


def test_windows_may_differ_by_axis() -> None:
    classifier, image = Quadrants(3), bright(3, 1)
    maps = Occlusion(window=(2, 8, 8), stride=(2, 4, 8), baseline=0.0)._maps(classifier.eval(), image, {})[0]
    assert maps.shape == (1, 2, 8, 4, 3)


def test_a_window_must_be_a_multiple_of_the_stride_and_fit() -> None:
    classifier, image = Quadrants(2), bright(2)
    with pytest.raises(ValueError, match="multiple of stride=4"):
        Occlusion(window=6, stride=4)(classifier, image)
    with pytest.raises(ValueError, match="larger than the image"):
        Occlusion(window=32, stride=8)(classifier, image)
