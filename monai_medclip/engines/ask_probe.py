"""Asked by training a little: probes by what they read, with few cases or all, beside what qualifies them."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..audits import AuditResult, holds_answer, judge_shortcuts
from ..data import subgroup_values
from ..metrics import AUCDifference, ClassificationReport, classification, delong, holm
from ..networks import save_probe
from ..outputs import TokenBatch
from ..writers import FewShot, IntervalRow, Picture, Section, Table, few_shot_figure, figure_text, interval_figure
from .answer_page import AnswerPage, audit_sections, figure_columns, judged_sections, macro_row
from .auditing import Auditor, log_audits
from .embedding import Embeddings
from .embedding_store import EmbeddingStore, MissingTextError
from .files import write_csv, write_json
from .judging import Judged, check_findings, judge, score_rows
from .probe import SHOTS, FittedProbe, ProbeInput, few_shot, fit_probe
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = ["Comparison", "ProbeAnswer", "ask_probe"]

logger = logging.getLogger(__name__)


class Comparison(NamedTuple):
    """Whether two sets of scores differ in one finding's AUC on the same test items."""

    finding: str
    first: str
    second: str
    difference: AUCDifference  # first minus second
    adjusted_p_value: float  # by Holm, over all comparisons of the run

    def as_dict(self) -> dict[str, Any]:
        """Flat."""
        names = {"finding": self.finding, "first": self.first, "second": self.second}
        return {**names, **self.difference._asdict(), "adjusted_p_value": self.adjusted_p_value}


class ProbeAnswer(NamedTuple):
    """What was found, and where it was written."""

    judged: dict[str, Judged]  # by the probe's name, such as "image, logistic"
    few: dict[str, tuple[FewShot, ...]]  # by finding
    comparisons: tuple[Comparison, ...]
    audits: dict[str, AuditResult]
    probe_files: dict[str, Path]  # of the probes that read the image
    metrics_file: Path
    predictions_file: Path
    report_file: Path


