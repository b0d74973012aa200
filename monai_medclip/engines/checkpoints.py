"""Checkpoints: the last state of a run, from which it goes on exactly, and the best weights."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Workflow
from torch import nn

from .early_stopping import metric_of
from .files import atomic_write

__all__ = ["BestCheckpoint", "LastCheckpoint"]

logger = logging.getLogger(__name__)


class LastCheckpoint:
    """Handler that saves the whole state of a run after every epoch and goes on from it; attach it last.

    Stock ``CheckpointSaver`` and ``CheckpointLoader`` keep neither an engine's best metric nor the gradient scaler,
    which MONAI makes only when the run starts. Random states need no keeping: ``EpochSeeder`` makes them anew.

    Args:
        output_dir: folder of the run; the file is ``last.pt`` in it.
        states: everything that changes in training, by name: objects with ``state_dict`` and ``load_state_dict``
            (network, optimizer, scheduler, history, early stopping, best checkpoint), and MONAI evaluators for their
            best metric. The trainer itself and its gradient scaler are kept without being named. Under the name
            ``network``, the weights are where ``networks.load_weights`` looks for them.
        resume: go on from the file when training starts.
    """

    def __init__(self, output_dir: str, states: Mapping[str, Any], resume: bool = False) -> None:
        """See the class."""
        self.path = Path(output_dir) / "last.pt"
        self.states = dict(states)
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)

    def _save(self, engine: Any) -> None:
        states = {name: _state_of(part) for name, part in self._parts(engine).items()}
        position = {key: getattr(engine.state, key) for key in ("epoch", "iteration", "epoch_length", "max_epochs")}
        with atomic_write(self.path) as file:
            torch.save({"position": position, **states}, file)

    def _start(self, engine: Any) -> None:
        if self.resume:
            self._load(engine)
        elif self.path.exists():
            logger.warning("%s is of an earlier run and will be replaced: resume was not asked for.", self.path)

    def _load(self, engine: Any) -> None:
        checkpoint = _read(self.path, engine.state.device)
        if not isinstance(checkpoint, dict) or "position" not in checkpoint:
            raise ValueError(f"{self.path} is not a checkpoint of a run: resume reads the last.pt that training wrote.")
        position, parts = checkpoint["position"], self._parts(engine)
        states = {name: state for name, state in checkpoint.items() if name != "position"}
        self._check(engine, position, states)
        for name, part in parts.items():
            try:
                _restore(part, states[name])
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}: the saved state of '{name}' does not fit this configuration ({error}). Resume "
                    "with the configuration in run.json beside it, or start again without resume."
                ) from error
        engine.state.epoch, engine.state.iteration = position["epoch"], position["iteration"]
        logger.info("Resumed from %s after epoch %d.", self.path, position["epoch"])

    def _check(self, engine: Any, position: Mapping[str, Any], states: Mapping[str, Any]) -> None:
        missing, extra = self._parts(engine).keys() - states.keys(), states.keys() - self._parts(engine).keys()
        if missing or extra:
            raise ValueError(
                f"{self.path} holds other parts than this run: missing {sorted(missing)}, unknown {sorted(extra)}. "
                "Resume with the configuration in run.json beside it, or start again without resume."
            )
        if position["epoch_length"] != engine.state.epoch_length:
            raise ValueError(
                f"{self.path} comes from epochs of {position['epoch_length']} iterations, this run has "
                f"{engine.state.epoch_length}: data or batch size changed. Restore them, or start again without resume."
            )
        if position["max_epochs"] != engine.state.max_epochs:
            logger.warning(
                "%s was to train %d epochs and now %d: the learning rates follow the new schedule from here on.",
                self.path,
                position["max_epochs"],
                engine.state.max_epochs,
            )

    def _parts(self, engine: Any) -> dict[str, Any]:
        scaler = {} if engine.scaler is None else {"scaler": engine.scaler}
        return {**self.states, "trainer": engine, **scaler}


class BestCheckpoint:
    """Handler that keeps the network's weights of the best validation; attach it after the ``ValidationHandler``.

    Stock ``CheckpointSaver`` forgets the best figure when a run is resumed with another trainer object.

    Args:
        output_dir: folder of the run; the file is ``model.pt`` in it, a plain ``state_dict``.
        network: module whose weights are kept.
        validator: evaluator whose metric decides.
        metric: name of the metric.
        mode: ``"max"`` when higher is better, ``"min"`` when lower is.
    """

    def __init__(self, output_dir: str, network: nn.Module, validator: Any, *, metric: str, mode: str = "max") -> None:
        """See the class."""
        if mode not in ("max", "min"):
            raise ValueError(f"mode is '{mode}': it must be 'max' (higher is better) or 'min'.")
        self.path = Path(output_dir) / "model.pt"
        self.network = network
        self.validator = validator
        self.metric = metric
        self.mode = mode
        self.best: float | None = None
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Saves the weights if this epoch's validation is the best so far; equal figures keep the earlier weights."""
        value = metric_of(self.validator, self.metric, epoch=engine.state.epoch)
        if value is None or not self._is_better(value):
            return
        self.best, self.epoch = value, engine.state.epoch
        with atomic_write(self.path) as file:
            torch.save(self.network.state_dict(), file)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return value == value  # NaN is never the best
        return value > self.best if self.mode == "max" else value < self.best

    def state_dict(self) -> dict[str, Any]:
        """Best figure and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
            ValueError: when the best weights are gone.
        """
        self.best, self.epoch = state["best"], state["epoch"]
        if self.best is not None and not self.path.exists():
            raise ValueError(f"{self.path}, the best weights so far (epoch {self.epoch}), is gone: put it back")


def _read(path: Path, device: Any) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint. Training writes it after the first epoch: name the folder of a run, or start "
            "without resume."
        )
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged, or not a file of weights. "
            "Delete it and start again without resume, or copy it anew."
        ) from error


def _state_of(part: Any) -> Any:
    if isinstance(part, Workflow):  # an engine's own state_dict lacks its best metric
        return {"best_metric": float(part.state.best_metric), "best_metric_epoch": part.state.best_metric_epoch}
    return part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, Workflow):
        for key, value in state.items():
            setattr(part.state, key, value)
    else:
        part.load_state_dict(state)
