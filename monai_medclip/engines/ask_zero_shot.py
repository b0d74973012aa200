"""Asked in words: zero-shot answers of a CLIP, before and after training, with what qualifies them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import softmax

from ..audits import AuditResult, judge_shortcuts
from ..data import subgroup_values
from ..metrics import MulticlassReport
from ..networks import as_findings
from ..outputs import TokenBatch
from ..writers import Picture, Section, Table, confusion_figure, figure_text
from .answer_page import AnswerPage, audit_sections, judged_sections
from .auditing import Auditor, log_audits
from .before_after import before_after_section, judge_moment, moments_as_dict
from .class_choice import choose_class, class_numbers
from .embedding_store import EmbeddingStore
from .files import write_csv, write_json
from .judging import Judged, check_findings, judge, score_rows
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = ["ZeroShotAnswer", "ask_zero_shot"]

logger = logging.getLogger(__name__)

Tokenizer = Callable[[list[str]], TokenBatch]


class ZeroShotAnswer(NamedTuple):
    """What was found, and where it was written."""

    asked: ZeroShot | None  # None without findings
    judged: Judged | None  # likewise
    chosen: MulticlassReport | None  # None without classes
    audits: dict[str, AuditResult]
    metrics_file: Path
    predictions_file: Path
    report_file: Path


def ask_zero_shot(
    store: EmbeddingStore,
    findings: Sequence[Any],
    tokenizer: Tokenizer,
    *,
    output_dir: str,
    classes: Sequence[Any] = (),
    before: EmbeddingStore | None = None,
    auditor: Auditor | None = None,
    audits: Sequence[str] = (),
    in_batch: int = 64,
    bootstrap: int = 1000,
    on_empty: str = "raise",
    class_column: str = "labels",
) -> ZeroShotAnswer:
    """Zero-shot figures on the test items; prompt rule, thresholds and temperatures are chosen on validation.

    Args:
        store: embeddings of ``val`` and ``test``, and ``train`` for the tables and most audits.
        findings: F findings in the order of the labels, each present or absent; see `evaluate_zero_shot`.
        tokenizer: list of texts -> TokenBatch.
        output_dir: folder of ``metrics.json``, ``predictions.csv``, ``report.html`` and ``pictures``.
        classes: K classes of which each item has one; see `choose_class`.
        before: the same items embedded before training, for the tables; None leaves them out.
        auditor: what the audits look at; None leaves them out.
        audits: names of audits.
        in_batch: batch size of the in-batch top-1.
        bootstrap: resamples of patients for the 95 % intervals.
        on_empty: see `choose_class`.
        class_column: where items name their class, see `class_numbers`.

    Raises:
        ValueError: neither findings nor classes, a store of pooled features, or what the functions named above refuse.
    """
    if not findings and not classes:
        raise ValueError("zero-shot needs something to ask: give findings with labels, or classes.")
    store.require_shared_space("zero-shot")
    check_findings([one.name for one in as_findings(findings)], store.items)
    folder, test = Path(output_dir), store["test"]
    page = AnswerPage(folder, "Zero-shot: findings asked for in words")
    metrics: dict[str, Any] = {"items": {split: len(items) for split, items in store.items.items()}}
    rows: list[dict[str, Any]] = [
        {"id": item, "patient_id": patient} for item, patient in zip(test.ids, test.patients, strict=True)
    ]
    asked = judged = chosen = None
    summary = [f"A network was asked in words about {len(test.ids)} test images."]
    if findings:
        asked = evaluate_zero_shot(store.clip, store["val"], test, findings, tokenizer, bootstrap=bootstrap)
        covariates = subgroup_values(store.kept("test"))
        judged = judge(
            asked.names, asked.val_logits, store["val"], asked.logits, test, covariates=covariates, bootstrap=bootstrap
        )
        metrics["zero_shot"] = {**judged.as_dict(), **asked.as_dict()}
        rows = score_rows(test, judged)
        page.add(judged_sections(judged, test, what="zero-shot", rivals={"name pair": asked.name_pair}), "zero_shot")
        summary += _finding_summary(asked)
    how: dict[str, Any] = {"bootstrap": bootstrap, "on_empty": on_empty, "column": class_column}
    if classes:
        chosen, own, section = _choice(store, classes, tokenizer, how)
        metrics["classes"] = {**chosen.as_dict(), "confusion": chosen.confusion}
        rows = [{**row, **one} for row, one in zip(rows, own, strict=True)]
        page.add([section], "classes")
        summary.append(
            f"Of {len(chosen.classes)} classes it chose the right one in {figure_text(chosen.accuracy)} of cases; "
            f"always naming the most frequent one gets {figure_text(chosen.chance_accuracy)}."
        )
    splits = [split for split in ("train", "test") if store.items.get(split)]
    networks = {"before training": before, "after training": store} if before else {"the network": store}
    if before:
        before.share_images(store)
    moments = [
        judge_moment(name, one, split, findings, tokenizer, classes=classes, batch_size=in_batch, **how)
        for name, one in networks.items()
        for split in splits
    ]
    metrics["tables"] = moments_as_dict(moments)
    page.add([before_after_section(moments)], "tables")
    found = auditor(audits) if auditor else {}
    if judged and "shortcuts" in found:
        found["shortcuts"] = judge_shortcuts(found["shortcuts"], judged.report)
    metrics["audits"] = {name: one.as_dict() for name, one in found.items()}
    page.add(audit_sections(found), "audit")
    answer = ZeroShotAnswer(
        asked,
        judged,
        chosen,
        found,
        write_json(folder / "metrics.json", metrics),
        write_csv(folder / "predictions.csv", rows),
        page.write(summary),
    )
    logger.info("%s\n  written: %s", "\n  ".join(summary), answer.report_file)
    log_audits(found)
    return answer


def _finding_summary(asked: ZeroShot) -> list[str]:
    report = asked.report
    each = ", ".join(f"{one.name} {figure_text(one.auc, one.auc_interval)}" for one in report.findings)
    return [
        f"Mean AUC over the findings {figure_text(report.macro_auc, report.macro_auc_interval)} (chance 0.5): {each}.",
        f"The prompt rule '{asked.rule.replace('_', ' ')}' was chosen on validation items; asking by the bare name "
        f"against 'no' and the name gets {figure_text(asked.name_pair.macro_auc, asked.name_pair.macro_auc_interval)}.",
    ]


def _choice(
    store: EmbeddingStore, classes: Sequence[Any], tokenizer: Tokenizer, how: Mapping[str, Any]
) -> tuple[MulticlassReport, list[dict[str, Any]], Section]:
    """The report, the columns of predictions.csv, and the page's section."""
    test, items = store["test"], store.kept("test")
    report, logits = choose_class(store.clip, test, items, classes, tokenizer, **how)
    names = [one.name for one in report.classes]
    truth = class_numbers(items, names, column=how["column"]).tolist()
    probabilities = softmax(logits, dim=1).numpy()
    own = [
        {
            "class": "" if truth[number] < 0 else names[truth[number]],
            "chosen class": names[int(row.argmax())],
            **{f"{name} class probability": float(value) for name, value in zip(names, row, strict=True)},
        }
        for number, row in enumerate(probabilities)
    ]
    rows = [
        [
            one.name,
            one.cases,
            figure_text(one.accuracy, one.accuracy_interval),
            figure_text(one.precision, one.precision_interval),
            figure_text(one.f1, one.f1_interval),
            figure_text(one.auc, one.auc_interval),
            figure_text(one.average_precision, one.average_precision_interval),
        ]
        for one in report.classes
    ]
    heads = ["class", "cases", "accuracy", "precision", "F1", "AUC", "average precision"]
    figure = confusion_figure(np.array(report.confusion), names, title="zero-shot choice")
    section = Section(
        "One class out of many",
        [
            f"Accuracy {figure_text(report.accuracy, report.accuracy_interval)}, balanced accuracy "
            f"{figure_text(report.balanced_accuracy, report.balanced_accuracy_interval)}; always naming the most "
            f"frequent class gets {figure_text(report.chance_accuracy)}. Items without one of these classes, left "
            f"out: {report.unknown}."
        ],
        [Table(heads, rows, "Per class; accuracy is the share of a class's cases that were given it")],
        [
            Picture(
                figure,
                "Confusion matrix: rows are the true class, columns the chosen one.",
                f"Confusion matrix of {len(names)} classes; accuracy {figure_text(report.accuracy)}.",
            )
        ],
    )
    return report, own, section
