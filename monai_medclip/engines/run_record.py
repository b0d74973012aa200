"""What made a run's figures: its configuration, versions, seed and data, written beside them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from .files import write_json

__all__ = ["RunRecord", "data_hashes", "write_run_record"]

_PACKAGES = (
    "monai-medclip",
    *("monai", "torch", "torchvision", "pytorch-ignite", "transformers", "tokenizers", "open_clip_torch", "timm"),
    *("numpy", "scipy", "scikit-learn", "scikit-image", "pydicom", "nibabel", "pillow"),
)
_FACTS = ("id", "patient_id", "study_id", "view", "split", "text", "labels", "label", "features_sha256")

Item = Mapping[str, Any]


class RunRecord:
    """Handler that writes ``run.json`` when training starts; attach it before ``LastCheckpoint``.

    Args:
        output_dir: folder of the run.
        seed: the run's seed.
        items: the data by split name: lists of items as the ``data`` room makes them.
        resume: the run goes on from a checkpoint: data and seed must be those of the record.
    """

    def __init__(
        self, output_dir: str, *, seed: int, items: Mapping[str, Sequence[Item]], resume: bool = False
    ) -> None:
        """See the class."""
        self.output_dir = output_dir
        self.seed = seed
        self.items = items
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Writes the record; by now everything that the run uses has been built from the configuration."""
        write_run_record(self.output_dir, seed=self.seed, items=self.items, resume=self.resume)


def write_run_record(
    output_dir: str,
    *,
    seed: int,
    items: Mapping[str, Sequence[Item]],
    config: ConfigParser | Mapping[str, Any] | None = None,
    resume: bool = False,
    name: str = "run.json",
) -> Path:
    """Writes what made a run's figures.

    Args:
        output_dir: folder of the run.
        seed: the run's seed.
        items: the data by split name.
        config: the configuration; by default that of the bundle in whose expression this function is called.
        resume: the run goes on: data and seed must be those of the record that is there.
        name: file name in the folder.

    Returns:
        The file, JSON: ``config`` (all files merged, with overrides), ``resolved`` (values that its references and
        expressions came to), ``seed``, ``data`` (count and hash per split), ``packages``, ``environment``, ``command``.

    Raises:
        ValueError: when a resumed run has other data or another seed.
    """
    path = Path(output_dir) / name
    config = _calling_parser() if config is None else config
    record = {
        "seed": seed,
        "data": {split: {"items": len(found), "sha256": data_hashes(found)} for split, found in items.items()},
        "packages": {package: _version(package) for package in _PACKAGES},
        "environment": _environment(),
        "command": list(sys.argv),
        "resumed": resume,
        "config": deepcopy(config.get()) if isinstance(config, ConfigParser) else config,
        "resolved": _resolved(config) if isinstance(config, ConfigParser) else {},
    }
    if resume and path.exists():
        _check_same(path, record)
    return write_json(path, record)


def data_hashes(items: Iterable[Item], file_keys: Sequence[str] = ("image",)) -> str:
    """One hash of all items: their files' bytes, texts, labels and ids, wherever the files lie.

    Args:
        items: items with paths, or with arrays, under the file keys.
        file_keys: entries that name a file, a folder (a DICOM series) or several files.

    Returns:
        SHA-256 in hexadecimal; it depends on the order of the items, as training does.
    """

    def digest(item: Item) -> bytes:
        facts = {key: _plain(item[key]) for key in _FACTS if key in item}
        # One array holds the features of many items: it was hashed row by row when they were read.
        keys = file_keys if "features_sha256" in item else (*file_keys, "features")
        files = [_content_hash(item[key]) for key in keys if key in item]
        return hashlib.sha256(json.dumps([facts, files], sort_keys=True, default=str).encode()).digest()

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:  # hashing leaves Python's lock
        return hashlib.sha256(b"".join(pool.map(digest, items))).hexdigest()


def _content_hash(content: Any) -> str:
    if isinstance(content, (str, Path)):
        return _files_hash([Path(content)])
    if isinstance(content, (list, tuple)) and all(isinstance(entry, (str, Path)) for entry in content):
        return _files_hash([Path(entry) for entry in content])
    return hashlib.sha256(json.dumps(_plain(content), default=str).encode()).hexdigest()


def _files_hash(paths: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in _files(paths):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        else:
            yield path


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _calling_parser() -> ConfigParser | None:
    """The parser whose expression is being evaluated; no expression is given it, so the call stack is searched."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigParser):
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


def _resolved(parser: ConfigParser) -> dict[str, Any]:
    """Plain values of the references and expressions that have been resolved so far, by id."""
    resolver = parser.ref_resolver
    found: dict[str, Any] = {}
    for key, source in _texts(parser.get()):
        # A reference inside a component is replaced there: only its target has a resolved value of its own.
        target = resolver.normalize_id(source[1:]) if source.startswith("@") else key
        if source[:1] in ("$", "@") and target in resolver.resolved_content:
            value = resolver.resolved_content[target]
            found |= {key: value} if _is_plain(value) else {}
    return found


def _texts(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a configuration by id."""
    if isinstance(config, str):
        yield key, config
    elif isinstance(config, (Mapping, list)):
        for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from _texts(value, f"{key}::{name}" if key else str(name))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) < 50 and all(_is_plain(entry) for entry in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),  # sums over threads depend on their number in the last bits
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_same(path: Path, record: Mapping[str, Any]) -> None:
    former = json.loads(path.read_text(encoding="utf-8"))
    for key in ("seed", "data"):
        if former.get(key) != record[key]:
            raise ValueError(
                f"{path}: the run to resume had {key} {former.get(key)}, now it is {record[key]}. Restore the former, "
                "or start again without resume."
            )
