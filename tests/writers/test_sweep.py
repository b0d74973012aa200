"""One panel per setting that varies, one point per run, the highest run marked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.writers.sweep import SweepRun, sweep_figure, varied_settings

from .drawn import cut_texts, words

RUNS = [
    SweepRun({"learning rate": rate, "rule": rule, "seed": 0}, value, interval)
    for rate, rule, value, interval in [
        (1e-4, "name", 0.6, (0.5, 0.7)),
        (1e-4, "positive minus negative", 0.7, None),
        (1e-2, "name", 0.9, None),
        (1e-2, "positive minus negative", math.nan, None),
    ]
]


def test_only_what_varies_gets_a_panel() -> None:
    assert varied_settings(RUNS) == ("learning rate", "rule")
    figure = sweep_figure(RUNS, measure="macro AUC", title="sweep")
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning rate", "rule"]
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear"]
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks == [["0.0001", "0.01"], ["name", "positive minus\nnegative"]]
    assert cut_texts(figure) == []


def test_points_medians_and_the_highest_run() -> None:
    figure = sweep_figure(RUNS, measure="macro AUC")
    interval, points, *medians, best = figure.axes[0].get_lines()
    assert tuple(interval.get_ydata()) == (0.5, 0.7)
    np.testing.assert_allclose(points.get_xydata(), [[1e-4, 0.6], [1e-4, 0.7], [1e-2, 0.9]])
    assert [float(line.get_ydata()[0]) for line in medians] == pytest.approx([0.65, 0.9])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1e-2, 0.9)
    said = words(figure).replace("\n", " ")
    assert "the highest run (learning rate 0.01, rule name)" in said
    assert "1 of 4 runs gave no figure" in said


def test_many_settings_take_several_rows_and_no_empty_panel() -> None:
    runs = [SweepRun({f"setting {n}": n * run for n in range(1, 6)}, run / 10) for run in range(1, 9)]
    figure = sweep_figure(runs, measure="AUC")
    assert len(figure.axes) == 5
    assert cut_texts(figure) == []


def test_what_is_no_sweep_is_refused() -> None:
    with pytest.raises(ValueError, match=r"varied settings \[\]"):
        sweep_figure(RUNS[:1], measure="AUC")
    with pytest.raises(ValueError, match="0 runs with a value"):
        sweep_figure([run._replace(value=math.nan) for run in RUNS], measure="AUC")
    with pytest.raises(ValueError, match="name all in each"):
        sweep_figure([*RUNS, SweepRun({"width": 1}, 0.5)], measure="AUC")
