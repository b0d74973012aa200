import random
from types import ModuleType

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer

from monai_medclip.engines import ContrastivePrepareBatch, EpochSeeder, epoch_seed


def test_seeds_differ_between_epochs_seeds_and_processes_and_fit_32_bits() -> None:
    seeds = [epoch_seed(seed, epoch, rank) for seed in range(5) for epoch in range(20) for rank in range(2)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert epoch_seed(3, 2) == epoch_seed(3, 2)


def trainer_with(training: ModuleType, loader: DataLoader, epoch_length: int | None = None) -> SupervisedTrainer:
    network = training.TinyCLIP()
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=loader,
        epoch_length=epoch_length,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=training.SymmetricLoss(),
        prepare_batch=ContrastivePrepareBatch(),
        decollate=False,
        train_handlers=[EpochSeeder(seed=5)],
    )


def seen(trainer: SupervisedTrainer, start_epoch: int = 0) -> dict[int, list]:
    """Per epoch: the ids in order, the augmented pixels, and a draw from every global generator."""
    found: dict[int, list] = {}

    def note(engine) -> None:
        batch = engine.state.batch
        draws = [random.random(), float(np.random.rand()), torch.rand(1).item()]
        found.setdefault(engine.state.epoch, []).append((list(batch["id"]), batch["image"].sum().item(), draws))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)

    def jump(engine) -> None:
        engine.state.epoch, engine.state.iteration = start_epoch, start_epoch * engine.state.epoch_length

    trainer.add_event_handler(Events.STARTED, jump)
    trainer.run()
    return found


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("epoch_length", [None, 3])
def test_second_epoch_alone_is_the_second_epoch(
    training: ModuleType, own_generator: bool, epoch_length: int | None
) -> None:
    def loader() -> DataLoader:
        generator = torch.Generator().manual_seed(1) if own_generator else None
        whole = training.tiny_loader("train")
        return DataLoader(whole.dataset, batch_size=4, shuffle=True, generator=generator)

    both = seen(trainer_with(training, loader(), epoch_length))
    torch.manual_seed(99)  # whatever happened before
    alone = seen(trainer_with(training, loader(), epoch_length), start_epoch=1)
    assert alone[2] == both[2]
    assert both[1] != both[2]


def test_workers_that_outlive_an_epoch_are_refused(training: ModuleType) -> None:
    data = training.tiny_loader("train").dataset
    with pytest.raises(ValueError, match="Set persistent_workers to false"):
        trainer_with(training, DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True))
