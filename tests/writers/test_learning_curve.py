"""The curve is the mean of the repeats, the band holds all of them, zero-shot is a line."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.writers.learning_curve import FewShot, few_shot_figure

from .drawn import cut_texts, words

CURVES = {
    "probe": [FewShot(None, [0.9]), FewShot(1, [0.5, 0.7, math.nan]), FewShot(10, [0.6, 0.8, 0.7])],
    "untrained": [FewShot(1, [0.5]), FewShot(50, [math.nan])],
}


def test_means_bands_and_repeats_by_number_of_cases() -> None:
    figure = few_shot_figure(CURVES, zero_shot=0.75, zero_shot_interval=(0.7, 0.8), title="nodule")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "50", "all"]
    drawn = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(drawn["probe"].get_xdata(), [0, 1, 3])
    np.testing.assert_allclose(drawn["probe"].get_ydata(), [0.6, 0.7, 0.9])
    assert list(drawn["untrained"].get_xdata()) == [0]
    assert set(drawn["zero-shot, no case: 0.750 [0.700, 0.800]"].get_ydata()) == {0.75}
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.5, 0.9)
    assert "mean of 1 to 3 random draws" in words(figure)
    assert cut_texts(figure) == []


def test_zero_shot_may_be_missing() -> None:
    assert "zero-shot" not in words(few_shot_figure(CURVES))


def test_empty_curves_are_refused() -> None:
    for curves in ({}, {"probe": []}):
        with pytest.raises(ValueError, match="at least one number of cases"):
            few_shot_figure(curves)
