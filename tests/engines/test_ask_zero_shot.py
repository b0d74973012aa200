"""Asked in words: what is written are the functions' own figures, and the same data make the same files."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_medclip.audits import AuditResult
from monai_medclip.engines import (
    Auditor,
    EmbeddingStore,
    ZeroShotAnswer,
    ask_zero_shot,
    auditing,
    choose_class,
    evaluate_zero_shot,
    judge,
)
from monai_medclip.findings import Finding

from .store_cases import FINDINGS, NAMES, clip, patients, store, tokenizer

CLASSES = ({"name": "nodule", "positive": ["spot"]}, {"name": "mass", "positive": ["lump"]})


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Items of both findings count as nodules, where one class is to be chosen."""
    folder = tmp_path_factory.mktemp("images")
    found = {split: patients(folder, split, count) for split, count in (("train", 8), ("val", 8), ("test", 9))}
    return {split: [{**item, "labels": item["labels"][:1]} for item in items] for split, items in found.items()}


@pytest.fixture(scope="module")
def asked(splits: dict, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return store(tmp_path_factory.mktemp("store"), splits)


@pytest.fixture(scope="module")
def answer(asked: EmbeddingStore, splits: dict, tmp_path_factory: pytest.TempPathFactory) -> ZeroShotAnswer:
    untrained = clip()
    untrained.image_projection.weight.data.neg_()
    return ask_zero_shot(
        asked,
        FINDINGS,
        tokenizer,
        output_dir=str(tmp_path_factory.mktemp("answer")),
        classes=CLASSES,
        before=store(tmp_path_factory.mktemp("before"), splits, untrained),
        auditor=Auditor(asked, FINDINGS, tokenizer, bootstrap=20),
        audits=["negation"],
        in_batch=8,
        bootstrap=20,
    )


@pytest.fixture(scope="module")
def metrics(answer: ZeroShotAnswer) -> dict[str, Any]:
    return json.loads(answer.metrics_file.read_text())


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_figures_are_those_of_the_functions_themselves(
    asked: EmbeddingStore, answer: ZeroShotAnswer, metrics: dict
) -> None:
    val, test = asked["val"], asked["test"]
    expected = evaluate_zero_shot(asked.clip, val, test, FINDINGS, tokenizer, bootstrap=20)
    assert answer.asked.report == expected.report
    judged = judge(NAMES, expected.val_logits, val, expected.logits, test, bootstrap=20)
    assert answer.judged.report == judged.report
    assert answer.judged.calibrated == judged.calibrated
    chosen, _ = choose_class(asked.clip, test, asked.kept("test"), CLASSES, tokenizer, bootstrap=20)
    assert answer.chosen == chosen
    assert metrics["zero_shot"]["rule"] == expected.rule
    assert metrics["zero_shot"]["macro_auc"] == expected.report.macro_auc
    assert metrics["zero_shot"]["nodule_auc_low"] == expected.report.findings[0].auc_interval[0]
    assert metrics["zero_shot"]["name_pair"]["macro_auc"] == expected.name_pair.macro_auc
    assert metrics["zero_shot"]["calibration"]["mass"]["ece_before"] == judged.calibrated[1].before.ece
    assert metrics["classes"]["accuracy"] == chosen.accuracy
    assert metrics["classes"]["confusion"] == [list(row) for row in chosen.confusion]
    assert metrics["items"] == {"train": 16, "val": 16, "test": 18}
    assert list(metrics["tables"]) == ["before training", "after training"]
    assert metrics["tables"]["after training"]["test"]["zero_shot"]["macro_auc"] == expected.report.macro_auc
    assert "audits" in metrics
    assert metrics["intended_use"]


def test_predictions_are_one_row_per_test_image(asked: EmbeddingStore, answer: ZeroShotAnswer) -> None:
    rows, test = rows_of(answer.predictions_file), asked["test"]
    assert [row["id"] for row in rows] == list(test.ids)
    assert [row["patient_id"] for row in rows] == list(test.patients)
    for f, name in enumerate(NAMES):
        logits = np.array([float(row[f"{name} logit"]) for row in rows])
        assert np.allclose(logits, answer.asked.logits[:, f], atol=1e-6)
        assert [int(row[f"{name} label"]) for row in rows] == test.label[:, f].tolist()
        cut = answer.judged.report.findings[f].threshold
        assert [int(row[f"{name} called"]) for row in rows] == (logits >= cut).astype(int).tolist()
    known = [row for row in rows if row["class"]]
    hits = [row["class"] == row["chosen class"] for row in known]
    assert np.mean(hits) == pytest.approx(answer.chosen.accuracy)
    assert len(rows) - len(known) == answer.chosen.unknown > 0  # patients with neither
    for row in rows:
        assert row["chosen class"] == max(NAMES, key=lambda name: float(row[f"{name} class probability"]))


def test_probabilities_of_findings_and_of_classes_are_both_kept(answer: ZeroShotAnswer) -> None:
    """A finding and a class of the same name have a column each."""
    rows = rows_of(answer.predictions_file)
    for f, name in enumerate(NAMES):
        found = [float(row[f"{name} probability"]) for row in rows]
        assert np.allclose(found, answer.judged.probabilities[:, f])
    shares = [[float(row[f"{name} class probability"]) for name in NAMES] for row in rows]
    assert np.allclose(np.sum(shares, axis=1), 1, atol=1e-5)


def test_the_report_stands_alone_with_audits_beside_the_figures(answer: ZeroShotAnswer) -> None:
    html = answer.report_file.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link", re.sub(r"base64,[^\"]+", "", html))
    for title in ("Figures: zero-shot", "One class out of many", "Before and after training", "Audit: negation"):
        assert title in html
    pictures = sorted((answer.report_file.parent / "pictures").iterdir())
    assert len(pictures) == html.count("<img")
    assert pictures[0].name == "01_zero_shot.png"
    assert answer.audits["negation"].warning  # the model that counts words is fooled by "no"
    assert "Warning: Audit: negation" in html


