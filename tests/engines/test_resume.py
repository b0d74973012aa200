"""A run killed in mid-epoch and resumed is the uninterrupted run, bit for bit."""

from __future__ import annotations

import hashlib
import multiprocessing
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("training.py")
# Children are forked from a server that has imported the libraries but used none: quick, and as good as new ones.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["monai.transforms", "monai.handlers", "monai_medclip.engines"])


def run(*arguments: object) -> int:
    """Runs the script as a process of its own; returns its exit code, minus the signal's number if it was killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])  # children inherit the command line
        process = PROCESSES.Process(target=runpy.run_path, args=(str(SCRIPT),), kwargs={"run_name": "__main__"})
        process.start()
    process.join(timeout=300)
    assert process.exitcode is not None, "training hangs"
    return process.exitcode


def digest(value: Any) -> str:
    """SHA-256 of everything in a checkpoint: names, numbers and the bytes of tensors."""
    if isinstance(value, torch.Tensor):
        value = (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes().hex())
    elif isinstance(value, dict):
        value = [(key, digest(entry)) for key, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        value = [digest(entry) for entry in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def results(folder: Path) -> dict[str, str]:
    states = {name: torch.load(folder / name, weights_only=True) for name in ("last.pt", "model.pt")}
    last = states.pop("last.pt")
    tensors = {f"last.pt {part}": digest(state) for part, state in last.items()} | {"model.pt": digest(states)}
    return tensors | {"history.csv": hashlib.sha256((folder / "history.csv").read_bytes()).hexdigest()}


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_epoch_and_resumed_equals_uninterrupted(tmp_path: Path, workers: int) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, "--workers", workers) == 0
    assert run(broken, "--workers", workers, "--die_at", 8) == -signal.SIGKILL  # the third iteration of epoch 2
    assert len((broken / "history.csv").read_text().splitlines()) == 1 + 1
    assert results(broken) != results(whole)
    assert run(broken, "--workers", workers, "--resume") == 0
    assert results(broken) == results(whole)
