"""Metrics of a whole epoch for MONAI evaluators: collect what each batch gives, compute once at the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from monai.utils import evenly_divisible_all_gather
from monai.utils.enums import CommonKeys
from torch import Tensor

from monai_medclip.metrics.classification import classification
from monai_medclip.metrics.retrieval import retrieval

__all__ = ["ClassificationMetric", "EpochMetric", "RetrievalMetric"]


def _prediction_and_label(output: Mapping[str, Any]) -> tuple[Any, Any]:
    return output[CommonKeys.PRED], output[CommonKeys.LABEL]


class EpochMetric(Metric):
    """Collect rows over an epoch, gather them from all processes, and put one figure under the attached name.

    Stock ignite puts a dict of results under that name, which a key metric cannot be compared by. Here ``key`` is the
    figure, ``also`` are figures put under their own names, and all of them are in ``state.metric_details[name]``.

    Args:
        key: which figure is the metric.
        also: further figures for ``engine.state.metrics``.
        output_transform: the engine's output to (prediction, target).
    """

    def __init__(
        self, key: str, also: Sequence[str], output_transform: Callable[[Any], Any] = _prediction_and_label
    ) -> None:
        """Store the names; ignite resets at the start of every epoch."""
        self.key, self.also = key, tuple(also)
        self._rows: list[tuple[Tensor, ...]] = []
        super().__init__(output_transform=output_transform, skip_unrolling=True)

    def reset(self) -> None:
        """Forget the last epoch."""
        self._rows = []

    def update(self, output: Any) -> None:
        """Keep one batch, as (prediction, target)."""
        self._rows.append(tuple(_plain(part) for part in self.rows(*output)))

    def compute(self) -> dict[str, float]:
        """All figures of the epoch.

        Raises:
            ValueError: no batch was seen.
        """
        if not self._rows:
            raise ValueError(f"{type(self).__name__} saw no batch: the validation set is empty. Add items to it.")
        columns = [torch.cat(column) for column in zip(*self._rows, strict=True)]
        return self.figures(*(evenly_divisible_all_gather(column) for column in columns))

    def completed(self, engine: Engine, name: str) -> None:
        """Write the figures into the engine's state at the end of the epoch."""
        figures = self.compute()
        absent = [key for key in (self.key, *self.also) if key not in figures]
        if absent:
            raise ValueError(f"{type(self).__name__} has no figure {absent}; it has {sorted(figures)}.")
        engine.state.metrics[name] = figures[self.key]
        engine.state.metrics.update({key: figures[key] for key in self.also})
        if not hasattr(engine.state, "metric_details"):
            engine.state.metric_details = {}
        engine.state.metric_details[name] = figures

    @abstractmethod
    def rows(self, prediction: Any, target: Any) -> tuple[Tensor, ...]:
        """Tensors of one batch to keep, each with B first."""

    @abstractmethod
    def figures(self, *columns: Tensor) -> dict[str, float]:
        """Figures from the rows of all batches."""


class RetrievalMetric(EpochMetric):
    """Retrieval over a validation epoch, from `CLIPOutput` and ``positives``.

    Args:
        key: a name of `RetrievalReport.as_dict`.
        also: further ones for the log.
        ks: cut-offs for recall.
        output_transform: the engine's output to (CLIPOutput, positives (B,)); ``pred`` and ``label`` by default.
    """

    def __init__(
        self,
        key: str = "tie_aware_text_to_image_recall@5",
        also: Sequence[str] = (),
        *,
        ks: Sequence[int] = (1, 5, 10),
        output_transform: Callable[[Any], Any] = _prediction_and_label,
    ) -> None:
        """Store the cut-offs."""
        self.ks = tuple(ks)
        super().__init__(key, also, output_transform)

    def rows(self, prediction: Any, target: Any) -> tuple[Tensor, ...]:
        """Image (B, E), text (B, E) and positives (B,)."""
        return prediction.image, prediction.text, target

    def figures(self, *columns: Tensor) -> dict[str, float]:
        """`RetrievalReport.as_dict` of the epoch."""
        image, text, positives = columns
        return retrieval(image, text, positives, ks=self.ks).as_dict()


class ClassificationMetric(EpochMetric):
    """AUC and its kin over a validation epoch, from logits (B, F) and labels (B, F).

    Args:
        names: F finding names.
        key: a name of `ClassificationReport.as_dict`.
        also: further ones for the log.
        output_transform: the engine's output to (logits, labels); ``pred`` and ``label`` by default.
    """

    def __init__(
        self,
        names: Sequence[str],
        key: str = "macro_auc",
        also: Sequence[str] = (),
        *,
        output_transform: Callable[[Any], Any] = _prediction_and_label,
    ) -> None:
        """Store the names."""
        self.names = tuple(names)
        super().__init__(key, also, output_transform)

    def rows(self, prediction: Any, target: Any) -> tuple[Tensor, ...]:
        """Logits (B, F) and labels (B, F)."""
        return prediction, target

    def figures(self, *columns: Tensor) -> dict[str, float]:
        """`ClassificationReport.as_dict` of the epoch."""
        logits, labels = columns
        return classification(logits, labels, self.names).as_dict()


def _plain(part: Any) -> Tensor:
    """A detached plain tensor on the CPU; float32, as bfloat16 embeddings would tie by rounding alone."""
    tensor = torch.as_tensor(part).detach().as_subclass(Tensor).cpu()
    return tensor.float() if tensor.is_floating_point() else tensor
