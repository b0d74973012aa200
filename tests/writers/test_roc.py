"""Curves are scikit-learn's, the legend says the AUC, the point is where the threshold puts it."""

from __future__ import annotations

import numpy as np
import pytest

from monai_medclip.metrics import classification
from monai_medclip.writers.roc import roc_figure

from .drawn import cut_texts, words

SCORES = np.array([[0.1, 0.2], [0.4, 0.9], [0.35, 0.3], [0.8, 0.1], [9.9, 0.0]])
LABELS = np.array([[0, 1], [0, 1], [1, 1], [1, np.nan], [np.nan, 1]], float)


def test_the_curve_the_auc_and_the_threshold_of_a_known_case() -> None:
    figure = roc_figure(SCORES, LABELS, ["nodule", "mass"], thresholds=[0.4, 0.0], intervals=[(0.6, 0.9), None])
    axes = figure.axes[0]
    chance, curve, point, missing = axes.get_lines()
    assert chance.get_label() == "chance 0.500"
    assert curve.get_label() == "nodule 0.750 [0.600, 0.900]"
    np.testing.assert_allclose(curve.get_xdata(), [0, 0, 0.5, 0.5, 1])
    np.testing.assert_allclose(curve.get_ydata(), [0, 0.5, 0.5, 1, 1])
    report = classification(SCORES[:, :1], LABELS[:, :1], ["nodule"], threshold=0.4).findings[0]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == (1 - report.specificity, report.sensitivity) == (0.5, 0.5)
    assert missing.get_label() == "mass not measurable: no negatives"
    assert "points: the chosen threshold" in words(figure)


def test_without_thresholds_there_are_no_points_and_no_word_about_them() -> None:
    figure = roc_figure(SCORES, LABELS, ["nodule", "mass"])
    assert len(figure.axes[0].get_lines()) == 3
    assert "threshold" not in words(figure)


def test_fourteen_findings_stay_apart_and_inside() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random((40, 14)) < 0.5).astype(float)
    names = [f"finding {number} of a certain length" for number in range(14)]
    figure = roc_figure(generator.normal(size=(40, 14)), labels, names, intervals=[(0.1, 0.9)] * 14)
    assert cut_texts(figure) == []
    lines = figure.axes[0].get_lines()[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 14


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must both be \(B, 1\)"):
        roc_figure(SCORES, LABELS, ["nodule"])
    with pytest.raises(ValueError, match="1 thresholds for 2 findings"):
        roc_figure(SCORES, LABELS, ["nodule", "mass"], thresholds=[0.0])
