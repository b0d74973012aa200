"""Gated propagation is its two factors' product, in the unit of the first; both vouch for the score."""

from __future__ import annotations

import pytest
import torch
from monai.networks.layers import GaussianFilter

from monai_medclip.explainers import Chefer, ConservativePropagation, GatedPropagation, recommended

from .quadrants import Quadrants, real_classifier


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_it_is_the_product_of_propagation_and_smoothed_relevance(spatial_dims: int) -> None:
    classifier, image = real_classifier(spatial_dims)
    found = GatedPropagation(sigma=0.5, gate_sigma=0.7, verify=True).explain(classifier, image)
    propagation = ConservativePropagation(sigma=0.5)(classifier, image)
    patch = [size / cells for size, cells in zip(image.shape[2:], classifier.image_encoder.grid_size, strict=True)]
    gate = GaussianFilter(spatial_dims, [0.7 * pixels for pixels in patch])(Chefer()(classifier, image))
    gate = gate / gate.amax(tuple(range(2, gate.ndim)), keepdim=True)
    torch.testing.assert_close(found.heatmap, propagation * gate, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.scores, classifier.eval()(image), rtol=1e-4, atol=1e-4)
    assert bool((found.heatmap <= propagation + 1e-6).all())
    assert float(found.heatmap.amax()) > 0


def test_no_relevance_is_no_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, image = real_classifier(2)
    explainer = GatedPropagation()
    relevance, scores = explainer.relevance.explain(classifier, image)
    monkeypatch.setattr(explainer.relevance, "_maps", lambda *_: (torch.zeros_like(relevance), scores))
    assert not bool(explainer(classifier, image).any())


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(TypeError, match=r"gated propagation reads attention, and .* has none"):
        recommended()(Quadrants(2), torch.rand(1, 1, 24, 40))
    with pytest.raises(ValueError, match="gate_sigma=0"):
        GatedPropagation(gate_sigma=0)
    with pytest.raises(ValueError, match="sigma=-1"):
        GatedPropagation(sigma=-1)