def test_the_same_data_make_the_same_files(asked: EmbeddingStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ask_zero_shot(asked, (), tokenizer, output_dir=str(tmp_path / name), classes=CLASSES, bootstrap=20)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 4
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_classes_alone_need_no_labels_of_findings(asked: EmbeddingStore, tmp_path: Path) -> None:
    found = ask_zero_shot(asked, (), tokenizer, output_dir=str(tmp_path), classes=CLASSES, bootstrap=0)
    assert (found.asked, found.judged) == (None, None)
    rows = rows_of(found.predictions_file)
    assert list(rows[0])[:4] == ["id", "patient_id", "class", "chosen class"]
    assert "zero_shot" not in json.loads(found.metrics_file.read_text())
    assert list(json.loads(found.metrics_file.read_text())["tables"]) == ["the network"]


def test_shortcuts_are_judged_beside_the_models_own_figure(
    asked: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def judged(result: AuditResult, report: Any) -> AuditResult:
        seen.append(report)
        return result._replace(verdict="judged beside the model")

    stock = AuditResult("shortcuts", "alone", (), warning=False)
    monkeypatch.setitem(auditing.AUDITS, "shortcuts", lambda auditor, options: stock)
    monkeypatch.setattr(sys.modules["monai_medclip.engines.ask_zero_shot"], "judge_shortcuts", judged)
    auditor = Auditor(asked, FINDINGS, tokenizer, bootstrap=0)
    found = ask_zero_shot(
        asked, FINDINGS, tokenizer, output_dir=str(tmp_path), auditor=auditor, audits=["shortcuts"], bootstrap=0
    )
    assert seen == [found.judged.report]
    assert json.loads(found.metrics_file.read_text())["audits"]["shortcuts"]["verdict"] == "judged beside the model"


def test_what_cannot_be_asked_is_refused(asked: EmbeddingStore, tmp_path: Path) -> None:
    folder = str(tmp_path / "answer")
    with pytest.raises(ValueError, match="zero-shot needs something to ask"):
        ask_zero_shot(asked, (), tokenizer, output_dir=folder)
    with pytest.raises(ValueError, match="no item of 50 has the finding 'heart'"):
        ask_zero_shot(asked, [*FINDINGS, Finding("heart", ("heart",), ())], tokenizer, output_dir=folder)
    pooled = store(tmp_path, asked.items, space="pooled")
    with pytest.raises(ValueError, match="zero-shot compares images with texts, and space='pooled'"):
        ask_zero_shot(pooled, FINDINGS, tokenizer, output_dir=folder)
    assert not Path(folder).exists()
