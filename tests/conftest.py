"""Fixtures shared by all tests: where the real test data lies, one thread, fixed seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test images; tests that use it skip where it is absent."""
    folder = Path(os.environ.get("MEDCLIP_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no real test data at {folder}: set MEDCLIP_SHARED_DATA to the folder with its manifest.csv")
    return folder


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
