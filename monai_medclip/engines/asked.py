"""What a person may ask a model: prompts and reports of a bounded length, in text that can be shown."""

from __future__ import annotations

from collections.abc import Sequence

from ..findings import Finding, findings_named
from ..transforms import sentence_spans

__all__ = ["asked_findings", "checked_report", "checked_sentences"]

MAX_PROMPTS, MAX_PROMPT_CHARACTERS = 16, 300
MAX_REPORT_CHARACTERS, MAX_SENTENCES = 20_000, 64


def asked_findings(prompts: Sequence[str], known: Sequence[Finding]) -> tuple[Finding, ...]:
    """Prompts as findings: a known finding's name, in any case, is that finding; other words get generic prompts.

    Raises:
        ValueError: none or more than 16 prompts; one that is blank, longer than 300 characters or not printable.
    """
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts: give 1 to {MAX_PROMPTS}.")
    by_name = {finding.name.casefold(): finding for finding in known}
    found = []
    for prompt in prompts:
        text = prompt.strip()
        if not text or len(text) > MAX_PROMPT_CHARACTERS or not text.isprintable():
            raise ValueError(
                f"a prompt of {len(prompt)} characters: give 1 to {MAX_PROMPT_CHARACTERS} printable ones, such as "
                "'left pleural effusion'."
            )
        found.append(by_name.get(text.casefold()) or findings_named([text], known)[0])
    return tuple(found)


def checked_report(report: str) -> str:
    """The report itself.

    Raises:
        ValueError: it is empty, or longer than 20,000 characters.
    """
    if not report.strip() or len(report) > MAX_REPORT_CHARACTERS:
        raise ValueError(f"a report of {len(report)} characters: give 1 to {MAX_REPORT_CHARACTERS}, not only spaces.")
    return report


def checked_sentences(report: str) -> list[tuple[int, int]]:
    """Where a report's sentences stand: characters, end exclusive.

    Raises:
        ValueError: more than 64 sentences.
    """
    spans = [(start, end) for start, end in sentence_spans(report) if report[start:end].strip()]
    if len(spans) > MAX_SENTENCES:
        raise ValueError(f"the report has {len(spans)} sentences: give at most {MAX_SENTENCES}.")
    return spans
