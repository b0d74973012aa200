"""What every method that looks at the input alone promises, whatever it does with it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from monai_medclip.explainers.integrated_gradients import IntegratedGradients
from monai_medclip.explainers.occlusion import Occlusion
from monai_medclip.explainers.perturbation import PerturbationExplainer, black, blurred, cell_grid
from monai_medclip.explainers.rise import RISE
from monai_medclip.explainers.surrogates import LIME, KernelSHAP
from monai_medclip.networks import MonaiImageEncoder

from .quadrants import Quadrants, bright, in_and_out, peaks_inside, real_classifier

METHODS = {
    "rise": lambda **options: RISE(masks=100, cells=4, **options),
    "occlusion": lambda **options: Occlusion(window=4, stride=4, **options),
    "integrated_gradients": lambda **options: IntegratedGradients(steps=5, **options),
    "kernel_shap": lambda **options: KernelSHAP(cell=8, samples=40, **options),
    "lime": lambda **options: LIME(cell=8, samples=40, **options),
}
each_method = pytest.mark.parametrize("method", METHODS)
each_dimension = pytest.mark.parametrize("spatial_dims", [2, 3])


@each_method
@each_dimension
def test_each_findings_map_is_highest_in_its_corner(method: str, spatial_dims: int) -> None:
    classifier, image = Quadrants(spatial_dims), bright(spatial_dims)
    maps, scores = METHODS[method](baseline=0.0).explain(classifier, image)
    assert maps.shape == (2, 2, *image.shape[2:])
    torch.testing.assert_close(scores, classifier.eval()(image).detach())
    inside, outside = in_and_out(maps, classifier.corners)
    assert (inside > outside).all()
    assert peaks_inside(maps, classifier.corners)


@each_method
def test_what_speaks_against_a_finding_is_lowest(method: str) -> None:
    classifier, image = Quadrants(2), bright(2)
    with torch.no_grad():
        classifier.weights.neg_()
    maps = METHODS[method](baseline=0.0)(classifier, image)
    assert peaks_inside(-maps, classifier.corners)


@each_method
@each_dimension
def test_context_follows_the_copies_of_its_own_image(method: str, spatial_dims: int) -> None:
    classifier, image = Quadrants(spatial_dims, with_gain=True), bright(spatial_dims)
    gain = torch.tensor([1.0, -2.0])
    maps, scores = METHODS[method](baseline=0.0, batch_size=7).explain(classifier, image, gain=gain)
    plain, plain_scores = METHODS[method](baseline=0.0, batch_size=7).explain(Quadrants(spatial_dims), image)
    torch.testing.assert_close(scores, plain_scores * gain[:, None])
    torch.testing.assert_close(maps, plain * gain[:, None].reshape(2, *(1,) * (maps.ndim - 1)), rtol=1e-3, atol=1e-4)


@each_method
def test_an_image_gets_the_same_map_in_any_batch_and_twice(method: str) -> None:
    classifier, image = real_classifier(2)
    explainer = METHODS[method](seed=5) if method not in ("occlusion", "integrated_gradients") else METHODS[method]()
    together = explainer(classifier, image)
    assert torch.equal(together, explainer(classifier, image))
    torch.testing.assert_close(together[1:], explainer(classifier, image[1:]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["rise", "kernel_shap", "lime"])
def test_another_seed_gives_another_map(method: str) -> None:
    classifier, image = real_classifier(2)
    maps = [METHODS[method](seed=seed)(classifier, image) for seed in (0, 1)]
    assert not torch.allclose(*maps)


@each_method
def test_no_global_generator_moves(method: str) -> None:
    classifier, image = Quadrants(2), bright(2)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    METHODS[method]()(classifier, image)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert before[2] == random.getstate()


@each_method
def test_everything_is_given_back_when_the_model_fails_halfway(method: str) -> None:
    classifier, image = Quadrants(2, passes=2), bright(2)
    state = torch.get_rng_state()
    with torch.no_grad(), pytest.raises(RuntimeError, match="a pass too many"):
        METHODS[method](batch_size=2)(classifier, image)
    assert classifier.training
    assert classifier.dropout.training
    assert classifier.weights.requires_grad
    assert classifier.weights.grad is None
    assert torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())


@each_method
def test_all_findings_share_the_forward_passes(method: str) -> None:
    seen = []
    for findings in (1, 2):
        classifier, image = Quadrants(2), bright(2, 1)
        classifier.weights = torch.nn.Parameter(classifier.weights.detach()[:findings])
        assert METHODS[method]()(classifier, image).shape[1] == findings
        seen.append(classifier.images_seen)
    assert seen[0] == seen[1]


@each_method
@each_dimension
def test_maps_of_real_networks_are_finite_and_tell_findings_apart(method: str, spatial_dims: int) -> None:
    classifier, image = real_classifier(spatial_dims)
    maps, scores = METHODS[method](target="cosine").explain(classifier, image)
    assert maps.isfinite().all()
    assert not torch.allclose(maps[:, 0], maps[:, 1])
    with torch.no_grad():
        torch.testing.assert_close(scores, classifier.as_cosine(classifier.eval()(image)))


@each_method
def test_works_on_a_network_without_attention(method: str) -> None:
    classifier, image = real_classifier(2)
    encoder = MonaiImageEncoder("resnet50", image_size=32, options={"widen_factor": 0.125})
    cnn = type(classifier.clip)(encoder, classifier.clip.text_encoder, embed_dim=16)
    maps = METHODS[method](batch_size=64)(cnn.classifier(["nodule"], classifier.tokenizer, rule="name"), image[:1])
    assert maps.isfinite().all()
    assert maps.std() > 0


class Removed(PerturbationExplainer):
    """Shows the images with everything removed."""

    name = "removed"

    def _maps(self, classifier, image, context):
        return self._removed(classifier, image), self._judge(classifier, image, context)


@each_dimension
@pytest.mark.parametrize("baseline, expected", [("black", -2.0), (0.25, 0.25), (0, 0.0)])
def test_constant_baselines_are_in_normalized_units(spatial_dims: int, baseline: str | float, expected: float) -> None:
    removed = Removed(baseline=baseline)(Quadrants(spatial_dims), bright(spatial_dims))
    assert (removed == expected).all()  # black: (0 - 0.5) / 0.25


def test_mean_baseline_is_each_images_own() -> None:
    image = torch.stack([torch.full((1, 24, 40), 3.0), bright(2, 1)[0]])
    removed = Removed(baseline="mean")(Quadrants(2), image)
    torch.testing.assert_close(removed[0], image[0])
    torch.testing.assert_close(removed[1], image[1].mean().expand(1, 24, 40))


@each_dimension
def test_blur_keeps_a_flat_image_up_to_the_border_and_flattens_a_point(spatial_dims: int) -> None:
    flat = torch.full((1, 2, *(16,) * spatial_dims), 3.0)
    torch.testing.assert_close(blurred(flat), flat)
    point = torch.zeros_like(flat)
    point[(0, 0, *(8,) * spatial_dims)] = 1.0
    assert blurred(point)[0, 0].max() < 0.3
    assert blurred(point)[0, 1].max() == 0


def test_black_of_a_gray_image_under_color_weights_uses_the_mean_statistics() -> None:
    encoder = Quadrants(2).image_encoder
    encoder.mean, encoder.std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    color = black(torch.zeros(1, 3, 2, 2), encoder)
    torch.testing.assert_close(color[0, :, 0, 0], torch.tensor([-2.0, -2.0, -3.0]))
    torch.testing.assert_close(black(torch.zeros(1, 1, 2, 2), encoder), torch.full((1, 1, 2, 2), -7 / 3))


def test_cells_share_an_axis_out_evenly() -> None:
    assert cell_grid(torch.zeros(1, 1, 20, 47), 8) == (2, 6)
    assert cell_grid(torch.zeros(1, 1, 4, 64, 64), (2, 16, 32)) == (2, 4, 2)
    with pytest.raises(ValueError, match="2 axes for 3"):
        cell_grid(torch.zeros(1, 1, 4, 4, 4), (2, 2))


@each_method
def test_bad_arguments_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match="blur, mean, black"):
        METHODS[method](baseline="white")
    with pytest.raises(ValueError, match="batch_size=0"):
        METHODS[method](batch_size=0)
