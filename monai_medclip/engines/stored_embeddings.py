"""What a folder of embeddings is known by: the network's numbers, the items' facts and the state of their files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..index import EmbeddingIndex

__all__ = ["file_states", "index_record", "opened_index", "weights_digest"]

Item = Mapping[str, Any]


def opened_index(folder: Path, width: int, model: str) -> EmbeddingIndex:
    """The index of a folder, or an empty one where there is none, or only what a run that was killed has left."""
    if (folder / "index.json").is_file():
        return EmbeddingIndex(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return EmbeddingIndex.create(folder, width, model=model)


def weights_digest(network: nn.Module, *settings: str) -> str:
    """What identifies a network: its class, all its numbers and some settings, as 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([type(network).__name__, *settings]).encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def index_record(item: Item, raw: Mapping[str, Item]) -> dict[str, Any]:
    """What stands beside an embedding in the index: who it is, and the report as it was written."""
    own = raw[str(item["id"])]
    return {
        "id": str(own["id"]),
        "patient_id": str(own.get("patient_id", own["id"])),
        "study_id": str(own.get("study_id", "")),
        "view": str(own.get("view", "")),
        "image": str(own.get("image", "")),
        "labels": list(own.get("labels", ())),
        "text": str(own.get("text", "")),
        "positives": int(item["positives"]),
    }


def file_states(items: Sequence[Item], key: str) -> list[list[int]]:
    """Size and time of change of every file, so that a changed image is embedded again."""
    states = []
    for item in items:
        path = Path(str(item.get(key, "")))
        states.append([path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [])
    return states
