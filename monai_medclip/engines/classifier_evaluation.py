"""Judging any classifier on held-out images: its figures, its predictions, and a report."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor

from ..data import subgroup_values
from .answer_page import AnswerPage, judged_sections
from .autocast import AutocastInferer
from .embedding import Embeddings
from .files import write_csv, write_json
from .judging import Judged, judge, score_rows
from .prepare_batch import LabelPrepareBatch

__all__ = ["ClassifierEvaluation", "evaluate_classifier"]

logger = logging.getLogger(__name__)


class ClassifierEvaluation(NamedTuple):
    """What was found on the test images, and where it was written."""

    judged: Judged
    metrics_file: Path
    predictions_file: Path
    report_file: Path


def evaluate_classifier(
    classifier: Any,
    loaders: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    output_dir: str,
    items: Sequence[Mapping[str, Any]] = (),
    device: str | torch.device = "cpu",
    amp: bool = False,
    image_key: str = "image",
    bootstrap: int = 1000,
) -> ClassifierEvaluation:
    """Chooses thresholds and temperatures on validation, reports on test.

    Args:
        classifier: images -> one logit per finding, without further context.
        loaders: ``"val"`` and ``"test"``; collated batches in a fixed order, with ``label``.
        output_dir: folder of ``metrics.json``, ``predictions.csv``, ``report.html`` and the pictures.
        items: the test items, for figures by subgroup.
        device: where the network runs.
        amp: bfloat16 inside the network.
        image_key: entry that is fed as the image.
        bootstrap: resamples of patients for the 95 % intervals; 0 gives no intervals.

    Raises:
        ValueError: a split is missing or empty, or labels do not fit the findings.
    """
    if {"val", "test"} - set(loaders):
        raise ValueError(f"Evaluation needs the splits ['test', 'val'], given are {sorted(loaders)}: add the others.")
    names = tuple(classifier.findings)
    scored = {split: _scored(classifier, loaders[split], device, amp, image_key) for split in ("val", "test")}
    (val_logits, val), (logits, test) = scored["val"], scored["test"]
    by_id = {str(item["id"]): item for item in items}
    known = [by_id[one] for one in test.ids if one in by_id]
    covariates = subgroup_values(known) if len(known) == len(test.ids) else {}
    judged = judge(names, val_logits, val, logits, test, covariates=covariates, bootstrap=bootstrap)
    folder = Path(output_dir)
    metrics_file = write_json(folder / "metrics.json", {"classification": judged.as_dict()})
    page = AnswerPage(folder, "Trained on labels alone: an image classifier")
    page.add(judged_sections(judged, test, what="the classifier"), "classifier")
    report = page.write(
        [
            f"An image classifier was trained on labels, without any report, and asked for {', '.join(names)} on "
            f"{judged.report.items} test images of {judged.report.groups} patients: macro AUC "
            f"{judged.report.macro_auc:.3f}."
        ]
    )
    predictions = write_csv(folder / "predictions.csv", score_rows(test, judged))
    lines = [f"    {one.name}: AUC {one.auc:.3f}" for one in judged.report.findings]
    logger.info(
        "%s",
        "\n".join(
            [f"  image-only classifier, macro AUC {judged.report.macro_auc:.3f}", *lines, f"  written: {report}"]
        ),
    )
    return ClassifierEvaluation(judged, metrics_file, predictions, report)


def _scored(
    classifier: Any, loader: Iterable[Mapping[str, Any]], device: str | torch.device, amp: bool, image_key: str
) -> tuple[Tensor, Embeddings]:
    """Logits (N, F), and labels, ids and patients in the place where `judge` looks for them."""
    prepare, infer = LabelPrepareBatch(image_key), AutocastInferer(enabled=amp)
    classifier = classifier.to(device)
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    ids: list[str] = []
    patients: list[str] = []
    with eval_mode(classifier):  # no gradients either
        for batch in loader:
            image, label = prepare(batch, device)
            logits.append(infer(image, classifier).float().cpu())
            if logits[-1].shape != label.shape:
                raise ValueError(
                    f"The classifier gives {logits[-1].shape[1]} logits, the items have {label.shape[1]} labels each: "
                    f"read the manifest with its findings {list(classifier.findings)}."
                )
            labels.append(label.cpu())
            own = [str(entry) for entry in batch.get("id", range(len(ids), len(ids) + len(image)))]
            ids += own
            patients += [str(entry) for entry in batch.get("patient_id", own)]
    if not logits:
        raise ValueError("There is nothing to judge: the loader is empty. Check the split's name in the manifest.")
    empty = torch.zeros(len(ids), 0)
    facts = Embeddings(empty, empty, torch.arange(len(ids)), torch.cat(labels), tuple(ids), tuple(patients))
    return torch.cat(logits), facts
