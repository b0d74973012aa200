"""Judging a trained CLIP: zero-shot by prompts that validation chose, and retrieval, on held-out items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import numpy as np
import torch

from ..metrics import RetrievalReport, TercileReport, auc_by_tercile, retrieval
from ..networks import CLIP
from ..outputs import TokenBatch
from .embedding import Embeddings, embed
from .files import write_csv, write_json
from .prepare_batch import ContrastivePrepareBatch
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = ["Evaluation", "evaluate_clip"]

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What an evaluation found on the test items, and where it was written."""

    zero_shot: ZeroShot | None  # None without findings
    retrieval: RetrievalReport
    metrics_file: Path
    predictions_file: Path | None


def evaluate_clip(
    clip: CLIP,
    loaders: Mapping[str, Iterable[Mapping[str, Any]]],
    findings: Sequence[Any],
    tokenizer: Callable[[list[str]], TokenBatch],
    *,
    output_dir: str,
    device: str | torch.device = "cpu",
    amp: bool = False,
    image_key: str = "image",
    bootstrap: int = 1000,
    baselines: Mapping[str, Any] | None = None,
    covariates: Mapping[str, Mapping[str, float]] | None = None,
) -> Evaluation:
    """Chooses the prompt rule on validation, reports on test, writes ``metrics.json`` and ``predictions.csv``.

    Args:
        clip: trained network.
        loaders: ``"test"``, and ``"val"`` to choose the prompt rule; collated batches in a fixed order.
        findings: F findings in the order of the items' labels, by name or with prompts; empty for retrieval alone.
        tokenizer: list of texts -> TokenBatch.
        output_dir: folder of the results.
        device: where the network runs.
        amp: bfloat16 inside the network.
        image_key: entry that is fed as the image.
        bootstrap: resamples of patients for the 95 % intervals, always the same ones; 0 gives no intervals.
        baselines: figures of simpler methods by name, to stand beside; mappings or reports.
        covariates: by name, item id -> a number, such as a nodule's diameter: the AUCs within its thirds stand beside.

    Raises:
        ValueError: when a split is missing or empty, or the labels do not fit the findings.
    """
    needed = ("val", "test") if findings else ("test",)
    if set(needed) - set(loaders):
        raise ValueError(f"Evaluation needs the splits {sorted(needed)}, given are {sorted(loaders)}: add the others.")
    prepare = ContrastivePrepareBatch(image_key)
    data = {split: embed(clip, loaders[split], device=device, amp=amp, prepare_batch=prepare) for split in needed}
    test = data["test"]
    patients = np.array(test.patients)
    found = retrieval(test.image, test.text, test.positives, patients=patients, bootstrap=bootstrap)
    asked = evaluate_zero_shot(clip, data["val"], test, findings, tokenizer, bootstrap=bootstrap) if findings else None
    within = _within_thirds(test, asked, covariates or {}) if asked else {}
    metrics = {
        "items": {split: len(part.ids) for split, part in data.items()},
        "zero_shot": asked.as_dict() if asked else {},
        "within_thirds": {
            name: {finding: report.as_dict() for finding, report in reports.items()} for name, reports in within.items()
        },
        "retrieval": found.as_dict(),
        "baselines": {name: _as_dict(figures) for name, figures in (baselines or {}).items()},
    }
    folder = Path(output_dir)
    metrics_file = write_json(folder / "metrics.json", metrics)
    rows = _prediction_rows(test, asked) if asked else []
    result = Evaluation(asked, found, metrics_file, write_csv(folder / "predictions.csv", rows) if asked else None)
    logger.info("%s", "\n".join([_summary(result, baselines or {}), *_third_lines(within)]))
    return result


def _prediction_rows(test: Embeddings, asked: ZeroShot) -> list[dict[str, Any]]:
    rows = []
    for number, (item, patient) in enumerate(zip(test.ids, test.patients, strict=True)):
        row: dict[str, Any] = {"id": item, "patient_id": patient}
        for name, label, score in zip(
            asked.names, test.label[number].tolist(), asked.logits[number].tolist(), strict=True
        ):
            row |= {f"{name} label": "" if label != label else int(label), f"{name} logit": score}
        rows.append(row)
    return rows


def _within_thirds(
    test: Embeddings, asked: ZeroShot, covariates: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, TercileReport]]:
    """Covariate -> finding -> AUC within each third of the covariate."""
    found = {}
    for name, values in covariates.items():
        absent = [item for item in test.ids if item not in values]
        if absent:
            raise ValueError(f"Covariate {name!r} has no value for {len(absent)} test items, first {absent[:3]}.")
        size = [values[item] for item in test.ids]
        found[name] = {
            finding: auc_by_tercile(asked.logits[:, f], test.label[:, f], size) for f, finding in enumerate(asked.names)
        }
    return found


def _third_lines(within: Mapping[str, Mapping[str, TercileReport]]) -> list[str]:
    lines = []
    for name, reports in within.items():
        lines.append(f"  AUC within thirds of {name}, smallest first:")
        for finding, report in reports.items():
            thirds = ", ".join(f"{one.auc:.3f} ({one.positives} of {one.items})" for one in report.terciles)
            lines.append(f"    {finding}: {thirds}; {name} alone {report.covariate_auc:.3f}")
    return lines


def _as_dict(figures: Any) -> Any:
    for method in ("as_dict", "_asdict"):
        if hasattr(figures, method):
            return getattr(figures, method)()
    return figures


def _summary(result: Evaluation, baselines: Mapping[str, Any]) -> str:
    lines = ["Evaluation on the test items:"]
    if result.zero_shot is not None:
        report, name_pair = result.zero_shot.report, result.zero_shot.name_pair
        lines.append(
            f"  zero-shot macro AUC {_figure(report.macro_auc, report.macro_auc_interval)}"
            f" (prompt rule '{result.zero_shot.rule}' chosen on validation; name pair {name_pair.macro_auc:.3f})"
        )
        lines += [f"    {one.name}: {_figure(one.auc, one.auc_interval)}" for one in report.findings]
    for protocol in ("strict", "tie_aware", "deduplicated"):
        one = getattr(result.retrieval, protocol).text_to_image
        recalls = ", ".join(f"recall@{k} {one.recall[k]:.3f} (chance {one.chance[k]:.3f})" for k in one.recall)
        lines.append(f"  text to image, {protocol.replace('_', '-')}: {recalls}")
    lines += [
        f"  beside it, {name} alone (AUC):\n{indent(str(figures), '    ')}" for name, figures in baselines.items()
    ]
    files = [result.metrics_file, result.predictions_file]
    lines.append("  written: " + ", ".join(str(file) for file in files if file is not None))
    return "\n".join(lines)


def _figure(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
