"""Stopping when validation no longer improves, with a patience that survives resuming."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping as Patience

from .history import validation_metrics

__all__ = ["EarlyStopping", "metric_of"]


class EarlyStopping:
    """Handler that ends training after some validations without improvement; attach it after the ``ValidationHandler``.

    Ignite's own handler wants the trainer when it is made, which a config cannot give before the trainer exists; it is
    made here on attaching, and its state is kept in checkpoints.

    Args:
        validator: evaluator whose metric is watched.
        metric: name of the metric.
        patience: validations without improvement after which training ends.
        mode: ``"max"`` when higher is better, ``"min"`` when lower is.
        threshold: smallest change that counts as improvement.
    """

    def __init__(
        self, validator: Any, *, metric: str, patience: int = 5, mode: str = "max", threshold: float = 0.0
    ) -> None:
        """See the class."""
        self.validator = validator
        self.metric = metric
        self._settings = {"patience": patience, "mode": mode, "threshold": threshold}
        self._patience: Any = None

    def attach(self, engine: Engine) -> None:
        """Registers the handler with the trainer that it may end."""
        self._patience = Patience(score_function=float, trainer=engine, **self._settings)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Looks at this epoch's figure, if there was a validation."""
        value = metric_of(self.validator, self.metric, epoch=engine.state.epoch)
        if value is not None:
            worst = -math.inf if self._settings["mode"] == "max" else math.inf
            self._patience(worst if math.isnan(value) else value)  # ignite would take NaN for an improvement

    def state_dict(self) -> dict[str, Any]:
        """Best figure and validations since."""
        return dict(self._patience.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; a run that had ended early stays ended, unless its patience was raised."""
        self._patience.load_state_dict(state)
        if self._patience.counter >= self._patience.patience:
            self._patience.trainer.terminate()


def metric_of(validator: Any, name: str, *, epoch: int) -> float | None:
    """One figure of this epoch's validation.

    Args:
        validator: evaluator that ran inside a trainer.
        name: metric to read.
        epoch: the trainer's epoch.

    Returns:
        The figure, or None when there was no validation in this epoch.

    Raises:
        KeyError: when the validation has no such figure.
    """
    found = validation_metrics(validator, epoch=epoch)
    if found and name not in found:
        raise KeyError(f"Validation gives no '{name}', only {sorted(found)}: name one of these as the metric to watch.")
    return found.get(name)
