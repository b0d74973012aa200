"""Asked by training a little: probes by what they read, with few cases or all, beside what qualifies them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..audits import AuditResult, holds_answer, judge_shortcuts
from ..data import subgroup_values
from ..networks import save_probe
from ..outputs import TokenBatch
from ..writers import FewShot
from .answer_page import AnswerPage, audit_sections, judged_sections
from .auditing import Auditor, log_audits
from .embedding import Embeddings
from .embedding_store import EmbeddingStore, MissingTextError
from .files import write_csv, write_json
from .judging import Judged, check_findings, judge, score_rows
from .probe import SHOTS, FittedProbe, ProbeInput, few_shot, fit_probe
from .probe_page import comparison_section, few_section, overview_section, probe_summary
from .score_comparison import Comparison, compare_scores, read_fine_tuned
from .zero_shot import ZeroShot, evaluate_zero_shot

__all__ = ["ProbeAnswer", "ask_probe"]

logger = logging.getLogger(__name__)


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
    trained = {
        name: read_fine_tuned(Path(path), names, test, bootstrap=bootstrap) for name, path in (fine_tuned or {}).items()
    }
    main, rivals = probes[0], {name: one.report for name, one in trained.items()}
    others = {one.name: one.test_logits for one in probes[1:]} | {name: one.logits for name, one in trained.items()}
    others |= {"zero-shot": asked.logits.double().numpy()} if asked else {}
    comparisons = compare_scores(names, test, main.name, main.test_logits, others)
    few = few_shot(store, names, shots=shots, draws=draws, bootstrap=bootstrap, seed=seed)
    found = auditor(audits, model_reads=_read(probes)) if auditor else {}
    if "shortcuts" in found:
        found["shortcuts"] = judge_shortcuts(found["shortcuts"], judged[main.name].report)
    beside = {"zero-shot": asked.report} if asked else {}
    page = AnswerPage(folder, "Probes: what the embeddings hold")
    page.add([overview_section(judged, leaky, {**beside, **rivals}, absent)], "overview")
    page.add(
        judged_sections(judged[main.name], test, what=f"probe of {main.name}", rivals={**beside, **rivals}), "probe"
    )
    page.add([few_section(few, asked)], "few_shot")
    page.add([comparison_section(comparisons)], "comparison")
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
    summary = probe_summary(judged, leaky, asked, absent)
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
