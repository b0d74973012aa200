"""What the report of a probe says: by what it reads, with few cases, and whether differences are more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..metrics import ClassificationReport
from ..writers import FewShot, IntervalRow, Picture, Section, Table, few_shot_figure, figure_text, interval_figure
from .answer_page import figure_columns, macro_row
from .judging import Judged
from .score_comparison import Comparison
from .zero_shot import ZeroShot

__all__ = ["comparison_section", "few_section", "overview_section", "probe_summary"]


def overview_section(
    judged: Mapping[str, Judged],
    leaky: Mapping[str, bool],
    beside: Mapping[str, ClassificationReport],
    absent: Mapping[str, str],
) -> Section:
    """Means over the findings of every probe and of what stands beside them.

    Args:
        judged: by the probe's name.
        leaky: likewise, whether it reads findings or impression.
        beside: other reports on the same items, by name.
        absent: input -> why it was left out.
    """
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


def few_section(few: Mapping[str, tuple[FewShot, ...]], asked: ZeroShot | None) -> Section:
    """The few-shot curves: mean AUC with its interval over test patients, and the spread over draws."""
    rows = [
        [
            name,
            "all" if one.cases is None else one.cases,
            figure_text(float(np.mean(one.values)), one.interval),
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


def comparison_section(comparisons: Sequence[Comparison]) -> Section:
    """AUC differences with corrected p values."""
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


def probe_summary(
    judged: Mapping[str, Judged], leaky: Mapping[str, bool], asked: ZeroShot | None, absent: Mapping[str, str]
) -> list[str]:
    """The page's first paragraphs."""
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
