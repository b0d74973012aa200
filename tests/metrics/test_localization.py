"""Localization figures on maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medclip.metrics.localization import (
    binarize,
    contrast_to_noise,
    energy_in_mask,
    grid_ceiling,
    localization_figure,
    localize,
    overlap,
    pointing_chance,
    pointing_game,
    thirds,
)


def square(spatial_dims: int = 2, size: int = 16) -> np.ndarray:
    """One mask (1, *spatial) with a block of 4 pixels per axis that starts at 4."""
    mask = np.zeros((1, *[size] * spatial_dims), bool)
    mask[(0, *[slice(4, 8)] * spatial_dims)] = True
    return mask


def peak_at(*place: int, size: int = 16) -> np.ndarray:
    heat = np.zeros((1, *[size] * len(place)))
    heat[(0, *place)] = 1.0
    return heat


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_pointing_game_counts_pixels_from_the_mask(spatial_dims):
    mask = square(spatial_dims)
    inside, outside = peak_at(*[5] * spatial_dims), peak_at(10, *[5] * (spatial_dims - 1))  # 3 px below row 7
    assert pointing_game(inside, mask) == [1.0]
    assert pointing_game(outside, mask) == [0.0]
    assert pointing_game(outside, mask, tolerance=2.9) == [0.0]
    assert pointing_game(outside, mask, tolerance=3) == [1.0]


def test_a_map_without_contrast_points_with_the_skill_of_chance():
    mask = square()
    for tolerance in (0, 3):
        assert pointing_game(np.full((1, 16, 16), 0.3), mask, tolerance=tolerance) == pointing_chance(
            mask, tolerance=tolerance
        )
    assert pointing_chance(mask) == [16 / 256]


def test_chance_with_tolerance_is_the_dilated_area():
    # One step in the four directions: a cross, 16 + 4 sides of 4.
    assert pointing_chance(square(), tolerance=1) == [32 / 256]


def test_random_peaks_reach_chance():
    generator = np.random.default_rng(0)
    masks = np.repeat(square(), 4000, axis=0)
    hits = pointing_game(generator.random((4000, 16, 16)), masks, tolerance=3)
    assert hits.mean() == pytest.approx(pointing_chance(square(), tolerance=3)[0], abs=0.03)


def test_energy_leaves_out_negative_heat():
    mask, heat = square(), np.zeros((1, 16, 16))
    heat[0, 5, 5], heat[0, 0, 0], heat[0, 1, 1] = 3.0, 1.0, -9.0
    assert energy_in_mask(heat, mask) == [0.75]
    assert energy_in_mask(-np.ones((1, 16, 16)), mask) == [0.0]
    assert energy_in_mask(np.ones((1, 16, 16)), mask) == pytest.approx([16 / 256])


@pytest.mark.parametrize("threshold", ["otsu", "mean", 0.5])
def test_overlap_of_the_mask_with_itself_is_one(threshold):
    mask = square()
    assert overlap(mask * 7.0 - 3, mask, threshold=threshold) == ([1.0], [1.0])


def test_overlap_by_hand():
    heat = np.zeros((1, 16, 16))
    heat[0, 4:8, 6:10] = 1.0  # 8 of its 16 pixels on the lesion
    iou, dice = overlap(heat, square(), threshold=0.5)
    assert (iou, dice) == ([8 / 24], [16 / 32])
    assert overlap(np.ones((1, 16, 16)), square(), threshold="mean").iou == [0.0]


def test_fixed_threshold_is_of_the_scaled_map():
    heat = np.array([[10.0, 12.0], [14.0, 20.0]])
    np.testing.assert_array_equal(binarize(heat, 0.3), [[False, False], [True, True]])
    np.testing.assert_array_equal(binarize(heat, "mean"), [[False, False], [False, True]])


@pytest.mark.parametrize("threshold", ["Otsu", 0.0, 1.0])
def test_unknown_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="otsu"):
        binarize(np.eye(4), threshold)


def test_contrast_to_noise_by_hand():
    heat, mask = np.array([[[1.0, 3.0, 0.0, 0.0]]]), np.array([[[1, 1, 0, 0]]])
    assert contrast_to_noise(heat, mask) == [2.0]  # |2 - 0| / sqrt(1 + 0)
    assert contrast_to_noise(-heat, mask) == [2.0]
    assert contrast_to_noise(np.ones_like(heat), mask) == [0.0]


def test_pixel_rankings_follow_the_map():
    mask = square()
    report = localize(np.concatenate([mask, 1 - mask, mask * 0]).astype(float), np.repeat(mask, 3, axis=0))
    np.testing.assert_allclose(report.auroc, [1.0, 0.0, 0.5])
    np.testing.assert_allclose(report.auprc, [1.0, 16 / 256, 16 / 256])


def test_figures_do_not_depend_on_the_scale_or_on_a_flip():
    generator = np.random.default_rng(1)
    heat, mask = generator.random((3, 16, 16)), np.repeat(square(), 3, axis=0)
    report = localize(heat, mask, tolerances=(0, 2)).columns()
    scaled = localize(torch.from_numpy(5 * heat), torch.from_numpy(mask), tolerances=(0, 2)).columns()
    flipped = localize(heat[:, ::-1], mask[:, ::-1], tolerances=(0, 2)).columns()
    assert {"pointing_0", "pointing_2_chance", "iou_otsu", "dice_0.5", "energy", "auprc", "cnr"} <= set(report)
    for name, values in report.items():
        np.testing.assert_allclose(scaled[name], values, err_msg=name)
        np.testing.assert_allclose(flipped[name], values, err_msg=name)


def test_the_ceiling_of_a_grid_hits_what_fills_a_patch_and_may_miss_what_does_not():
    aligned = square()
    ceiling = grid_ceiling(aligned, (4, 4))
    assert ceiling.max() <= 1
    assert pointing_game(ceiling, aligned) == [1.0]
    corner = np.zeros((1, 16, 16), bool)
    corner[0, 0, 7] = True  # one pixel in the corner of an 8 px patch
    assert pointing_game(grid_ceiling(corner, (2, 2)), corner)[0] < 1
    assert grid_ceiling(square(3), (4, 4, 4)).shape == (1, 16, 16, 16)


def test_a_grid_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        grid_ceiling(square(), (5, 4))


def test_intervals_resample_patients():
    values = np.random.default_rng(0).random(60) > 0.4
    single = localization_figure(values)
    repeated = localization_figure(np.repeat(values, 10), groups=np.repeat(np.arange(60), 10))
    assert single.mean == repeated.mean == values.mean()
    assert single.interval == pytest.approx(repeated.interval, abs=0.03)
    assert repeated.interval.low < repeated.mean < repeated.interval.high
    naive = localization_figure(np.repeat(values, 10)).interval
    assert naive.high - naive.low < 0.5 * (repeated.interval.high - repeated.interval.low)
    assert localization_figure([], bootstrap=10).cases == 0


def test_values_that_a_mean_would_hide_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        localization_figure([1.0, np.nan])
    with pytest.raises(ValueError, match="one patient per case"):
        localization_figure([1.0, 0.0], groups=["a"])


def test_thirds_are_ordered_and_keep_equal_sizes_together():
    assert thirds([9, 1, 5, 2, 6, 8]).tolist() == [2, 0, 1, 0, 1, 2]
    assert len(set(thirds([3, 3, 3, 3]).tolist())) == 1


@pytest.mark.parametrize("mask", [np.zeros((1, 16, 16)), np.ones((1, 16, 16))])
def test_masks_without_lesion_or_background_are_refused(mask):
    with pytest.raises(ValueError, match="empty or full"):
        localize(np.zeros((1, 16, 16)), mask)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(N, \*spatial\)"):
        localize(np.zeros((1, 8, 8)), square())
    with pytest.raises(ValueError, match="NaN"):
        localize(np.full((1, 16, 16), np.nan), square())
