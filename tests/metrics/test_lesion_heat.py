"""Of several lesions each gets its heat, its rank and its distance, in mm on any grid."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.metrics import lesion_heat, lesion_numbers, peak_mm

SHAPE = (6, 10, 10)


def lesions() -> np.ndarray:
    """One of 8 voxels, one of a single voxel."""
    mask = np.zeros(SHAPE)
    mask[1:3, 1:3, 1:3] = 1
    mask[4, 8, 8] = 1
    return mask


def test_shares_enrichment_and_rank_by_hand() -> None:
    heat = np.full(SHAPE, -1.0)  # negative heat counts for nothing
    heat[1, 1, 1], heat[4, 8, 8], heat[0, 9, 0], heat[0, 9, 1] = 3, 1, 2, 2
    first, second = lesion_heat(heat, lesions(), np.eye(4))
    assert (first.number, first.voxels, second.number, second.voxels) == (1, 8, 2, 1)
    assert first.share == pytest.approx(3 / 8)
    assert second.share == pytest.approx(1 / 8)
    assert first.enrichment == pytest.approx(3 / 8 / (8 / 600))
    assert (first.largest, second.largest) == (3, 1)
    assert first.rank == 1
    assert second.rank == 3  # the first lesion's voxel and the two that touch each other are hotter
    assert first.distance_mm == 0
    assert first.center_distance_mm == pytest.approx(0.5 * 3**0.5)


def test_uniform_heat_is_enriched_once_and_has_no_maximum() -> None:
    for found in lesion_heat(np.full(SHAPE, 2.0), lesions(), np.eye(4)):
        assert found.enrichment == pytest.approx(1)
        assert found.rank == 1
        assert np.isnan([found.distance_mm, found.center_distance_mm]).all()
    assert [found.share for found in lesion_heat(np.zeros(SHAPE), lesions(), np.eye(4))] == [0, 0]


def test_distances_are_in_mm_of_a_sheared_grid() -> None:
    affine = np.array([[0, 0, -0.7, 12.0], [1.0, -0.7, 0, 30], [2.5, 0, 0, -400], [0, 0, 0, 1]])  # tilted gantry
    heat = np.zeros(SHAPE)
    heat[0, 8, 8] = 1
    peak = affine @ [0, 8, 8, 1]
    np.testing.assert_allclose(peak_mm(heat, affine), peak[:3])
    first, second = lesion_heat(heat, lesions(), affine)
    assert second.distance_mm == pytest.approx(4 * np.hypot(2.5, 1.0))
    assert second.center_distance_mm == pytest.approx(second.distance_mm)
    center = affine @ [1.5, 1.5, 1.5, 1]
    assert first.center_distance_mm == pytest.approx(np.linalg.norm(center - peak))
    corners = [affine @ [s, r, c, 1] for s in (1, 2) for r in (1, 2) for c in (1, 2)]
    assert first.distance_mm == pytest.approx(min(np.linalg.norm(corner - peak) for corner in corners))


def test_regions_are_lesions_unless_the_mask_has_numbers() -> None:
    mask = lesions()
    mask[3, 3, 3] = 1  # touches the first by a corner
    assert lesion_numbers(mask)[3, 3, 3] == 1
    assert lesion_numbers(mask).max() == 2
    mask[3, 3, 3], mask[5, 0, 9] = 7, 1  # number 1 in three pieces is still one lesion
    assert [found.number for found in lesion_heat(mask, mask, np.eye(4))] == [1, 7]
    assert lesion_heat(mask, mask, np.eye(4))[0].voxels == 10
    assert lesion_heat(mask, np.zeros(SHAPE), np.eye(4)) == []


def test_figures_of_a_2d_map_and_of_a_turned_one_are_the_same() -> None:
    rng = np.random.default_rng(0)
    heat, mask = rng.normal(size=(7, 9)), np.zeros((7, 9))
    mask[2:4, 5:8] = 1
    affine = np.diag([2.0, 0.5, 1])
    turned = lesion_heat(heat.T, mask.T, affine[[1, 0, 2]][:, [1, 0, 2]])
    np.testing.assert_allclose(turned, lesion_heat(heat, mask, affine))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"heatmap \(6, 10, 10\), lesions \(5, 10, 10\)"):
        lesion_heat(np.zeros(SHAPE), lesions()[1:], np.eye(4))
    with pytest.raises(ValueError, match=r"affine \(3, 3\)"):
        lesion_heat(np.zeros(SHAPE), lesions(), np.eye(3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        lesion_heat(np.full(SHAPE, np.nan), lesions(), np.eye(4))
