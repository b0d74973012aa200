"""Loading weights: only tensors, never code, from a file, and never in silence about what was missing."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["check_missing", "load_state_dict", "load_weights"]

WRAPPERS = ("model", "network", "state_dict", "net")  # where trainers keep the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.")  # left behind by DistributedDataParallel and torch.compile


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file: ``.safetensors``, or a torch file read with ``weights_only=True``.

    A checkpoint of a trainer, such as the bundle's, keeps the weights under ``model``, ``network`` or ``state_dict``:
    that part is returned. Prefixes of DistributedDataParallel and torch.compile are removed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, holds anything but plain data, or no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: train one first, or correct the path")
    state = _read(path)
    for key in WRAPPERS:
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    tensors = {_without_prefixes(str(key)): value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no weights under {', '.join(WRAPPERS)} nor at its top: save a state_dict")
    return tensors


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is not a checkpoint that can be read without running code from it: save it again as a state_dict "
            f"of tensors or as .safetensors ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state_dict: save model.state_dict()")
    return state


def _without_prefixes(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key


def load_weights(network: nn.Module, path: str | Path, *, part: str = "", ignore_extra: bool = False) -> None:
    """Load a checkpoint into a network, exactly: the same names, the same shapes.

    Args:
        network: takes the weights in place.
        path: checkpoint file; see load_state_dict.
        part: prefix of the keys to take, such as ``"image_encoder."`` to load one tower out of a CLIP.
        ignore_extra: leave out weights that the network does not have, such as a classifier's head.

    Raises:
        ValueError: if weights are missing, left over, or of another shape; names them, and the remedy.
    """
    state = load_state_dict(path)
    if part:
        state = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
    own = network.state_dict()
    check_missing([key for key in own if key not in state], path, network)
    extra = [key for key in state if key not in own]
    state = {key: value for key, value in state.items() if key in own}
    if extra and not ignore_extra:
        raise ValueError(
            f"{path} holds {len(extra)} weights that {type(network).__name__} does not have: {_some(extra)}. "
            "Build the network with the configuration that it was trained with, or name a part to load."
        )
    shapes = [
        f"{k} {tuple(v.shape)} instead of {tuple(own[k].shape)}" for k, v in state.items() if v.shape != own[k].shape
    ]
    if shapes:
        raise ValueError(
            f"{path} does not fit {type(network).__name__}: {_some(shapes)}. Build the network with the sizes that it "
            "was trained with (image size, vocabulary, widths)."
        )
    network.load_state_dict(state)


def check_missing(missing: Iterable[str], path: str | Path, network: nn.Module) -> None:
    """Raise a ValueError that names the weights a checkpoint lacks, if there are any."""
    keys = list(missing)
    if keys:
        raise ValueError(
            f"{path} lacks {len(keys)} weights of {type(network).__name__}: {_some(keys)}. They would stay random: use "
            "the checkpoint of this very architecture, or build the architecture of this checkpoint."
        )


def _some(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
