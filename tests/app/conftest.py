"""Bundles that the app's tests serve: whole runs' folders, whose networks have learned nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medclip.engines import BundleModel

from .served import untrained_run


@pytest.fixture(scope="session")
def xray_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of train.json."""
    return untrained_run(tmp_path_factory.mktemp("runs") / "xray")


@pytest.fixture(scope="session")
def ct_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of train.json with ct.json."""
    return untrained_run(tmp_path_factory.mktemp("runs") / "ct", "ct")


@pytest.fixture(scope="session")
def xray_model(xray_run: Path) -> BundleModel:
    return BundleModel.open(xray_run)
