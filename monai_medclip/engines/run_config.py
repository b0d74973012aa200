"""The configuration that asks a trained run: `explain.json`, with what the run changed of `train.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..bundle_folder import bundle_root

__all__ = ["PACKED_CONFIG", "trained_config"]

PACKED_CONFIG = "configs/explain.json"  # where a packed bundle keeps its own
_OWN = ("imports", "initialize", "run", "bundle_root", "output_dir", "device", "amp", "threads", "resume")


def trained_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of a trained model's folder, ready to be parsed.

    A run's record holds its whole training configuration: the one of `train.json` with overlays and overrides. What
    differs there from `train.json` was asked for by the user, and goes on top of `explain.json`; so a run is asked as
    it was trained, whatever its encoder, volumes or windows are.

    Args:
        folder: a training run's output folder (``run.json``, ``model.pt``, ``tokenizer``), or a packed bundle
            (``configs/explain.json``, ``models``; see `pack_bundle`).

    Returns:
        The configuration, whose ``output_dir`` is where weights and tokenizer lie.

    Raises:
        FileNotFoundError: the folder is neither, or has no weights.
        ValueError: the record is damaged.
    """
    folder = Path(folder).expanduser().resolve()
    packed = folder / PACKED_CONFIG
    if packed.is_file() and (folder / "models").is_dir():
        config, weights = _read(packed), folder / "models"
    elif (folder / "run.json").is_file():
        config, weights = _asking(_read(folder / "run.json")["config"]), folder
    else:
        raise FileNotFoundError(
            f"{folder} is no trained bundle: neither run.json of a training run nor {PACKED_CONFIG} with models/. "
            "Give the output_dir of a run of train.json, or a folder that `python -m monai_medclip pack` wrote."
        )
    if not (weights / "model.pt").is_file():
        raise FileNotFoundError(f"{weights} has no model.pt: the training has not finished an epoch. Train it first.")
    return config | {"output_dir": str(weights), "device": "cpu", "amp": False, "resume": False}


def _asking(run: dict[str, Any]) -> dict[str, Any]:
    """Three-way merge: what a run changed of `train.json`, on top of `explain.json`."""
    configs = Path(bundle_root()) / "configs"
    train, explain = _read(configs / "train.json"), _read(configs / "explain.json")
    changed = {key: value for key, value in run.items() if key not in train or train[key] != value}
    config = explain | {key: value for key, value in changed.items() if key not in _OWN}
    config["imports"] = list(dict.fromkeys([*explain["imports"], *run.get("imports", [])]))
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        found = ConfigParser.load_config_file(str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}): copy it again from the run that wrote it.") from error
    return dict(found)
