"""How the tests run the bundle: in this process for speed, or as users do, by `python -m monai.bundle run`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[2] / "bundles" / "medclip"
CONFIGS = BUNDLE / "configs"
TASKS = ("train", "evaluate", "inference", "explain", "zero_shot", "probe", "retrieve", "audit")
OVERLAYS = ("iu_xray", "dermoscopy", "precomputed", "manifest", "ct")
APART = {
    "astra": "extract",
    "comparison": "explain",
    "fine_tuned": "train",
    "frozen_encoder": "probe",
    "nodule_features": "train",
    "pretrained": "evaluate",
    "probe_classifier": "explain",
}
"""Overlays that change the network and go with any data, each with a task that it is for."""
COLLECTIONS = ("derm7pt", "ph2")
"""Overlays on dermoscopy.json for published collections."""
SLICES = ("slices", "pretrained_slices")
"""Overlays on ct.json that read volumes slice by slice."""
NO_OVERLAYS = {*TASKS, *APART, *COLLECTIONS, *SLICES, "nodule_points", "metadata", "mlflow", "extract", "sweep"}
RECIPES = tuple(sorted({path.stem for path in CONFIGS.glob("*.json")} - NO_OVERLAYS - {*OVERLAYS}))
"""Overlays on manifest.json for a part of the shared data."""

TINY = {"batch_size": 4, "threads": 1, "device": "cpu"}
TINY_PHANTOM: dict[str, Any] = {**TINY, "patients": 40, "phantom_splits": {"train": 20, "val": 10, "test": 10}}


def own_data(overlay: str, fixture: Callable[[str], Any]) -> dict[str, Any]:
    """Options that put an overlay on the data and checkpoints that fixtures have made."""
    own: dict[str, dict[str, str]] = {
        "iu_xray": {"dataset_dir": "iu_xray", "image_model": "image_model", "text_model": "text_model"},
        "dermoscopy": {"manifest": "captions", "clip_model": "clip_model"},
        "precomputed": {"manifest": "features", "text_model": "text_model"},
        "manifest": {"manifest": "own_manifest"},
        "ct": {"dataset_dir": "phantom_ct"},
    }
    chosen: dict[str, Any] = {key: str(fixture(name)) for key, name in own[overlay].items()}
    chosen |= {
        "dermoscopy": {"clip_weights": None},
        "precomputed": {"feature_width": 16, "findings": ["nodule"]},
        "manifest": {"findings": ["nodule"], "image_encoder__image_size": 32, "on_error": "skip"},
        "ct": {**TINY_PHANTOM, "findings": ["nodule", "pleural effusion"]},
    }.get(overlay, {})
    return {**TINY, **chosen}


def files(task: str, overlay: str | None = None) -> list[str]:
    """The task's config and its overlay; `manifest+nodules` is an overlay on an overlay."""
    names = [task, *(overlay.split("+") if overlay else [])]
    return [str(CONFIGS / f"{name}.json") for name in names]


def workflow(task: str, overlay: str | None = None, **overrides: Any) -> ConfigWorkflow:
    """An initialized workflow; `::` in the names of overrides is written as `__`."""
    kind = "infer" if task == "inference" else "train" if task == "train" else None
    overrides = {name.replace("__", "::"): value for name, value in overrides.items()}
    made = ConfigWorkflow(files(task, overlay), logging_file=False, workflow_type=kind, **overrides)
    made.initialize()
    return made


def run(task: str, overlay: str | None = None, **overrides: Any) -> ConfigWorkflow:
    """Run a task in this process."""
    made = workflow(task, overlay, **overrides)
    made.run()
    made.finalize()
    return made


def run_as_user(config_files: list[str], folder: Path, *, expect: int = 0, **overrides: Any) -> str:
    """Run from a folder of one's own, with overrides on the command line; returns what was printed."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config_files)]
    for name, value in overrides.items():
        command += [f"--{name.replace('__', '::')}", str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
