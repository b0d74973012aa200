"""Running the audits: on any CLIP and any items, alone or beside the figures that they qualify."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..audits import (
    AuditResult,
    duplicates,
    laterality_audit,
    leakage,
    negation_audit,
    prompt_audit,
    prompt_figures,
    shortcuts,
)
from ..networks import as_findings
from ..outputs import TokenBatch
from .answer_page import AnswerPage, audit_sections
from .embedding_store import EmbeddingStore
from .files import write_json

__all__ = ["AUDITS", "Auditor", "audit_clip", "log_audits"]

logger = logging.getLogger(__name__)

ASKING = ("negation", "laterality", "prompts")  # audits that compare images with texts
SPLITS = {"leakage": ("train", "test"), "shortcuts": ("train", "test"), "prompts": ("val",)}  # others: the test items

Tokenizer = Callable[[list[str]], TokenBatch]
Asked = TypeVar("Asked")


class Auditor:
    """Everything that audits look at.

    Args:
        store: embeddings of the splits, and their items.
        findings: F findings with or without prompts, in the order of the labels.
        tokenizer: list of texts -> TokenBatch.
        names: F names; those of the findings if None.
        encoder: whose architecture the shortcut audit asks with random weights; None leaves that row out.
        size_column: where items hold a lesion's size, such as ``"meta.diameter_mm"``.
        fingerprints: cache of the images' fingerprints, see `data.partition`.
        bootstrap: resamples of patients for the 95 % intervals.
        seed: of everything random.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        findings: Sequence[Any],
        tokenizer: Tokenizer,
        *,
        names: Sequence[str] | None = None,
        encoder: Any | None = None,
        size_column: str | None = None,
        fingerprints: str | Path | None = None,
        bootstrap: int = 1000,
        seed: int = 0,
    ) -> None:
        """Nothing is computed yet."""
        self.store = store
        self.findings = list(findings)
        self.tokenizer = tokenizer
        self.names = tuple(names or (one.name for one in as_findings(findings)))
        self.encoder = encoder
        self.size_column = size_column
        self.fingerprints = fingerprints
        self.bootstrap = bootstrap
        self.seed = seed

    def __call__(self, audits: Sequence[str], **options: Any) -> dict[str, AuditResult]:
        """Runs audits by name.

        Args:
            audits: names in `AUDITS`; those that need findings, prompts and images in the space of texts, or a split
                are left out, and said so, where there are none. One that refuses these items does not take the
                figures away: its reason is its verdict, with a warning.
            options: for the leakage audit: ``model_reads``.

        Raises:
            ValueError: an unknown name.
        """
        unknown = [name for name in audits if name not in AUDITS]
        if unknown:
            raise ValueError(f"no audit is called {unknown}: choose from {', '.join(AUDITS)}.")
        found = {}
        for name in audits:
            lacking = self._lacking(name)
            if lacking:
                logger.info("The audit '%s' needs %s, and there are none: it is left out.", name, lacking)
                continue
            logger.info("Audit: %s", name)
            try:
                found[name] = AUDITS[name](self, options)
            except ValueError as error:
                found[name] = AuditResult(name, f"It could not be run, so nothing is known: {error}", (), True)
        return found

    def _lacking(self, audit: str) -> str:
        """What an audit needs and does not have; empty where nothing is missing."""
        if audit != "duplicates" and not self.names:
            return "findings with labels"
        if audit in ASKING and not (self.findings and self.store.space == "embedding"):
            return "findings to ask for and images in the space of texts"
        empty = [split for split in SPLITS.get(audit, ("test",)) if not self.store.items.get(split)]
        return f"items on {' and '.join(empty)}" if empty else ""


def audit_clip(auditor: Auditor, audits: Sequence[str], *, output_dir: str) -> Path:
    """Audits alone: ``metrics.json`` and ``report.html`` of nothing but their verdicts.

    Args:
        auditor: what to look at.
        audits: names in `AUDITS`.
        output_dir: folder of the results.

    Returns:
        The report.
    """
    found = auditor(audits)
    log_audits(found)
    write_json(Path(output_dir) / "metrics.json", {"audits": {name: one.as_dict() for name, one in found.items()}})
    page = AnswerPage(output_dir, "Audits")
    page.add(audit_sections(found), "audit")
    counts = {split: len(items) for split, items in auditor.store.items.items()}
    return page.write([f"What else than the image could explain a figure. Items: {counts}."])


def log_audits(found: Mapping[str, AuditResult]) -> None:
    """Prints verdicts and tables beside the figures; of long tables the means over findings."""
    for name, result in found.items():
        short = tuple(row for row in result.rows if row.get("finding", "macro") == "macro")
        logger.info("Audit '%s': %s", name, result._replace(rows=short or result.rows))


def _duplicates(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    return duplicates(auditor.store.items, cache=auditor.fingerprints)


def _leakage(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    store = auditor.store
    train, test = store["train"], store["test"]
    reads = tuple(options.get("model_reads", ()))
    texts = {split: store.texts(split, reads) if reads else store[split].text for split in ("train", "test")}
    return leakage(
        store.kept("train"),
        store.kept("test"),
        auditor.names,
        image_train=train.image,
        image_test=test.image,
        text_train=texts["train"],
        text_test=texts["test"],
        model_reads=reads,
        bootstrap=auditor.bootstrap,
        seed=auditor.seed,
    )


def _shortcuts(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    store = auditor.store
    return shortcuts(
        store.dataset("train"),
        store.dataset("test"),
        auditor.names,
        encoder=auditor.encoder,
        size_column=auditor.size_column,
        image_key=store.image_key,
        bootstrap=auditor.bootstrap,
        seed=auditor.seed,
    )


def _negation(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    return _in_words(negation_audit, auditor, "test")


def _prompts(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    return prompt_audit(_in_words(prompt_figures, auditor, "val"))  # who reads the table is tempted to choose by it


def _in_words(ask: Callable[..., Asked], auditor: Auditor, split: str) -> Asked:
    """What the findings' words do to the images of one split."""
    items = auditor.store[split]
    return ask(
        auditor.store.clip,
        auditor.tokenizer,
        items.image,
        items.label,
        auditor.findings,
        patients=items.patients,
        bootstrap=auditor.bootstrap,
        generator=auditor.seed,
    )


def _laterality(auditor: Auditor, options: Mapping[str, Any]) -> AuditResult:
    store = auditor.store
    return laterality_audit(
        store.clip,
        auditor.tokenizer,
        store["test"].image,
        store.kept("test"),
        auditor.findings,
        bootstrap=auditor.bootstrap,
        generator=auditor.seed,
    )


AUDITS: dict[str, Callable[[Auditor, Mapping[str, Any]], AuditResult]] = {
    "duplicates": _duplicates,
    "leakage": _leakage,
    "shortcuts": _shortcuts,
    "negation": _negation,
    "laterality": _laterality,
    "prompts": _prompts,
}
