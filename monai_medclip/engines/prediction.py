"""Inference: embeddings and zero-shot scores of new images, and the files that keep them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from ..networks import ProbeClassifier, ZeroShotClassifier
from .autocast import AutocastInferer
from .files import atomic_write, write_csv

__all__ = ["Prediction", "PredictionWriter", "ZeroShotInferer", "chosen_rule"]

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What a zero-shot classifier says of a batch."""

    embedding: Tensor  # (B, E) float32, unit length
    logits: Tensor  # (B, F) float32; higher supports the finding


class ZeroShotInferer(Inferer):
    """Runs a zero-shot classifier, or a probe, and keeps the embedding that it scores; a plain call returns logits.

    Args:
        amp: bfloat16 inside the image encoder; scores are float32 all the same.
    """

    def __init__(self, amp: bool = False) -> None:
        self.encode = AutocastInferer(enabled=amp)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Prediction:
        """Embed and score.

        Args:
            inputs: images (B, C, *spatial).
            network: the classifier.
            args: not used.
            kwargs: not used.

        Raises:
            TypeError: when the network is neither, or a probe that reads the report too.
        """
        if not isinstance(network, ZeroShotClassifier | ProbeClassifier) or network.context_keys:
            raise TypeError(
                f"ZeroShotInferer runs a ZeroShotClassifier, or a ProbeClassifier of the image alone, not "
                f"{type(network).__name__}."
            )
        embedding: Tensor = self.encode(inputs, network.embed_image)
        return Prediction(embedding, network.score(embedding))


class PredictionWriter:
    """Handler that writes ``predictions.csv`` (a score per finding) and ``embeddings.npy`` when an evaluator is done.

    Args:
        output_dir: folder of the results.
        names: F finding names, in the order of the logits.
    """

    def __init__(self, output_dir: str, names: Sequence[str]) -> None:
        self.folder = Path(output_dir)
        self.names = tuple(names)
        self._rows: list[dict[str, Any]] = []
        self._embeddings: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler with an evaluator whose inferer is a ``ZeroShotInferer``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self) -> None:
        self._rows, self._embeddings = [], []

    def _collect(self, engine: Any) -> None:
        prediction: Prediction = engine.state.output["pred"]
        first = len(self._rows)
        files = _files(engine.state.batch, len(prediction.logits))
        ids = engine.state.batch.get("id", [str(first + number) for number in range(len(prediction.logits))])
        for identity, file, logits in zip(ids, files, prediction.logits.tolist(), strict=True):
            self._rows.append({"id": identity, "file": file, **dict(zip(self.names, logits, strict=True))})
        self._embeddings.append(prediction.embedding.cpu())

    def _write(self, engine: Engine) -> None:
        table = write_csv(self.folder / "predictions.csv", self._rows)
        array = self.folder / "embeddings.npy"
        with atomic_write(array) as file, file.open("wb") as stream:
            np.save(stream, torch.cat(self._embeddings).numpy())
        logger.info("%d images: scores in %s, embeddings in %s", len(self._rows), table, array)


def chosen_rule(output_dir: str, default: str = "positive") -> str:
    """The prompt rule that validation chose for a trained model.

    Args:
        output_dir: folder of the run; ``metrics.json`` in it holds the rule once the model was evaluated.
        default: the rule of a model that was not.
    """
    path = Path(output_dir) / "metrics.json"
    if not path.is_file():
        return default
    return str(json.loads(path.read_text(encoding="utf-8"))["zero_shot"].get("rule", default))


def _files(batch: Any, size: int) -> list[str]:
    """Where each image came from, as far as the batch knows; empty for precomputed features."""
    names = getattr(batch.get("image"), "meta", {}).get("filename_or_obj", "")
    return [str(name) for name in names] if isinstance(names, (list, tuple)) else [str(names)] * size
