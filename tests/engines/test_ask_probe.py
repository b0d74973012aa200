"""Asked by training a little: the written figures are the functions' own, and what reads the answer is marked so."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_medclip.engines import (
    Auditor,
    EmbeddingStore,
    ProbeAnswer,
    ProbeInput,
    ask_probe,
    evaluate_zero_shot,
    few_shot,
    fit_probe,
    judge,
    write_csv,
    write_json,
)
from monai_medclip.metrics import classification, delong, holm
from monai_medclip.networks import load_probe
from monai_medclip.transforms import collate_reports
from monai_medclip.writers import figure_text

from .store_cases import FINDINGS, NAMES, patients, store, tokenizer

INPUTS = ("image", "indication", "findings", "image+text", "impression")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    folder = tmp_path_factory.mktemp("data")
    return store(folder, {split: patients(folder, split, n) for split, n in (("train", 12), ("val", 8), ("test", 10))})


@pytest.fixture(scope="module")
def fine_tuned(asked: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a classifier that is always right, in another order than the test items."""
    folder, test = tmp_path_factory.mktemp("fine_tuned"), asked["test"]
    logits = 2 * test.label.numpy() - 1
    rows = [{"id": i, **{f"{n} logit": v for n, v in zip(NAMES, row)}} for i, row in zip(test.ids, logits.tolist())]
    write_csv(folder / "predictions.csv", [{"id": "not asked", "nodule logit": 0, "mass logit": 0}, *rows[::-1]])
    write_json(folder / "metrics.json", {"classification": {"nodule_threshold": 0.5, "mass_threshold": 2.0}})
    return folder


