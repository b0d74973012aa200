"""What happened in each epoch: one row of losses, learning rate and validation figures, kept in a CSV file."""

from __future__ import annotations

import logging
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from .files import write_csv

__all__ = ["History", "validation_metrics"]

logger = logging.getLogger(__name__)


class History:
    """Handler that adds a row after every epoch and writes ``history.csv``; attach it after the ``ValidationHandler``.

    Args:
        output_dir: folder of the run.
        validator: evaluator whose figures go into the row of each epoch that it validated.

    Attributes:
        rows: one mapping per finished epoch with ``epoch``, ``iteration``, ``learning_rate``, ``train_loss`` (mean over
            iterations) and the validator's scalar metrics under their own names.
    """

    def __init__(self, output_dir: str, validator: Any | None = None) -> None:
        """See the class."""
        self.path = Path(output_dir) / "history.csv"
        self.validator = validator
        self.rows: list[dict[str, float]] = []
        self._losses: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._losses.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._add_row)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to an earlier state; rows of later epochs leave the file too."""
        self.rows[:] = [dict(row) for row in state["rows"]]
        write_csv(self.path, self.rows)

    def _add_loss(self, engine: Any) -> None:
        self._losses.append(
            engine.state.output["loss"].detach()
        )  # .item() here would make a GPU wait in every iteration

    def _add_row(self, engine: Any) -> None:
        row: dict[str, float] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "learning_rate": float(engine.optimizer.param_groups[0]["lr"]),
            "train_loss": torch.stack(self._losses).double().mean().item(),
        }
        row |= validation_metrics(self.validator, epoch=engine.state.epoch)
        self.rows.append(row)
        write_csv(self.path, self.rows)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "iteration"))
        logger.info("Epoch %d/%d: %s", row["epoch"], engine.state.max_epochs, figures)


def validation_metrics(validator: Any | None, *, epoch: int) -> dict[str, float]:
    """The validator's scalar metrics as plain floats.

    Args:
        validator: evaluator that ran inside a trainer.
        epoch: the trainer's epoch; when the validator did not run in it, its older figures are not returned.

    Returns:
        Name to value; a metric that is a mapping is spread out. Empty without figures of this epoch.
    """
    if validator is None or validator.state.epoch != epoch:
        return {}
    found: dict[str, float] = {}
    for name, value in validator.state.metrics.items():
        for key, entry in value.items() if isinstance(value, Mapping) else [(name, value)]:
            if isinstance(entry, numbers.Real) or (isinstance(entry, Tensor) and entry.numel() == 1):
                found[str(key)] = float(entry)
    return found
