"""KernelSHAP and LIME: a linear score has known Shapley values, and its surrogate is itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.explainers.surrogates import LIME, KernelSHAP

from .quadrants import Quadrants, bright, real_classifier


def cell_sums(values: torch.Tensor, cell: int) -> torch.Tensor:
    """Sums over the square cells of (B, F, *spatial)."""
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    return pool(values, cell) * cell ** (values.ndim - 2)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_shapley_values_of_a_linear_score_are_its_terms(spatial_dims: int) -> None:
    classifier, image = Quadrants(spatial_dims).eval(), bright(spatial_dims)
    explainer = KernelSHAP(cell=8, samples=100, baseline=0.25)
    maps, _ = explainer._maps(classifier, image, {})
    weights = classifier.weights.detach().reshape(1, 2, *image.shape[2:])
    torch.testing.assert_close(maps, cell_sums(weights * (image - 0.25), 8), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_shapley_values_add_up_on_a_real_network(spatial_dims: int) -> None:
    classifier, image = real_classifier(spatial_dims)
    classifier.eval()
    maps, scores = KernelSHAP(cell=8, samples=100, baseline=0.0)._maps(classifier, image, {})
    with torch.no_grad():
        added = scores - classifier(torch.zeros_like(image))
    torch.testing.assert_close(maps.flatten(2).sum(-1), added, rtol=1e-2, atol=1e-3)


def test_two_cells_that_only_count_together_share_equally() -> None:
    class Both(Quadrants):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image).prod(1, keepdim=True)

    maps, _ = KernelSHAP(cell=(12, 20), samples=1000, baseline=0.0)._maps(Both(2).eval(), torch.ones(1, 1, 24, 40), {})
    torch.testing.assert_close(maps[0, 0], torch.tensor([[0.5, 0.0], [0.0, 0.5]]), rtol=0, atol=0.05)


def test_lime_without_penalty_finds_a_linear_score_again() -> None:
    classifier, image = Quadrants(2).eval(), bright(2)
    maps, _ = LIME(cell=8, samples=100, ridge=0.0, baseline=0.0)._maps(classifier, image, {})
    weights = classifier.weights.detach().reshape(1, 2, 24, 40)
    torch.testing.assert_close(maps, cell_sums(weights * image, 8), rtol=1e-3, atol=1e-4)


def test_ridge_and_kernel_width_change_the_lime_map() -> None:
    classifier, image = Quadrants(2), bright(2)
    plain, shrunk = (LIME(cell=8, samples=100, ridge=ridge)(classifier, image) for ridge in (0.01, 10.0))
    assert shrunk.abs().mean() < 0.8 * plain.abs().mean()
    narrow, wide = (LIME(cell=8, samples=100, kernel_width=width)(classifier, image) for width in (0.1, 5.0))
    assert not torch.allclose(narrow, wide)


def test_at_its_centre_a_cell_holds_its_value() -> None:
    classifier, image = Quadrants(2), bright(2, 1)[..., :15, :35]
    classifier.corners = torch.nn.functional.pad(torch.ones(2, 5, 5), (0, 30, 0, 10))
    classifier.weights = torch.nn.Parameter(classifier.corners.flatten(1))
    explainer = KernelSHAP(cell=5, samples=100)
    coarse, _ = explainer._maps(classifier.eval(), image, {})
    torch.testing.assert_close(explainer(classifier, image)[..., 2::5, 2::5], coarse)


@pytest.mark.parametrize("method", [KernelSHAP, LIME])
def test_too_few_samples_or_cells_are_refused(method: type) -> None:
    classifier, image = Quadrants(2), bright(2)
    with pytest.raises(ValueError, match="15 cells: give at least 30"):
        method(cell=8, samples=16)(classifier, image)
    with pytest.raises(ValueError, match="leaves one cell"):
        method(cell=40)(classifier, image)


def test_lime_refuses_impossible_kernels() -> None:
    with pytest.raises(ValueError, match="kernel_width=0"):
        LIME(kernel_width=0)
