"""MLflow by MONAI's own switch and our settings for it, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .runs import CONFIGS, TINY_PHANTOM, files, run_as_user


def test_mlflow_records_losses_and_validation(phantom: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow needs the mlflow extra")
    options = {**TINY_PHANTOM, "dataset_dir": phantom, "max_epochs": 1}
    run_as_user(files("train"), tmp_path, **options, tracking=CONFIGS / "mlflow.json")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'medclip_output' / 'mlruns.db'}")
    (found,) = mlflow.search_runs(experiment_names=["medclip"], output_format="list")
    assert found.data.metrics["train_loss"] > 0
    assert 0 <= found.data.metrics["tie_aware_text_to_image_recall_at_5"] <= 1
    assert "tie_aware_text_to_image_recall_at_1" in found.data.metrics
