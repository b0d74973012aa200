from pathlib import Path

import pytest

from monai_medclip.engines import FigureSummary, summarize_runs, write_json


def test_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    for seed, auc in enumerate((0.9, 0.92, 0.97)):
        content = {"zero_shot": {"macro_auc": auc, "rule": "name"}, "items": {"test": 10}, "only": None}
        write_json(tmp_path / str(seed) / "metrics.json", content)
    summary = summarize_runs(tmp_path / str(seed) for seed in range(3))
    found = {one.name: one for one in summary.figures}
    assert set(found) == {"zero_shot/macro_auc", "items/test"}
    assert found["zero_shot/macro_auc"][1:] == pytest.approx((0.93, 0.0360555, 0.9, 0.97, 3), rel=1e-4)
    assert summary.table("macro_auc").splitlines()[-1] == (
        "| zero_shot/macro_auc | 0.930 ± 0.036 | 0.900 to 0.970 | 3 |"
    )


def test_one_run_has_no_spread(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"a": 0.5})
    assert summarize_runs([tmp_path]).figures == (FigureSummary("a", 0.5, 0.0, 0.5, 0.5, 1),)


def test_a_folder_without_metrics_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metrics\.json does not exist: evaluate that run first"):
        summarize_runs([tmp_path])
    with pytest.raises(ValueError, match="no runs"):
        summarize_runs([])
