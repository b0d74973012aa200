"""A trained run as a MONAI bundle of its own, to be handed on and served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..bundle_folder import bundle_root
from .files import write_json
from .run_config import PACKED_CONFIG, trained_config

__all__ = ["pack_bundle"]

_FROM_RUN = ("model.pt", "tokenizer", "metrics.json")  # the record names folders of the machine that trained
_FROM_BUNDLE = ("LICENSE", "docs", "configs/metadata.json", "configs/logging.conf")


def pack_bundle(run: str | Path, folder: str | Path) -> Path:
    """Write a bundle that holds what a trained run needs to answer: configuration, weights, tokenizer.

    Args:
        run: a training run's output folder.
        folder: of the bundle; new or empty.

    Returns:
        The folder: ``configs/explain.json`` (``python -m monai.bundle run --config_file FOLDER/configs/explain.json
        --bundle_root FOLDER --image FILE``), ``configs/metadata.json``, ``models``, ``docs``, ``LICENSE``.

    Raises:
        FileNotFoundError: the run is not trained.
        FileExistsError: the folder holds something.
    """
    run, folder = Path(run).expanduser(), Path(folder).expanduser()
    config = trained_config(run)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name a new folder.")
    for name in _FROM_BUNDLE:
        _copy(Path(bundle_root()) / name, folder / name)
    for name in _FROM_RUN:
        if (run / name).exists():
            _copy(run / name, folder / "models" / name)
    own = {"bundle_root": ".", "output_dir": "$@bundle_root + '/models'", "explanation_dir": "explanations"}
    write_json(folder / PACKED_CONFIG, json.loads(json.dumps(config)) | own)
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
