"""Threshold figures by hand, against sklearn with weights, and undefined ones as NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)

from monai_medclip.metrics.thresholded import THRESHOLDED, share, thresholded_figures


def figures(scores: list[float], truth: list[float], threshold: float = 0.0) -> dict[str, float]:
    found = thresholded_figures(np.array(scores), np.array(truth), threshold, np.ones((1, len(scores))))
    return dict(zip(THRESHOLDED, found[:, 0].tolist(), strict=True))


def test_hand_computed_figures() -> None:
    found = figures([2.0, 1.0, -1.0, 0.5, -2.0, 9.0], [1.0, 0.0, 1.0, 1.0, 0.0, np.nan])
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["sensitivity"] == found["precision"] == found["f1"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(1 / 2)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    costs = [math.log1p(math.exp(x)) for x in (-2.0, 1.0, 1.0, -0.5, -2.0)]
    assert found["log_loss"] == pytest.approx(sum(costs) / 5)


def test_every_resample_equals_sklearn_with_weights() -> None:
    generator = np.random.default_rng(0)
    scores, truth = generator.normal(size=300), (generator.random(300) < 0.3).astype(float)
    counts = generator.integers(0, 4, (6, 300)).astype(float)
    found = thresholded_figures(scores, truth, 0.3, counts)
    called = scores >= 0.3
    for draw, weights in enumerate(counts):
        keywords = {"sample_weight": weights}
        expected = [
            accuracy_score(truth, called, **keywords),
            recall_score(truth, called, **keywords),
            recall_score(truth, called, pos_label=0, **keywords),
            precision_score(truth, called, **keywords),
            f1_score(truth, called, **keywords),
            balanced_accuracy_score(truth, called, **keywords),
            log_loss(truth, 1 / (1 + np.exp(-scores)), **keywords),
        ]
        assert found[:, draw] == pytest.approx(expected)


def test_what_is_not_defined_is_nan_and_not_zero() -> None:
    nothing_called = figures([-1.0, -2.0], [1.0, 0.0])
    assert np.isnan(nothing_called["precision"])
    assert (nothing_called["f1"], nothing_called["sensitivity"]) == (0.0, 0.0)
    no_positive = figures([1.0, -2.0], [0.0, 0.0])
    assert np.isnan([no_positive[name] for name in ("sensitivity", "f1", "balanced_accuracy")]).all()
    assert (no_positive["precision"], no_positive["specificity"], no_positive["accuracy"]) == (0.0, 0.5, 0.5)
    assert np.isnan(list(figures([1.0, -2.0], [np.nan, np.nan]).values())).all()


def test_log_loss_is_ln_two_for_scores_that_say_nothing_and_finite_for_huge_ones() -> None:
    assert figures([0.0, 0.0], [1.0, 0.0])["log_loss"] == pytest.approx(math.log(2))
    assert figures([1e4, -1e4], [1.0, 0.0])["log_loss"] == 0.0
    assert figures([-1e4, 1e4], [1.0, 0.0])["log_loss"] == pytest.approx(1e4)


def test_log_loss_does_not_see_the_threshold() -> None:
    low, high = (figures([2.0, 1.0, -1.0], [1.0, 0.0, 1.0], threshold=cut) for cut in (-5.0, 5.0))
    assert low["log_loss"] == high["log_loss"]
    assert (low["sensitivity"], high["sensitivity"]) == (1.0, 0.0)


def test_a_share_of_nothing_is_nan() -> None:
    assert share(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
