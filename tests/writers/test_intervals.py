"""Every figure stands on its interval beside its number, under its heading."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.metrics import subgroups
from monai_medclip.writers.intervals import IntervalRow, interval_figure, subgroup_figure

from .drawn import cut_texts, words

ROWS = [
    IntervalRow("nodule", "model", 0.9, (0.85, 0.95)),
    IntervalRow("mass", "model", 0.8, (0.7, 0.9)),
    IntervalRow("nodule", "24 x 24 pixels", 0.6, None),
    IntervalRow("mass", "24 x 24 pixels", math.nan, None),
]


def names(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_rows_stand_under_their_headings_with_their_numbers() -> None:
    figure = interval_figure(ROWS, title="baselines")
    axes = figure.axes[0]
    assert names(figure) == ["nodule", "model", "24 x 24 pixels", "mass", "model", "24 x 24 pixels"]
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["bold", "normal", "normal"] * 2
    numbers = {text.get_position()[1]: text.get_text() for text in axes.texts}
    assert numbers == {1: "0.900 [0.850, 0.950]", 2: "0.600", 4: "0.800 [0.700, 0.900]", 5: "not measurable"}
    assert cut_texts(figure) == []


def test_points_and_intervals_are_where_they_belong() -> None:
    chance, *drawn = interval_figure(ROWS).axes[0].get_lines()
    assert set(chance.get_xdata()) == {0.5}
    where = [(list(map(float, line.get_xdata())), float(line.get_ydata()[0])) for line in drawn]
    assert where == [([0.85, 0.95], 1), ([0.9], 1), ([0.6], 2), ([0.7, 0.9], 4), ([0.8], 4)]
    assert drawn[1].get_color() == drawn[4].get_color() != drawn[2].get_color()  # a method looks the same everywhere


def test_lines_to_compare_with_and_the_measure_are_named() -> None:
    figure = interval_figure(ROWS, measure="recall@5", lines={"chance": 0.02, "ceiling": 0.7})
    said = words(figure)
    assert "chance 0.020" in said
    assert "ceiling 0.700" in said
    assert figure.axes[0].get_xlabel() == "recall@5 with 95 % interval"
    assert interval_figure(ROWS[2:], lines={}).axes[0].get_xlabel() == "AUC"


def test_subgroups_that_differ_look_different_and_are_counted() -> None:
    generator = np.random.default_rng(0)
    labels = np.tile([0.0, 1.0], 100)
    scores = generator.normal(size=200)
    sexes = ["male"] * 100 + ["female"] * 100
    scores[:100] += 4 * labels[:100]  # works for men alone
    rows = subgroups(scores, labels, {"sex": sexes, "view": ["PA", "AP"] * 50 + ["PA"] * 100}, bootstrap=200)
    figure = subgroup_figure(rows, overall=0.75, title="nodule")
    assert names(figure)[:3] == ["sex", "male (50 of 100 positive)", "female (50 of 100 positive)"]
    said = words(figure)
    assert "all items 0.750" in said
    assert "differs from the rest, adjusted p < 0.05" in said
    assert rows[0].adjusted_p_value < 0.05
    assert cut_texts(figure) == []


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        interval_figure([])
    with pytest.raises(ValueError, match="at most three lines"):
        interval_figure(ROWS, lines=dict.fromkeys("abcd", 0.5))
