"""What training changed: the same figures on training and test items, before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..metrics import CLIPScore, InBatchTop1, MulticlassReport, clip_score, in_batch_top1
from ..outputs import TokenBatch
from ..writers import Section, Table, figure_text
from .answer_page import figure_columns, macro_row
from .class_choice import choose_class
from .embedding_store import EmbeddingStore
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = ["Moment", "before_after_section", "judge_moment", "moments_as_dict"]

CLASS_FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_specificity",
    "macro_f1",
    "macro_auc",
    "macro_average_precision",
    "log_loss",
)


class Moment(NamedTuple):
    """One network on one split."""

    network: str  # "before training" or "after training"
    split: str
    asked: ZeroShot | None  # None without findings; rule and thresholds are of this network's own validation
    chosen: MulticlassReport | None  # None without classes
    score: CLIPScore
    in_batch: InBatchTop1 | None  # None with fewer items than a batch

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {
            "zero_shot": self.asked.as_dict() if self.asked else {},
            "classes": self.chosen.as_dict() if self.chosen else {},
            "clip_score": self.score.as_dict(),
            "in_batch_top1": self.in_batch.as_dict() if self.in_batch else {},
        }


def judge_moment(
    network: str,
    store: EmbeddingStore,
    split: str,
    findings: Sequence[Any],
    tokenizer: Callable[[list[str]], TokenBatch],
    *,
    classes: Sequence[Any] = (),
    batch_size: int = 64,
    bootstrap: int = 1000,
    on_empty: str = "raise",
    column: str = "labels",
) -> Moment:
    """All figures of one network on one split.

    Args:
        network: its name in the table.
        store: its embeddings; ``val`` chooses the prompt rule and the thresholds.
        split: to judge.
        findings: F findings, see `evaluate_zero_shot`; none leaves their figures out.
        tokenizer: list of texts -> TokenBatch.
        classes: K classes of which each item has one, see `choose_class`.
        batch_size: of the in-batch top-1.
        bootstrap: resamples of patients for the 95 % intervals.
        on_empty: see `choose_class`.
        column: see `choose_class`.
    """
    items, clip = store[split], store.clip
    patients = np.array(items.patients)
    asked = (
        evaluate_zero_shot(clip, store["val"], items, findings, tokenizer, bootstrap=bootstrap) if findings else None
    )
    chosen = None
    if classes:
        chosen, _ = choose_class(
            clip, items, store.kept(split), classes, tokenizer, bootstrap=bootstrap, on_empty=on_empty, column=column
        )
    score = clip_score(items.image, items.text, items.positives, patients=patients, bootstrap=bootstrap)
    scale = float(clip.logit_scale.detach())
    enough = len(items.ids) >= batch_size
    in_batch = in_batch_top1(items.image, items.text, batch_size=batch_size, logit_scale=scale) if enough else None
    return Moment(network, split, asked, chosen, score, in_batch)


def before_after_section(moments: Sequence[Moment]) -> Section:
    """The tables: figures of the findings, of the classes, and of the pairs, one row per network and split."""
    tables = []
    findings = [macro_row(_name(one), one.asked.report) for one in moments if one.asked]
    if findings:
        tables.append(Table(figure_columns("network, split"), findings, "Means over the findings"))
    classes = [[_name(one), *_class_cells(one.chosen)] for one in moments if one.chosen]
    if classes:
        heads = ["network, split", *(name.replace("_", " ") for name in CLASS_FIGURES)]
        tables.append(Table(heads, classes, "One class out of many"))
    tables.append(_pairs_table(moments))
    said = [
        "Prompt rule and thresholds of each network are those of its own validation items. The CLIP score is the "
        "cosine of an image and its own report, beside it that of an image and another's report.",
        "In-batch top-1 asks which of the reports of one batch belongs to an image; it depends on the batch size, so "
        "its chance stands beside it, and it is no classification accuracy.",
    ]
    return Section("Before and after training", said, tables)


def moments_as_dict(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """``{"before training": {"train": {...}, "test": {...}}, ...}``."""
    found: dict[str, dict[str, Any]] = {}
    for one in moments:
        found.setdefault(one.network, {})[one.split] = one.as_dict()
    return found


def _pairs_table(moments: Sequence[Moment]) -> Table:
    rows = []
    for one in moments:
        score, batch = one.score, one.in_batch
        rows.append(
            [
                _name(one),
                figure_text(score.score, score.score_interval),
                figure_text(score.mismatched, score.mismatched_interval),
                *([None] * 4 if batch is None else [batch.accuracy, batch.chance, batch.loss, batch.loss_chance]),
            ]
        )
    batch_size = next((one.in_batch.batch_size for one in moments if one.in_batch), None)
    of_batch = f"in-batch top-1 (batch of {batch_size})"
    heads = ["network, split", "CLIP score", "of mismatched pairs", of_batch, "its chance"]
    return Table([*heads, "loss in the batch", "its chance, ln(batch)"], rows, "Matched pairs")


def _name(one: Moment) -> str:
    return f"{one.network}, {one.split}"


def _class_cells(report: MulticlassReport) -> list[str]:
    return [figure_text(getattr(report, name), getattr(report, f"{name}_interval")) for name in CLASS_FIGURES]