def ask_probe(
    store: EmbeddingStore,
    names: Sequence[str],
    *,
    output_dir: str,
    inputs: Sequence[str] = ("image", "text", "indication", "indication+findings", "image+text"),
    heads: Sequence[str] = ("logistic", "mlp"),
    prompts: Sequence[Any] = (),
    tokenizer: Callable[[list[str]], TokenBatch] | None = None,
    fine_tuned: Mapping[str, str] | None = None,
    shots: Sequence[int] = SHOTS,
    draws: int = 10,
    auditor: Auditor | None = None,
    audits: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> ProbeAnswer:
    """Fits probes on ``train``, chooses thresholds and temperatures on ``val``, reports on ``test``.

    Args:
        store: embeddings of the three splits.
        names: F findings in the order of the labels.
        output_dir: folder of ``metrics.json``, ``predictions.csv``, ``report.html``, ``pictures`` and the probes.
        inputs: what probes read, see `ProbeInput.named`; sections that no report has are left out, and said so. The
            first is the one that is reported at length.
        heads: ``"logistic"``, ``"mlp"``; the first is the one that is reported at length.
        prompts: F findings with prompts, to set zero-shot figures beside; none leaves them out.
        tokenizer: list of texts -> TokenBatch, for the prompts.
        fine_tuned: name -> folder of a classifier trained end to end on the same split (``fine_tuned.json``).
        shots: patients per class of the few-shot curves.
        draws: random draws of each.
        auditor: what the audits look at; None leaves them out.
        audits: names of audits.
        bootstrap: resamples of patients for the 95 % intervals.
        seed: of folds, weights and draws.

    Raises:
        ValueError: no finding, no input that the reports have, or what `fit_probe` refuses.
    """
    if not names:
        raise ValueError("a probe needs findings with labels: name them in 'findings', in the order of the labels.")
    check_findings(names, store.items)
    folder, test = Path(output_dir), store["test"]
    probes, absent = _fitted(store, names, inputs, heads, seed)
    covariates = subgroup_values(store.kept("test"))
    judged = {
        one.name: judge(
            names,
            one.val_logits,
            store["val"],
            one.test_logits,
            test,
            covariates=covariates if one is probes[0] else None,
            bootstrap=bootstrap,
        )
        for one in probes
    }
    leaky = {one.name: _leaky(store, one.input) for one in probes}
    asked = _zero_shot(store, prompts, tokenizer, bootstrap)
    rivals = {name: _fine_tuned(Path(path), names, test, bootstrap) for name, path in (fine_tuned or {}).items()}
    comparisons = _comparisons(probes, names, test, asked)
    few = few_shot(store, names, shots=shots, draws=draws, seed=seed)
    main = probes[0]
    found = auditor(audits, model_reads=_read(probes)) if auditor else {}
    if "shortcuts" in found:
        found["shortcuts"] = judge_shortcuts(found["shortcuts"], judged[main.name].report)
    beside = {"zero-shot": asked.report} if asked else {}
    page = AnswerPage(folder, "Probes: what the embeddings hold")
    page.add([_overview(judged, leaky, {**beside, **rivals}, absent)], "overview")
    page.add(
        judged_sections(judged[main.name], test, what=f"probe of {main.name}", rivals={**beside, **rivals}), "probe"
    )
    page.add([_few_section(few, asked)], "few_shot")
    page.add([_comparison_section(comparisons)], "comparison")
    page.add(audit_sections(found), "audit")
    metrics = {
        "items": {split: len(items) for split, items in store.items.items()},
        "probes": {
            one.name: {"leaky": leaky[one.name], **one.settings, **judged[one.name].as_dict()} for one in probes
        },
        "left_out": absent,
        "zero_shot": asked.as_dict() if asked else {},
        "fine_tuned": {name: report.as_dict() for name, report in rivals.items()},
        "few_shot": {name: [one._asdict() for one in curve] for name, curve in few.items()},
        "comparisons": [one.as_dict() for one in comparisons],
        "audits": {name: one.as_dict() for name, one in found.items()},
    }
    summary = _summary(judged, leaky, asked, absent)
    answer = ProbeAnswer(
        judged,
        few,
        comparisons,
        found,
        _saved(store, probes, names, folder),
        write_json(folder / "metrics.json", metrics),
        write_csv(folder / "predictions.csv", _rows(test, probes, judged, names)),
        page.write(summary),
    )
    logger.info("%s\n  written: %s", "\n  ".join(summary), answer.report_file)
    log_audits(found)
    return answer


def _fitted(
    store: EmbeddingStore, names: Sequence[str], inputs: Sequence[str], heads: Sequence[str], seed: int
) -> tuple[list[FittedProbe], dict[str, str]]:
    """The probes, and why an input was left out."""
    probes, absent = [], {}
    for name in inputs:
        given = ProbeInput.named(name)
        try:
            probes += [fit_probe(store, names, given, kind, seed=seed) for kind in heads]
        except MissingTextError as error:
            absent[str(given)] = str(error)
            logger.info("The input '%s' is left out: %s", given, error)
    if not probes:
        raise ValueError(f"none of the inputs {list(inputs)} is there: {next(iter(absent.values()), 'name one')}")
    return probes, absent


def _read(probes: Sequence[FittedProbe]) -> tuple[str, ...]:
    """The sections that a probe reads beside the image, or else alone; none where all read the image only."""
    reading = [one.input for one in probes if one.input.sections]
    return next((one.sections for one in reading if one.image), reading[0].sections if reading else ())


def _leaky(store: EmbeddingStore, given: ProbeInput) -> bool:
    return bool(given.sections) and holds_answer(store.kept("test"), given.sections)


def _zero_shot(store: EmbeddingStore, prompts: Sequence[Any], tokenizer: Any, bootstrap: int) -> ZeroShot | None:
    if not prompts or tokenizer is None or store.space != "embedding":
        return None
    return evaluate_zero_shot(store.clip, store["val"], store["test"], prompts, tokenizer, bootstrap=bootstrap)


def _fine_tuned(folder: Path, names: Sequence[str], test: Embeddings, bootstrap: int) -> ClassificationReport:
    """Figures of a classifier's predictions on the same test items, at the thresholds that its validation chose."""
    path = folder / "predictions.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: train that classifier first (train.json with fine_tuned.json)."
        )
    with path.open(newline="", encoding="utf-8") as stream:
        by_id = {row["id"]: row for row in csv.DictReader(stream)}
    unknown = [item for item in test.ids if item not in by_id]
    if unknown:
        raise ValueError(
            f"{path} lacks {len(unknown)} of the test items, first {unknown[:3]}: train on the same split."
        )
    absent = [name for name in names if f"{name} logit" not in next(iter(by_id.values()))]
    if absent:
        raise ValueError(f"{path} has no scores of {absent}: train that classifier with the same findings.")
    figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["classification"]
    logits = np.array([[float(by_id[item][f"{name} logit"]) for name in names] for item in test.ids])
    cuts = [float(figures[f"{name}_threshold"]) for name in names]
    groups = np.array(test.patients)
    return classification(logits, test.label.numpy(), names, groups=groups, threshold=cuts, bootstrap=bootstrap)


def _comparisons(
    probes: Sequence[FittedProbe], names: Sequence[str], test: Embeddings, asked: ZeroShot | None
) -> tuple[Comparison, ...]:
    """Every other set of scores against the first probe, per finding, with DeLong's test."""
    first, patients, label = probes[0], np.array(test.patients), test.label.numpy()
    others = {one.name: one.test_logits for one in probes[1:]}
    if asked:
        others["zero-shot"] = asked.logits.double().numpy()
    found = []
    for f, name in enumerate(names):
        for other, logits in others.items():
            try:
                difference = delong(logits[:, f], first.test_logits[:, f], label[:, f], groups=patients)
            except ValueError as error:
                logger.info("%s: '%s' and '%s' cannot be compared: %s", name, other, first.name, error)
                continue
            found.append(Comparison(name, other, first.name, difference, difference.p_value))
    adjusted = holm([one.difference.p_value for one in found])
    return tuple(one._replace(adjusted_p_value=float(p)) for one, p in zip(found, adjusted, strict=True))


