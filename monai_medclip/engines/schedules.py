"""How the learning rate falls: along a cosine, in steps, or when validation no longer improves."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from .early_stopping import metric_of
from .optimization import cosine_with_warmup

__all__ = ["SCHEDULES", "LrSchedule"]

SCHEDULES = ("cosine", "step", "plateau")


class LrSchedule:
    """Handler that moves the learning rate in one of three ways; attach it after the validation handler.

    MONAI's ``LrScheduleHandler`` steps per iteration or per epoch, and cannot step when validation has run.

    Args:
        optimizer: its learning rates are the peaks.
        loader: training data; its length is the number of iterations per epoch.
        kind: ``"cosine"``: a linear rise, then half a cosine to zero, after every iteration; ``"step"``: times `factor`
            every `step_epochs`; ``"plateau"``: times `factor` when `metric` has not risen for more than `patience`
            validations.
        max_epochs: epochs that will be trained.
        warmup: share of all iterations that the cosine spends rising, 0 to 1.
        factor: below 1.
        step_epochs: epochs between two steps; None: a third of all.
        patience: validations without a rise that are let pass.
        validator: evaluator whose metric is watched.
        metric: its name; the larger the better.

    Raises:
        ValueError: another kind, or ``"plateau"`` without a validator or metric.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        loader: Sized,
        *,
        kind: str = "cosine",
        max_epochs: int,
        warmup: float = 0.1,
        factor: float = 0.1,
        step_epochs: int | None = None,
        patience: int = 3,
        validator: Any | None = None,
        metric: str | None = None,
    ) -> None:
        """See the class."""
        if kind not in SCHEDULES or (kind == "plateau" and (validator is None or metric is None)):
            raise ValueError(
                f"schedule {kind!r}: choose one of {', '.join(SCHEDULES)}; 'plateau' needs a validator and its metric."
            )
        self.kind, self.validator, self.metric = kind, validator, metric or ""
        self.scheduler: Any
        if kind == "cosine":
            self.scheduler = cosine_with_warmup(optimizer, loader, max_epochs=max_epochs, warmup=warmup)
        elif kind == "step":
            self.scheduler = StepLR(optimizer, step_epochs or max(1, max_epochs // 3), gamma=factor)
        else:
            self.scheduler = ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        when = Events.ITERATION_COMPLETED if self.kind == "cosine" else Events.EPOCH_COMPLETED
        engine.add_event_handler(when, self)

    def __call__(self, engine: Any) -> None:
        """Steps; on a plateau with this epoch's figure, if there was a validation."""
        if self.kind != "plateau":
            self.scheduler.step()
            return
        value = metric_of(self.validator, self.metric, epoch=engine.state.epoch)
        if value is not None:
            self.scheduler.step(value)

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own."""
        return dict(self.scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to an earlier state."""
        self.scheduler.load_state_dict(dict(state))
