"""Randomness as a function of seed and epoch, so that a resumed run is the uninterrupted run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.utils.data import DataLoader

__all__ = ["EpochSeeder", "epoch_seed"]


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A 32-bit seed for one epoch of one process; neighboring seeds and epochs give unrelated streams.

    Args:
        seed: the run's seed, not negative.
        epoch: 1-based epoch.
        rank: the process's number in distributed training.
    """
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])


class EpochSeeder:
    """Handler that seeds everything random at the start of each epoch; attach it first.

    Stock resuming restores weights and epoch but not the state of sampler, augmentation and dropout. Here no such state
    lives longer than an epoch: Python, NumPy and torch (dropout, the sampler, the workers' base seed), the generators
    of the loader and its samplers, and the ``R`` of every MONAI ``Randomizable`` in the dataset.

    Args:
        seed: the run's seed, not negative.
    """

    def __init__(self, seed: int = 0) -> None:
        """See the class."""
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer (or an evaluator whose transforms are random).

        Raises:
            ValueError: when the engine's loader keeps its workers, and with them their random state, over epochs.
        """
        if getattr(engine.data_loader, "persistent_workers", False):
            raise ValueError(
                "The data loader has persistent_workers=True, whose random state outlives an epoch: a resumed run "
                "would differ. Set persistent_workers to false."
            )
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Seeds, then starts the loader afresh."""
        seed = epoch_seed(self.seed, engine.state.epoch, engine.state.rank)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        if isinstance(engine.data_loader, DataLoader):
            _seed_loader(engine.data_loader, seed)
        # When an epoch is shorter than the loader, ignite would go on in the order of the epoch before.
        engine.set_data(engine.data_loader)


def _seed_loader(loader: DataLoader[Any], seed: int) -> None:
    set_rnd(loader.dataset, seed)  # worker processes are seeded again from torch's generator, by worker
    inner = getattr(loader.batch_sampler, "sampler", None)
    parts: list[Any] = [loader, loader.sampler, loader.batch_sampler, inner]
    for part in parts:
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        if hasattr(part, "set_random_state"):
            part.set_random_state(seed=seed)
