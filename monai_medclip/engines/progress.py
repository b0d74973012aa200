"""A progress bar for a whole run: one line with the loss and the latest validation figure."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from .history import validation_metrics

__all__ = ["ProgressBar"]


class ProgressBar:
    """Handler that shows one bar over all iterations of a run; ignite's starts a new one in every epoch.

    Args:
        validator: evaluator whose metric is shown beside the loss.
        metric: name of that metric.
        enabled: None shows the bar on a terminal and not in a log file.
    """

    def __init__(self, validator: Any | None = None, metric: str | None = None, enabled: bool | None = None) -> None:
        """See the class."""
        self.validator = validator
        self.metric = metric
        self.enabled = enabled
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer; a resumed run starts where it resumed."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._validated)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Any) -> None:
        if self._bar is None:
            total = engine.state.max_epochs * engine.state.epoch_length
            disable = None if self.enabled is None else not self.enabled
            self._bar = tqdm(total=total, initial=engine.state.iteration, desc="train", unit="it", disable=disable)

    def _advance(self, engine: Any) -> None:
        self._bar.update()
        if not self._bar.disable and self._bar.n % 10 == 0:  # reading the loss makes a GPU wait
            self._shown = {"epoch": str(engine.state.epoch), "loss": f"{engine.state.output['loss'].item():.3f}"} | {
                name: value for name, value in self._shown.items() if name == self.metric
            }
            self._bar.set_postfix(self._shown, refresh=False)

    def _validated(self, engine: Any) -> None:
        found = validation_metrics(self.validator, epoch=engine.state.epoch)
        if self.metric in found:
            self._shown[self.metric] = f"{found[self.metric]:.3f}"

    def _close(self, engine: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