@pytest.fixture(scope="module")
def answer(asked: EmbeddingStore, fine_tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> ProbeAnswer:
    return ask_probe(
        asked,
        NAMES,
        output_dir=str(tmp_path_factory.mktemp("answer")),
        inputs=INPUTS,
        heads=("logistic",),
        prompts=FINDINGS,
        tokenizer=tokenizer,
        fine_tuned={"ResNet": str(fine_tuned)},
        shots=(1, 3),
        draws=2,
        auditor=Auditor(asked, FINDINGS, tokenizer, bootstrap=20),
        audits=["leakage"],
        bootstrap=20,
    )


@pytest.fixture(scope="module")
def metrics(answer: ProbeAnswer) -> dict[str, Any]:
    return json.loads(answer.metrics_file.read_text())


def test_figures_are_those_of_the_functions_themselves(
    asked: EmbeddingStore, answer: ProbeAnswer, metrics: dict
) -> None:
    for name in ("image", "image+text"):
        probe = fit_probe(asked, NAMES, ProbeInput.named(name))
        expected = judge(NAMES, probe.val_logits, asked["val"], probe.test_logits, asked["test"], bootstrap=20)
        found = answer.judged[f"{name}, logistic"]
        assert found.report == expected.report
        assert found.calibrated == expected.calibrated
        written = metrics["probes"][f"{name}, logistic"]
        assert written["macro_auc"] == expected.report.macro_auc
        assert written["nodule_auc_high"] == expected.report.findings[0].auc_interval[1]
        assert written["nodule C"] == probe.settings["nodule C"]
    asked_in_words = evaluate_zero_shot(asked.clip, asked["val"], asked["test"], FINDINGS, tokenizer, bootstrap=20)
    assert metrics["zero_shot"]["macro_auc"] == asked_in_words.report.macro_auc
    curves = few_shot(asked, NAMES, shots=(1, 3), draws=2, bootstrap=20)
    assert answer.few == curves
    everyone = curves["mass"][-1]
    expected_entry = {"cases": None, "values": list(everyone.values), "interval": list(everyone.interval)}
    assert metrics["few_shot"]["mass"][-1] == expected_entry
    assert set(answer.judged["image, logistic"].by_subgroup["nodule"][0].value) <= {"P", "A"}  # the main one only
    assert answer.judged["image+text, logistic"].by_subgroup == {}


def test_inputs_that_hold_the_answer_are_marked(answer: ProbeAnswer, metrics: dict) -> None:
    leaky = {name: one["leaky"] for name, one in metrics["probes"].items()}
    assert leaky == {
        "image, logistic": False,
        "indication, logistic": False,
        "findings, logistic": True,
        "image+text, logistic": True,
    }
    html = answer.report_file.read_text(encoding="utf-8")
    assert "findings, logistic (leaky)" in html
    assert "image, logistic (leaky)" not in html
    assert "A leaky probe reads findings or impression" in html


def test_an_input_that_no_report_has_is_left_out_and_said_so(answer: ProbeAnswer, metrics: dict) -> None:
    assert list(metrics["left_out"]) == ["impression"]
    assert "has text under impression" in metrics["left_out"]["impression"]
    assert "Left out, since no report has such a section: impression." in answer.report_file.read_text()


def test_the_leakage_audit_knows_what_the_probes_read(answer: ProbeAnswer) -> None:
    assert answer.audits["leakage"].warning  # one of them reads the whole text beside the image


def test_a_fine_tuned_classifier_stands_beside_at_its_own_thresholds(
    asked: EmbeddingStore, answer: ProbeAnswer, metrics: dict
) -> None:
    beside, test = metrics["fine_tuned"]["ResNet"], asked["test"]
    label = test.label.numpy()
    expected = classification(
        2 * label - 1, label, NAMES, groups=np.array(test.patients), threshold=[0.5, 2.0], bootstrap=20
    )
    assert beside["macro_auc"] == expected.macro_auc == 1.0
    assert beside["nodule_sensitivity"] == 1.0
    assert beside["mass_sensitivity"] == 0.0  # its threshold is above every score
    assert "ResNet" in answer.report_file.read_text(encoding="utf-8")


def test_a_classifier_of_another_split_or_other_findings_is_refused(
    asked: EmbeddingStore, fine_tuned: Path, tmp_path: Path
) -> None:
    options = {"output_dir": str(tmp_path / "answer"), "inputs": ("image",), "heads": ("logistic",), "bootstrap": 0}
    with (fine_tuned / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    other, fewer, absent = tmp_path / "other", tmp_path / "fewer", tmp_path / "absent"
    for folder in (other, fewer):
        write_json(folder / "metrics.json", {"classification": {"nodule_threshold": 0.5, "mass_threshold": 2.0}})
    write_csv(other / "predictions.csv", rows[:-1])
    write_csv(fewer / "predictions.csv", [{"id": row["id"], "nodule logit": row["nodule logit"]} for row in rows])
    with pytest.raises(
        ValueError, match=rf"lacks 1 of the test items, first \['{rows[-1]['id']}'\]: train on the same"
    ):
        ask_probe(asked, NAMES, fine_tuned={"other": str(other)}, **options)
    with pytest.raises(ValueError, match=r"has no scores of \['mass'\]"):
        ask_probe(asked, NAMES, fine_tuned={"fewer": str(fewer)}, **options)
    with pytest.raises(FileNotFoundError, match="train that classifier first"):
        ask_probe(asked, NAMES, fine_tuned={"absent": str(absent)}, **options)


def test_differences_are_delongs_corrected_over_all_of_them(asked: EmbeddingStore, answer: ProbeAnswer) -> None:
    probes = {name: fit_probe(asked, NAMES, ProbeInput.named(name)).test_logits for name in INPUTS[:4]}
    test, expected = asked["test"], []
    zero_shot = evaluate_zero_shot(asked.clip, asked["val"], test, FINDINGS, tokenizer, bootstrap=0).logits.numpy()
    right = 2 * test.label.numpy() - 1  # the fine-tuned classifier's
    others = {
        **{f"{n}, logistic": v for n, v in probes.items() if n != "image"},
        "ResNet": right,
        "zero-shot": zero_shot,
    }
    for f, finding in enumerate(NAMES):
        for name, logits in others.items():
            labels, groups = test.label[:, f].numpy(), np.array(test.patients)
            expected.append((finding, name, delong(logits[:, f], probes["image"][:, f], labels, groups=groups)))
    assert [(one.finding, one.first) for one in answer.comparisons] == [pair[:2] for pair in expected]
    assert {one.second for one in answer.comparisons} == {"image, logistic"}
    found = [one.difference.difference for one in answer.comparisons]
    assert np.allclose(found, [one[2].difference for one in expected])
    adjusted = holm([one.difference.p_value for one in answer.comparisons])
    assert [one.adjusted_p_value for one in answer.comparisons] == pytest.approx(adjusted.tolist())


def test_predictions_hold_the_first_probe_at_length_and_the_others_logits(
    asked: EmbeddingStore, answer: ProbeAnswer
) -> None:
    with answer.predictions_file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == list(asked["test"].ids)
    for f, name in enumerate(NAMES):
        main = [float(row[f"{name} logit"]) for row in rows]
        assert np.allclose(main, answer.judged["image, logistic"].logits[:, f])
        other = [float(row[f"{name} logit (findings, logistic)"]) for row in rows]
        assert np.allclose(other, answer.judged["findings, logistic"].logits[:, f])


def test_saved_probes_give_the_written_logits(asked: EmbeddingStore, answer: ProbeAnswer) -> None:
    assert sorted(path.name for path in answer.probe_files.values()) == [
        "probe_image+text_logistic.pt",
        "probe_image_logistic.pt",
    ]
    image = collate_reports(list(asked.dataset("test")))["image"]
    probe = load_probe(asked.clip, answer.probe_files["image, logistic"]).eval()
    assert np.allclose(probe(image).detach().numpy(), answer.judged["image, logistic"].logits, atol=1e-4)


def test_the_report_stands_alone_and_has_all_questions(answer: ProbeAnswer) -> None:
    html = answer.report_file.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link", re.sub(r"base64,[^\"]+", "", html))
    for title in ("By what the probe reads", "With few labeled cases", "Differences", "Audit: leakage"):
        assert title in html
    report = answer.judged["image, logistic"].report
    assert figure_text(report.macro_auc, report.macro_auc_interval) in html
    pictures = list((answer.report_file.parent / "pictures").iterdir())
    assert len(pictures) == html.count("<img")


def test_the_same_data_make_the_same_files(asked: EmbeddingStore, tmp_path: Path) -> None:
    options = {"inputs": ("image",), "heads": ("mlp", "logistic"), "shots": (1,), "draws": 2, "bootstrap": 0}
    for name in ("one", "two"):
        ask_probe(asked, NAMES, output_dir=str(tmp_path / name), **options)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.csv", "report.html", "probe_image_mlp.pt"} <= {str(file) for file in files}
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_what_cannot_be_asked_is_refused(asked: EmbeddingStore, tmp_path: Path) -> None:
    folder = str(tmp_path / "answer")
    with pytest.raises(ValueError, match="a probe needs findings with labels"):
        ask_probe(asked, (), output_dir=folder)
    with pytest.raises(ValueError, match=r"none of the inputs \['impression'\] is there: none of the 24 reports"):
        ask_probe(asked, NAMES, output_dir=folder, inputs=("impression",))
    with pytest.raises(ValueError, match="no item of 60 has the finding 'heart'"):
        ask_probe(asked, [*NAMES, "heart"], output_dir=folder)
    assert not Path(folder).exists()
