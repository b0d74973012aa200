"""Figures are rounded in one way, intervals stay with their figures, and tables can be read aloud."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.writers.tables import Table, cell_text, figure_text, table_html, table_of


@pytest.mark.parametrize(
    "value, interval, text",
    [
        (0.9117, (0.88, 0.9414), "0.912 [0.880, 0.941]"),
        (0.5, None, "0.500"),
        (-0.0214, (-0.1, 0.05), "-0.021 [-0.100, 0.050]"),
        (9.5, (8.0, 12.25), "9.5 [8.0, 12.2]"),
        (0.0, None, "0.000"),
        (0.000412, None, "0.000412"),  # not a flat zero, which it is not
        (math.nan, (0.1, 0.2), "not measurable"),
        (None, None, "not measurable"),
        (0.5, (math.nan, 1.0), "0.500 [not measurable]"),
    ],
)
def test_figures_and_their_intervals(value, interval, text) -> None:
    assert figure_text(value, interval) == text


@pytest.mark.parametrize(
    "cell, text",
    [
        (np.float32(0.25), "0.250"),
        (np.int64(1200), "1200"),
        (True, "yes"),
        (np.False_, "no"),
        (None, "not measurable"),
        (["nodule", 3], "nodule, 3"),
        ("as it is", "as it is"),
    ],
)
def test_cells(cell, text) -> None:
    assert cell_text(cell) == text


def test_rows_by_column_become_a_table_whose_figures_hold_their_intervals() -> None:
    rows = [
        {"input": "text", "auc": 0.97, "auc_low": 0.95, "auc_high": 0.98, "test items": 40},
        {"input": "image", "auc": math.nan, "auc_low": None, "auc_high": None, "test items": 0},
    ]
    table = table_of(rows, "inputs")
    assert list(table.columns) == ["input", "AUC", "test items"]
    assert [list(row) for row in table.rows] == [["text", "0.970 [0.950, 0.980]", 40], ["image", "not measurable", 0]]


def test_bounds_without_their_figure_stay_columns() -> None:
    assert list(table_of([{"finding": "mass", "low": 0.1, "high": 0.2}], "bounds").columns) == [
        "finding",
        "low",
        "high",
    ]


def test_heads_and_caption_say_what_they_are_of() -> None:
    html = table_html(Table(["<finding>", "AUC"], [["a & b", 0.5]], 'figures "now"'))
    assert "<caption>figures &quot;now&quot;</caption>" in html
    assert '<th scope="col">&lt;finding&gt;</th><th scope="col">AUC</th>' in html
    assert '<tr><th scope="row">a &amp; b</th><td class="short">0.500</td></tr>' in html
    assert 'role="region"' in html
    assert 'tabindex="0"' in html  # it scrolls by keyboard


def test_long_texts_wrap_and_figures_do_not() -> None:
    html = table_html(Table(["id", "report", "AUC"], [["1", "No effusion. " * 9, "0.912 [0.880, 0.941]"]], "caption"))
    assert html.count('<td class="short">') == 1
    assert '<td class="short">0.912 [0.880, 0.941]</td>' in html


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 of table 'figures' has 1 cells for 2 columns"):
        table_html(Table(["a", "b"], [["x", 1], ["y"]], "figures"))
    with pytest.raises(ValueError, match="caption"):
        table_html(Table(["a"], [], " "))
    with pytest.raises(ValueError, match="same columns"):
        table_of([{"a": 1}, {"b": 1}], "figures")
    with pytest.raises(ValueError, match="needs rows"):
        table_of([], "figures")
