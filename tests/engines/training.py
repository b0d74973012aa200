"""A tiny CLIP with dropout, random transforms and every handler, trained in seconds; also a script that can be killed.

python training.py OUTPUT_DIR [--resume] [--workers N] [--die_at ITERATION] [--epochs N]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

import torch
from ignite.engine import Events
from ignite.metrics import Loss, Metric
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import Compose, RandGaussianNoised, RandScaleIntensityd
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip import engines
from monai_medclip.outputs import CLIPOutput

BATCH, TOKENS, WIDTH = 4, 6, 16
EPOCH_LENGTH = 5


class TinyCLIP(nn.Module):
    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, WIDTH))
        self.words = nn.Embedding(20, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    @property
    def logit_scale(self) -> Tensor:
        return self.log_scale.exp()

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> CLIPOutput:
        mask = attention_mask[..., None].float()
        text = (self.dropout(self.words(input_ids)) * mask).sum(1) / mask.sum(1)
        image = F.normalize(self.image(image).float(), dim=1)
        return CLIPOutput(image, F.normalize(text.float(), dim=1), self.logit_scale, torch.zeros(()))


class SymmetricLoss(nn.Module):
    def forward(self, output: CLIPOutput, positives: Tensor) -> Tensor:
        logits = output.logit_scale * output.image @ output.text.T
        matches = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, matches) + F.cross_entropy(logits.T, matches)) / 2


class FirstRecall(Metric):
    """Share of texts whose image is the nearest of all, over the whole data set."""

    def reset(self) -> None:
        self.outputs: list[CLIPOutput] = []

    def update(self, output: tuple[CLIPOutput, Tensor]) -> None:
        self.outputs.append(output[0])

    def compute(self) -> float:
        image, text = (torch.cat([getattr(output, side) for output in self.outputs]) for side in ("image", "text"))
        return float((text @ image.T).argmax(1).eq(torch.arange(len(text))).float().mean())


def tiny_items(count: int, seed: int) -> list[dict]:
    """Images of one of five patterns plus noise, each with its words."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    kinds = torch.randint(5, (count,), generator=generator).tolist()
    return [
        {
            "id": f"{seed}-{number}",
            "image": patterns[kind] + 0.3 * torch.randn(1, 8, 8, generator=generator),
            "input_ids": torch.tensor([kind, 5 + kind, 10 + number % 3, 0, 0, 0]),
            "attention_mask": torch.tensor([1, 1, 1, 0, 0, 0]),
            "positives": torch.tensor(kind),
            "label": F.one_hot(torch.tensor(kind), 5).float(),
        }
        for number, kind in enumerate(kinds)
    ]


def tiny_loader(split: str, workers: int = 0) -> DataLoader:
    random_changes = Compose(
        [RandGaussianNoised("image", prob=0.9), RandScaleIntensityd("image", factors=0.5, prob=0.9)]
    )
    if split == "train":
        data = Dataset(tiny_items(BATCH * EPOCH_LENGTH, 1), random_changes)
        # A process that was started by a fork server would start its workers by one too, which takes seconds each.
        context = "fork" if workers else None
        return DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=workers, multiprocessing_context=context)
    return DataLoader(Dataset(tiny_items(12, 2)), batch_size=BATCH)


def make_trainer(
    output_dir: str, *, resume: bool = False, workers: int = 0, epochs: int = 4, amp: bool = False, patience: int = 100
) -> SupervisedTrainer:
    """Everything of a run, as a bundle's configuration would put it together."""
    set_determinism(3)
    network = TinyCLIP()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    loader, inferer = tiny_loader("train", workers), engines.AutocastInferer(enabled=amp)
    scheduler = engines.cosine_with_warmup(optimizer, loader, max_epochs=epochs)
    pair = from_engine(["pred", "label"])
    validator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=tiny_loader("val"),
        network=network,
        inferer=inferer,
        prepare_batch=engines.ContrastivePrepareBatch(),
        key_val_metric={"recall_at_1": FirstRecall(output_transform=pair)},
        additional_metrics={"val_loss": Loss(SymmetricLoss(), output_transform=pair)},
        decollate=False,
    )
    history = engines.History(output_dir, validator)
    best = engines.BestCheckpoint(output_dir, network, validator, metric="val_loss", mode="min")
    stopping = engines.EarlyStopping(validator, metric="val_loss", mode="min", patience=patience)
    states = {"network": network, "optimizer": optimizer, "scheduler": scheduler, "validator": validator}
    states |= {"history": history, "best": best, "early_stopping": stopping}
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=SymmetricLoss(),
        inferer=inferer,
        prepare_batch=engines.ContrastivePrepareBatch(),
        decollate=False,
        train_handlers=[
            engines.EpochSeeder(seed=3),
            engines.GradientClipping(1.0),
            LrScheduleHandler(scheduler, epoch_level=False, print_lr=False),
            ValidationHandler(1, validator),
            history,
            best,
            stopping,
            engines.CurvesPlot(output_dir, history),
            engines.ProgressBar(validator, "recall_at_1", enabled=False),
            engines.LastCheckpoint(output_dir, states, resume=resume),
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--die_at", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trainer = make_trainer(options.output_dir, resume=options.resume, workers=options.workers, epochs=options.epochs)
    if options.die_at:
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED(once=options.die_at), lambda: os.kill(os.getpid(), signal.SIGKILL)
        )
    trainer.run()


if __name__ == "__main__":
    sys.exit(main())
