"""The report of a question: pictures are kept as PNG too, the page stands alone, and tables say what was measured."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monai_medclip.audits import AuditResult
from monai_medclip.engines import AnswerPage, Embeddings, Judged, audit_sections, judge, judged_sections
from monai_medclip.engines.answer_page import FIGURES, figure_columns, flat_text, macro_row, wide_rows
from monai_medclip.writers import Picture, Section, confusion_figure, figure_text
from monai_medclip.writers.saving import figure_png

NAMES = ("nodule", "mass")


def labeled(labels: np.ndarray) -> Embeddings:
    count, empty = len(labels), torch.zeros(len(labels), 0)
    ids = tuple(f"i{n}" for n in range(count))
    return Embeddings(empty, empty, torch.arange(count), torch.tensor(labels).float(), ids, ids)


def judged_case(covariates: dict | None = None) -> tuple[Judged, Embeddings]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 2)).astype(float)
    logits, test = rng.normal(size=(40, 2)) + 2 * labels - 1, labeled(labels)
    return judge(NAMES, logits, test, logits + 0.1, test, covariates=covariates, bootstrap=20), test


def picture(content: object = None) -> Picture:
    return Picture(content or confusion_figure([[2, 1], [0, 3]], ["a", "b"]), "caption", "alt")


def test_pictures_are_numbered_through_and_named_by_kind(tmp_path: Path) -> None:
    page, png = AnswerPage(tmp_path, "Title"), figure_png(confusion_figure([[2, 1], [0, 3]], ["a", "b"]))
    page.add([Section("one", pictures=[picture(), picture(png)]), Section("without")], "roc")
    page.add([Section("two", pictures=[picture()])], "audit")
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["01_roc.png", "02_roc.png", "03_audit.png"]
    assert (tmp_path / "pictures" / "02_roc.png").read_bytes() == png
    with Image.open(tmp_path / "pictures" / "03_audit.png") as read:
        assert read.size > (100, 100)


def test_the_page_stands_alone_and_explains_the_terms_that_it_uses(tmp_path: Path) -> None:
    page = AnswerPage(tmp_path, "Title")
    page.add([Section("Figures", ["Macro AUC of all."], pictures=[picture()])], "roc")
    path = page.write(["The AUC is 0.9."])
    html = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html"
    assert not re.search(r"https?:|<script|<link|<iframe", re.sub(r"base64,[^\"]+", "", html))
    (shown,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert html.count("<img") == 1
    assert base64.b64decode(shown) == (tmp_path / "pictures" / "01_roc.png").read_bytes()
    assert html.index("The AUC is 0.9.") < html.index("Macro AUC of all.") < html.rindex("What the words mean")
    plain = AnswerPage(tmp_path / "plain", "Title")
    plain.add([Section("Nothing measured")], "none")
    assert "What the words mean" not in plain.write(["Words."]).read_text(encoding="utf-8")


def test_sections_hold_the_judged_figures() -> None:
    judged, test = judged_case()
    figures, calibration = judged_sections(judged, test, what="zero-shot", rivals={"name pair": judged.report})
    of_findings, counts, beside = (table.checked() for table in figures.tables)
    first = judged.report.findings[0]
    assert of_findings.rows[0][:2] == ["nodule", figure_text(first.auc, first.auc_interval)]
    assert of_findings.rows[2] == macro_row("mean (macro)", judged.report)
    assert list(counts.rows[0]) == ["nodule", first.positives, first.negatives, first.threshold]
    assert [row[0] for row in beside.rows] == ["zero-shot", "name pair"]
    assert beside.rows[0][1:] == beside.rows[1][1:]
    assert len(figures.pictures) == 2
    (errors,) = calibration.tables
    temperature, before = judged.calibrated[1].temperature, judged.calibrated[1].before
    assert list(errors.rows[1][:2]) == ["mass", temperature]
    assert errors.rows[1][2] == figure_text(before.ece, before.ece_interval)
    assert len(calibration.pictures) == 2
    assert "ECE" in calibration.pictures[0].alt


def test_subgroups_have_a_section_where_there_are_any() -> None:
    judged, test = judged_case({"sex": ["f", "m"] * 20})
    section = judged_sections(judged, test, what="probe")[-1]
    assert section.title == "Subgroups: probe"
    assert [row[0] for row in section.tables[0].rows] == ["sex: f", "sex: m"]
    assert [row[1] for row in section.tables[0].rows] == [20, 20]
    assert len(section.pictures) == 2


def test_a_finding_without_a_temperature_says_why() -> None:
    labels = np.ones((6, 1))
    test = labeled(labels)
    judged = judge(["nodule"], np.ones((6, 1)), test, np.ones((6, 1)), test, bootstrap=0)
    _, calibration = judged_sections(judged, test, what="probe")
    assert "none: a temperature needs items of both classes" in calibration.tables[0].rows[0][1]


def test_heads_name_every_figure_of_a_row() -> None:
    judged, _ = judged_case()
    assert len(figure_columns("finding")) == len(macro_row("mean", judged.report)) == len(FIGURES) + 1
    assert figure_columns("finding")[:2] == ["finding", "AUC"]
    assert "F1" in figure_columns("finding")


def test_a_flat_figure_is_written_with_its_interval() -> None:
    flat = {"auc": 0.91234, "auc_low": 0.85, "auc_high": 0.95, "rank": 3.0}
    assert flat_text(flat, "auc") == "0.912 [0.850, 0.950]"
    assert flat_text(flat, "rank") == figure_text(3.0)
    assert flat_text(flat, "absent") == figure_text(None)


def test_an_audits_rows_become_one_row_per_input() -> None:
    rows = [
        {"input": name, "leaky": leaky, "finding": finding, "auc": auc, "auc_low": auc - 0.1, "auc_high": auc + 0.1}
        for name, leaky, auc in (("image", False, 0.7), ("text", True, 0.9))
        for finding in ("macro", "mass")
    ]
    image, text = wide_rows(rows)
    assert list(image) == [
        "input", "leaky", "macro AUC", "macro AUC low", "macro AUC high", "mass AUC", "mass AUC low", "mass AUC high"
    ]  # fmt: skip
    assert (text["input"], text["leaky"], text["mass AUC"]) == ("text", True, 0.9)
    assert image["macro AUC low"] == pytest.approx(0.6)
    assert wide_rows([]) == []


def test_bounds_are_named_by_their_figure() -> None:
    (row,) = wide_rows([{"finding": "mass", "accuracy": 0.6, "low": 0.5, "high": 0.7}])
    assert row == {"finding": "mass", "accuracy": 0.6, "accuracy low": 0.5, "accuracy high": 0.7}
    (row,) = wide_rows([{"input": "padding", "mass AUC": 0.6, "mass low": 0.5, "mass high": 0.7}])
    assert row == {"input": "padding", "mass AUC": 0.6, "mass AUC low": 0.5, "mass AUC high": 0.7}


def test_audits_are_warnings_with_their_verdict_first() -> None:
    leaks = AuditResult("leakage", "It leaks.", ({"rule": "patient", "share": math.nan},), warning=True)
    sections = audit_sections({"leakage": leaks, "sides": AuditResult("sides", "Unknown.", (), warning=False)})
    assert [(one.title, one.warning) for one in sections] == [("Audit: leakage", True), ("Audit: sides", False)]
    assert sections[0].paragraphs == ["It leaks."]
    assert sections[0].tables[0].columns == ["rule", "share"]
    assert list(sections[1].tables) == []