def _saved(store: EmbeddingStore, probes: Sequence[FittedProbe], names: Sequence[str], folder: Path) -> dict[str, Path]:
    files = {}
    for one in probes:
        classifier = one.classifier(store, names)
        if classifier is not None:
            path = folder / f"probe_{one.input}_{one.kind}.pt"
            files[one.name] = save_probe(path, classifier, kind=one.kind, sections=one.input.sections)
    return files


def _rows(
    test: Embeddings, probes: Sequence[FittedProbe], judged: Mapping[str, Judged], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The first probe at length, of the others their logits."""
    rows = score_rows(test, judged[probes[0].name])
    for one in probes[1:]:
        for row, logits in zip(rows, one.test_logits, strict=True):
            row |= {f"{name} logit ({one.name})": float(value) for name, value in zip(names, logits, strict=True)}
    return rows


def _overview(
    judged: Mapping[str, Judged],
    leaky: Mapping[str, bool],
    beside: Mapping[str, ClassificationReport],
    absent: Mapping[str, str],
) -> Section:
    reports = {name: one.report for name, one in judged.items()} | dict(beside)
    rows = [[*macro_row(name, report), "leaky" if leaky.get(name) else ""] for name, report in reports.items()]
    bars = [
        IntervalRow("", f"{name} (leaky)" if leaky.get(name) else name, report.macro_auc, report.macro_auc_interval)
        for name, report in reports.items()
    ]
    said = [
        "Each row is a small classifier trained on embeddings that stayed as they were, named by what it read and its "
        "head; the strength of the logistic ones was chosen by cross-validation over training patients.",
        "Leaky: it reads findings or impression, where the radiologist has written the answer down.",
        *(f"Left out: {name}. {reason}" for name, reason in absent.items()),
    ]
    picture = Picture(
        interval_figure(bars, measure="macro AUC"),
        "Mean AUC over the findings with 95 % interval.",
        "; ".join(f"{row.name}: {figure_text(row.value, row.interval)}" for row in bars),
    )
    table = Table([*figure_columns("probe"), "remark"], rows, "Means over the findings, on the test images")
    return Section("By what the probe reads", said, [table], [picture])


def _few_section(few: Mapping[str, tuple[FewShot, ...]], asked: ZeroShot | None) -> Section:
    rows = [
        [
            name,
            "all" if one.cases is None else one.cases,
            float(np.mean(one.values)),
            float(np.std(one.values, ddof=1)) if len(one.values) > 1 else None,
            len(one.values),
        ]
        for name, curve in few.items()
        for one in curve
    ]
    table = Table(["finding", "patients per class", "mean AUC", "spread over draws", "draws"], rows, "Few-shot")
    pictures = []
    if few:
        macro = asked.report if asked else None
        figure = few_shot_figure(
            few,
            zero_shot=macro.macro_auc if macro else None,
            zero_shot_interval=macro.macro_auc_interval if macro else None,
            measure="AUC",
        )
        told = "AUC on test images against the number of training patients per class; the band is the spread of draws."
        pictures.append(Picture(figure, told, "Few-shot curves; the figures are in the table."))
    said = ["Logistic probes of the image on few training patients of each class, drawn anew several times."]
    return Section("With few labeled cases", said, [table], pictures)


def _comparison_section(comparisons: Sequence[Comparison]) -> Section:
    rows = [
        [
            one.finding,
            one.first,
            one.second,
            figure_text(one.difference.difference, one.difference.interval),
            one.difference.p_value,
            one.adjusted_p_value,
        ]
        for one in comparisons
    ]
    heads = ["finding", "scores", "minus those of", "AUC difference", "p", "p, corrected"]
    said = ["DeLong's test on the same test images, with patients as clusters; p values corrected by Holm."]
    return Section("Differences", said, [Table(heads, rows, "AUC differences")] if rows else [])


def _summary(
    judged: Mapping[str, Judged], leaky: Mapping[str, bool], asked: ZeroShot | None, absent: Mapping[str, str]
) -> list[str]:
    parts = [
        f"{name} {figure_text(one.report.macro_auc, one.report.macro_auc_interval)}{' (leaky)' if leaky[name] else ''}"
        for name, one in judged.items()
    ]
    lines = [f"Mean AUC of probes on the test images (0.5 is chance): {'; '.join(parts)}."]
    if asked:
        figure = figure_text(asked.report.macro_auc, asked.report.macro_auc_interval)
        lines.append(f"Zero-shot, without any label: {figure}.")
    if any(leaky.values()):
        lines.append(
            "A leaky probe reads findings or impression, where the radiologist has written the answer down: its figure "
            "says nothing about images."
        )
    if absent:
        lines.append(f"Left out, since no report has such a section: {', '.join(absent)}.")
    return lines
