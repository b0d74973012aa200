"""Figures that a run must reach: read from its metrics.json, a missing one counts as missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medclip.engines import required_figures, write_json

RETRIEVAL = {"tie_aware_text_to_image_recall@5": 0.3, "tie_aware_text_to_image_chance@5": 0.02}


def test_each_limit_meets_its_figure(tmp_path: Path) -> None:
    zero_shot = {"macro_auc": 0.95, "nodule_auc": 0.87}
    write_json(tmp_path / "metrics.json", {"zero_shot": zero_shot, "retrieval": RETRIEVAL})
    figures = required_figures(tmp_path, zero_shot_auc=0.93, nodule_auc=0.88, recall_over_chance=10)
    assert [figure.value for figure in figures] == pytest.approx([0.95, 0.87, 15.0])
    assert [figure.reached for figure in figures] == [True, False, True]
    assert str(figures[1]) == "zero_shot/nodule_auc is 0.870, at least 0.88 is required: MISSED"
    assert [figure.name for figure in required_figures(tmp_path, nodule_auc=0.5)] == ["zero_shot/nodule_auc"]


def test_a_figure_that_is_missing_or_not_finite_is_missed(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"zero_shot": {"macro_auc": float("nan")}, "retrieval": {}})
    figures = required_figures(tmp_path, zero_shot_auc=0.0, nodule_auc=0.0, recall_over_chance=0.0)
    assert [figure.reached for figure in figures] == [False, False, False]


def test_a_run_that_was_not_evaluated_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="evaluate that run first"):
        required_figures(tmp_path, nodule_auc=0.5)
