"""RISE: masks with the right mean, Eq. 6 by hand, and a constant that stays one."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.explainers.rise import RISE, enlarged

from .quadrants import Quadrants, bright


def visible_masks(explainer: RISE, size: tuple[int, ...]) -> torch.Tensor:
    coarse, shifts = explainer._draw(len(size))
    return enlarged(coarse, shifts, torch.Size(size))


@pytest.mark.parametrize("size", [(12, 20), (6, 8, 10)])
@pytest.mark.parametrize("keep", [0.2, 0.5])
def test_masks_show_every_place_with_probability_keep(size: tuple[int, ...], keep: float) -> None:
    masks = visible_masks(RISE(masks=2000, cells=3, keep=keep), size)
    assert masks.shape == (2000, 1, *size)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert (masks.mean(0) - keep).abs().max() < 0.05
    assert ((masks > 0.02) & (masks < 0.98)).float().mean() > 0.01  # smooth edges


def test_shifts_move_a_mask_by_less_than_a_cell() -> None:
    coarse = torch.zeros(2, 1, 4, 4)
    coarse[:, :, 1, 1] = 1.0
    still, moved = enlarged(coarse, torch.tensor([[0.0, 0.0], [0.5, 0.75]]), torch.Size((32, 64)))[:, 0]
    torch.testing.assert_close(still[4:, 12:], moved[:-4, :-12])  # cells of 8 x 16 pixels


def test_expected_normalization_is_equation_6() -> None:
    classifier, image = Quadrants(2).eval(), bright(2, 1)
    explainer = RISE(masks=50, cells=3, keep=0.4, normalize="expected", baseline=0.0)
    masks = visible_masks(explainer, image.shape[2:])
    with torch.no_grad():
        by_hand = torch.einsum("nf,nhw->fhw", classifier(image * masks), masks[:, 0]) / (50 * 0.4)
    torch.testing.assert_close(explainer(classifier, image)[0], by_hand)


def test_a_constant_score_is_flat_only_with_observed_normalization() -> None:
    classifier, image = Quadrants(2, offset=7.0), bright(2, 1)
    with torch.no_grad():
        classifier.weights.zero_()
    observed = RISE(masks=50, normalize="observed")(classifier, image)
    torch.testing.assert_close(observed, torch.full_like(observed, 7.0))
    assert RISE(masks=50, normalize="expected")(classifier, image).std() > 0.1


def test_an_offset_moves_the_observed_map_by_itself() -> None:
    image, explainer = bright(2, 1), RISE(masks=100, cells=4, normalize="observed", baseline=0.0)
    shifted = explainer(Quadrants(2, offset=-5.0), image)
    torch.testing.assert_close(shifted, explainer(Quadrants(2), image) - 5.0, rtol=1e-4, atol=1e-4)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"keep=1.0"):
        RISE(keep=1.0)
    with pytest.raises(ValueError, match="masks=0"):
        RISE(masks=0)
    with pytest.raises(ValueError, match="expected, observed"):
        RISE(normalize="none")
