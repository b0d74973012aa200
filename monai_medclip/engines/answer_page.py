"""From figures to what a clinician reads: the tables, pictures and words that every question's report is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audits import AuditResult
from ..metrics import ClassificationReport, Subgroup
from ..writers import (
    IntervalRow,
    Picture,
    Section,
    Table,
    figure_text,
    figures_page,
    glossary,
    interval_figure,
    reliability_figure,
    roc_figure,
    save_figure,
    subgroup_figure,
    table_of,
    terms_in,
    write_whole,
)
from .embedding import Embeddings
from .judging import Judged

__all__ = [
    "AnswerPage",
    "audit_sections",
    "figure_columns",
    "flat_text",
    "judged_sections",
    "macro_row",
    "wide_rows",
]

logger = logging.getLogger(__name__)

FIGURES = (
    "auc",
    "average_precision",
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "balanced_accuracy",
    "accuracy",
    "log_loss",
)


class AnswerPage:
    """Collects sections, keeps every picture as a PNG too, and writes ``report.html``.

    Args:
        folder: where both go; pictures into ``pictures`` inside it.
        title: of the page.
    """

    def __init__(self, folder: str | Path, title: str) -> None:
        """An empty page."""
        self.folder = Path(folder)
        self.title = title
        self.sections: list[Section] = []

    def add(self, sections: Iterable[Section], kind: str) -> None:
        """Appends sections; the PNGs of their pictures, which the page shows, are named by `kind` and a number."""
        number = sum(len(section.pictures) for section in self.sections)
        for section in sections:
            drawn = []
            for picture in section.pictures:
                number += 1
                path = self.folder / "pictures" / f"{number:02d}_{kind}.png"
                if isinstance(picture.content, bytes):
                    write_whole(path, picture.content)
                else:
                    save_figure(picture.content, path)
                drawn.append(picture._replace(content=path.read_bytes()))  # drawn once, and no figure is kept
            self.sections.append(section._replace(pictures=drawn))

    def write(self, summary: Sequence[str]) -> Path:
        """Writes the page with a glossary of the terms that it uses.

        Args:
            summary: its first paragraphs.
        """
        drawn = sum(len(section.pictures) for section in self.sections)
        for path in (self.folder / "pictures").glob("[0-9][0-9]_*.png"):  # of an earlier run that drew more
            if int(path.name[:2]) > drawn:
                path.unlink()
        terms = terms_in(self.sections, summary)
        sections = [*self.sections, *([glossary(terms)] if terms else [])]
        return write_whole(
            self.folder / "report.html", figures_page(sections, title=self.title, summary=summary).encode()
        )


def judged_sections(
    judged: Judged, test: Embeddings, *, what: str, rivals: Mapping[str, ClassificationReport] | None = None
) -> list[Section]:
    """Figures, curves, calibration and subgroups of one set of scores.

    Args:
        judged: the scores.
        test: the items that they are of.
        what: whose they are, such as ``"zero-shot"``.
        rivals: other reports on the same items to stand beside, by name.
    """
    return [
        _figures(judged, test, what, rivals or {}),
        _calibration(judged, what),
        *([_subgroups(judged, what)] if any(judged.by_subgroup.values()) else []),
    ]


def audit_sections(audits: Mapping[str, AuditResult]) -> list[Section]:
    """One section per audit, its verdict first."""
    return [
        Section(
            f"Audit: {name.replace('_', ' ')}",
            paragraphs=[result.verdict],
            tables=[table_of(wide_rows(result.rows), f"{name.capitalize()} audit")] if result.rows else [],
            warning=result.warning,
        )
        for name, result in audits.items()
    ]


def wide_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An audit's rows as `table_of` takes them: bounds named by their figure, one column per finding.

    Rows with columns ``input``, ``finding`` and ``auc`` become one row per input; ``X low`` beside ``X AUC`` becomes
    ``X AUC low``, and ``low`` beside ``accuracy`` becomes ``accuracy low``. None in a column of words is an empty cell:
    `table_of` would call it not measurable.
    """
    if not rows or not {"input", "finding", "auc"} <= set(rows[0]):
        words = {name for row in rows for name, value in row.items() if isinstance(value, str)}
        return [
            {_figure_of(name, row): "" if value is None and name in words else value for name, value in row.items()}
            for row in rows
        ]
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        own = found.setdefault(row["input"], {"input": row["input"], "leaky": row["leaky"]})
        own |= {f"{row['finding']} AUC{end}": row[f"auc{end.replace(' ', '_')}"] for end in ("", " low", " high")}
    return list(found.values())


def _figure_of(name: str, row: Mapping[str, Any]) -> str:
    """A bound's column with the name of the figure that it bounds."""
    stem, _, end = name.rpartition(" ")
    if end in ("low", "high"):
        return f"{stem} AUC {end}" if f"{stem} AUC" in row else name if stem else f"accuracy {end}"
    return name


def flat_text(flat: Mapping[str, Any], name: str) -> str:
    """A figure of flat names with its interval, which stands under ``name_low`` and ``name_high``."""
    low, high = flat.get(f"{name}_low"), flat.get(f"{name}_high")
    return figure_text(flat.get(name), None if low is None or high is None else (low, high))


