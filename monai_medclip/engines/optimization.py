"""How a step is taken: gradients kept in bounds, a learning rate that warms up and then follows a cosine."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup

__all__ = ["GradientClipping", "cosine_with_warmup"]


class GradientClipping:
    """Handler that scales gradients down to a largest norm before the optimizer steps; MONAI's trainer has none.

    Args:
        max_norm: largest allowed 2-norm of all gradients together, positive.

    Raises:
        FloatingPointError: in training, when the norm is not finite and there is no gradient scaler to skip the step.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        """See the class."""
        if not max_norm > 0:
            raise ValueError(
                f"max_norm is {max_norm}: a gradient norm must be positive. Leave the handler out to not clip."
            )
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clips, unless more gradients will be accumulated before the next step."""
        step, length = engine.state.iteration, engine.state.epoch_length
        if engine.accumulation_steps > 1 and not _steps_now(step, length, engine.accumulation_steps):
            return
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)  # the norm is of the true gradients
        norm = torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)
        if engine.scaler is None and not torch.isfinite(norm):
            raise FloatingPointError(
                f"The gradient norm is {norm.item()} at iteration {step} (epoch {engine.state.epoch}): training has "
                "diverged. Lower the learning rate, lengthen the warm-up, or look for images that are not finite."
            )


def cosine_with_warmup(optimizer: Optimizer, loader: Sized, *, max_epochs: int, warmup: float = 0.1) -> LambdaLR:
    """A learning rate that rises linearly, then falls to zero along half a cosine; step it after every iteration.

    Args:
        optimizer: its learning rates are the peaks.
        loader: training data; its length is the number of iterations per epoch.
        max_epochs: epochs that will be trained.
        warmup: share of all iterations spent rising, 0 to 1.

    Returns:
        A scheduler for MONAI's ``LrScheduleHandler(scheduler, epoch_level=False, print_lr=False)``.
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup is {warmup}: it is the share of all iterations spent rising, 0 to 1.")
    steps = len(loader) * max_epochs
    return get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=round(warmup * steps), num_training_steps=steps)


def _steps_now(iteration: int, epoch_length: int | None, accumulation_steps: int) -> bool:
    """Whether MONAI's trainer steps its optimizer after this 1-based iteration."""
    if epoch_length is None:
        return iteration % accumulation_steps == 0
    within = (iteration - 1) % epoch_length + 1
    return within % accumulation_steps == 0 or within == epoch_length
