"""The reliability diagram shows the report's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from monai_medclip.metrics import calibration
from monai_medclip.writers import reliability_figure
from monai_medclip.writers.saving import figure_png


def test_points_are_the_bins() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=400) * 3
    labels = (generator.random(400) < expit(logits / 2)).astype(float)
    reports = {
        name: calibration(expit(logits / t), labels) for name, t in (("as trained", 1.0), ("temperature 2", 2.0))
    }
    figure = reliability_figure(reports, title="nodule")
    curve, counts = figure.axes
    drawn = {line.get_label().split(":")[0]: line for line in curve.get_lines()}
    for name, report in reports.items():
        assert drawn[name].get_xdata() == pytest.approx([one.predicted for one in report.bins])
        assert drawn[name].get_ydata() == pytest.approx([one.observed for one in report.bins])
        assert f"ECE {report.ece:.3f}" in drawn[name].get_label()
    assert [sum(line.get_ydata()) for line in counts.get_lines()] == [400, 400]
    assert figure_png(figure).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no report"):
        reliability_figure({})