def macro_row(name: str, report: ClassificationReport) -> list[Any]:
    """A table's row of means over findings: name and one cell per entry of `FIGURES`."""
    return [name, *(_cell(report, f"macro_{figure}") for figure in FIGURES)]


def figure_columns(first: str) -> list[str]:
    """Heads of a table whose rows hold `FIGURES`."""
    return [first, *(figure.replace("_", " ").replace("auc", "AUC").replace("f1", "F1") for figure in FIGURES)]


def _cell(report: Any, figure: str) -> str:
    return figure_text(getattr(report, figure), getattr(report, f"{figure}_interval"))


def _figures(judged: Judged, test: Embeddings, what: str, rivals: Mapping[str, ClassificationReport]) -> Section:
    report = judged.report
    rows = [[one.name, *(_cell(one, figure) for figure in FIGURES)] for one in report.findings]
    rows.append(macro_row("mean (macro)", report))
    counts = [[one.name, one.positives, one.negatives, one.threshold] for one in report.findings]
    tables = [
        Table(
            figure_columns("finding"),
            rows,
            f"{what}: figures on {report.items} test images of {report.groups} patients",
        ),
        Table(["finding", "with it", "without it", "threshold (logit)"], counts, "Test images and thresholds"),
    ]
    if rivals:
        own = [macro_row(what, report), *(macro_row(name, one) for name, one in rivals.items())]
        tables.append(Table(figure_columns("scores"), own, "Beside it, on the same images: means over the findings"))
    compared = [(what, report), *rivals.items()]
    bars = [
        IntervalRow(one.name, name, one.auc, one.auc_interval) for name, scores in compared for one in scores.findings
    ]
    bars.sort(key=lambda row: judged.names.index(row.group))
    labels, cuts = test.label.numpy(), [one.threshold for one in report.findings]
    intervals = [one.auc_interval for one in report.findings]
    pictures = [
        Picture(
            roc_figure(judged.logits, labels, judged.names, thresholds=cuts, intervals=intervals, title=what),
            "Sensitivity against false alarms for every threshold; the point is the threshold that validation chose.",
            f"ROC curves of {what}; macro AUC {figure_text(report.macro_auc)}.",
        ),
        Picture(
            interval_figure(bars, title=what),
            "AUC with 95 % interval per finding; the line at 0.5 is chance.",
            "; ".join(f"{row.group}, {row.name}: {figure_text(row.value, row.interval)}" for row in bars),
        ),
    ]
    said = [
        "Thresholds were chosen on validation images and judged on test images. In brackets: 95 % intervals from "
        "drawing patients again."
    ]
    return Section(f"Figures: {what}", said, tables, pictures)


def _calibration(judged: Judged, what: str) -> Section:
    rows, pictures = [], []
    for name, one in zip(judged.names, judged.calibrated, strict=True):
        found = one.as_dict()
        errors = [flat_text(found, f"{error}_{moment}") for error in ("ece", "brier") for moment in ("before", "after")]
        rows.append([name, one.temperature if one.temperature else f"none: {one.why_not}", *errors])
        if one.before is None or one.after is None:
            continue
        reports = {"as it is": one.before}
        if one.temperature:
            reports[f"temperature {one.temperature:.2f}"] = one.after
        pictures.append(
            Picture(
                reliability_figure(reports, title=name),
                f"{name}: on the diagonal, probabilities mean what they say.",
                f"Reliability of {name}: ECE {one.before.ece:.3f} as it is, {one.after.ece:.3f} with the temperature.",
            )
        )
    columns = ["finding", "temperature", "ECE before", "ECE after", "Brier before", "Brier after"]
    said = [
        "The temperature was fitted on validation images. It changes probabilities and no ranking; where the zero of a "
        "score lies elsewhere than between absent and present, no temperature can mend it."
    ]
    table = Table(columns, rows, f"{what}: calibration on test images")
    return Section(f"Calibration: {what}", said, [table], pictures)


def _subgroups(judged: Judged, what: str) -> Section:
    tables, pictures = [], []
    for name, rows in judged.by_subgroup.items():
        if not rows:
            continue
        tables.append(_subgroup_table(name, rows))
        overall = next(one.auc for one in judged.report.findings if one.name == name)
        if np.isfinite(overall):
            figure = subgroup_figure(rows, overall=overall, title=name)
            told = "; ".join(f"{row.covariate} {row.value}: {figure_text(row.auc, row.auc_interval)}" for row in rows)
            pictures.append(Picture(figure, f"{name}: AUC by subgroup.", told))
    said = ["Each group against all others; p values are corrected for how many were compared (Holm)."]
    return Section(f"Subgroups: {what}", said, tables, pictures)


def _subgroup_table(finding: str, rows: Sequence[Subgroup]) -> Table:
    columns = ["group", "items", "with it", "AUC", "difference to the rest", "p, corrected"]
    cells = [
        [
            f"{row.covariate}: {row.value}",
            row.items,
            row.positives,
            figure_text(row.auc, row.auc_interval),
            figure_text(row.difference, row.difference_interval),
            row.adjusted_p_value,
        ]
        for row in rows
    ]
    return Table(columns, cells, f"{finding} by subgroup")
