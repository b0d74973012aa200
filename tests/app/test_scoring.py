from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

pytest.importorskip("monailabel")

from monai_medclip.app.labels import ModelFacts, save_findings
from monai_medclip.app.scoring import ReadersAgreement
from monai_medclip.app.training import FitReaderProbe
from monai_medclip.engines import BundleModel

from .stores import folder_of_images, local_store

IMAGES = 24
REQUEST = {"method": "readers_agreement"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, xray_model: BundleModel) -> tuple[Any, np.ndarray, np.ndarray]:
    """Images, the model's logits of the first finding, and what readers say: the model's order with three exchanges."""
    store = local_store(folder_of_images(tmp_path_factory.mktemp("images"), IMAGES))
    names = sorted(store.list_images())
    logits = np.array([xray_model.scores(xray_model.study(store.get_image_uri(name)))[0].logit for name in names])
    present = logits > np.median(logits)
    present[[2, 9, 17]] ^= True
    first, second, third, *_ = xray_model.findings
    for number, name in enumerate(names):
        said = {first: bool(present[number])} | ({second: number == 0} if number < 8 else {}) | {third: False}
        save_findings(store, name, said, ModelFacts.of(xray_model))
    return store, logits, present


def test_zero_shot_figures_with_counts(scored: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    store, logits, present = scored
    result = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)
    row = result["zero_shot"][xray_model.findings[0]]
    assert (row["positives"], row["negatives"]) == (int(present.sum()), int((~present).sum()))
    assert (row["positive_patients"], row["negative_patients"]) == (row["positives"], row["negatives"])
    assert row["auc"] == pytest.approx(roc_auc_score(present, logits))
    assert row["auc_interval"][0] <= row["auc"] <= row["auc_interval"][1]
    assert row["sensitivity"] == pytest.approx(float((logits[present] >= 0).mean()))
    assert row["specificity"] == pytest.approx(float((logits[~present] < 0).mean()))
    assert (result["images"], result["patients"], result["unreadable"], result["damaged"]) == (IMAGES, IMAGES, 0, 0)
    assert result["probe"] is None


def test_too_few_readings_make_no_figure(scored: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    zero_shot = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, scored[0])["zero_shot"]
    _, second, third, fourth, *_ = xray_model.findings
    counts = {name: (zero_shot[name]["positives"], zero_shot[name]["negatives"]) for name in (second, third, fourth)}
    assert counts == {second: (1, 7), third: (0, IMAGES), fourth: (0, 0)}
    for name in counts:
        assert zero_shot[name]["note"].startswith("too few readings: 5 patients with and 5 without")
        assert "auc" not in zero_shot[name]


def test_patients_count_not_images(tmp_path: Path, xray_model: BundleModel) -> None:
    store = local_store(folder_of_images(tmp_path / "images", 16, per_patient=2))
    for number in range(16):
        findings = {xray_model.findings[0]: number < 8}
        save_findings(store, f"x{number:03d}", findings, ModelFacts.of(xray_model))
    row = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)["zero_shot"][xray_model.findings[0]]
    assert (row["positives"], row["positive_patients"], row["negative_patients"]) == (8, 4, 4)
    assert "note" in row


def test_the_probe_is_judged_on_patients_it_has_not_seen(tmp_path: Path, xray_model: BundleModel) -> None:
    store = local_store(folder_of_images(tmp_path / "images", 22, per_patient=2))
    first = xray_model.findings[0]

    def read(numbers: range) -> None:
        for number in numbers:
            findings = {first: number // 2 % 2 == 0}
            save_findings(store, f"x{number:03d}", findings, ModelFacts.of(xray_model))

    read(range(9))  # the tenth image is of the ninth's patient
    FitReaderProbe(xray_model, folder=tmp_path)(REQUEST, store)
    row = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)["probe"][first]
    assert (row["positives"], row["negatives"], row["fitted_on"]) == (0, 0, 9)
    assert "note" in row
    assert 0 <= row["cross_validated_auc"] <= 1
    read(range(9, 22))
    row = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)["probe"][first]
    assert (row["positives"], row["negatives"]) == (6, 6)
    assert (row["positive_patients"], row["negative_patients"]) == (3, 3)


def test_the_probes_figures_are_of_its_own_logits(
    tmp_path: Path, xray_model: BundleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = local_store(folder_of_images(tmp_path / "images", 16)), xray_model.findings[0]
    for number in range(16):
        if number == 4:
            FitReaderProbe(xray_model, folder=tmp_path)(REQUEST, store)
        findings = {first: number % 2 == 0}
        save_findings(store, f"x{number:03d}", findings, ModelFacts.of(xray_model))
    told = iter([1.0, -1.0] * 5 + [-1.0, 1.0])  # right of ten, wrong of two
    monkeypatch.setattr("monai_medclip.app.reader_probe.ReaderProbe.logits", lambda *given: {first: next(told)})
    row = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)["probe"][first]
    assert (row["positives"], row["negatives"]) == (6, 6)
    assert row["sensitivity"] == row["specificity"] == pytest.approx(5 / 6)
    assert row["auc"] == pytest.approx(5 / 6)


def test_bad_files_and_labels_are_counted(tmp_path: Path, xray_model: BundleModel) -> None:
    store = local_store(folder_of_images(tmp_path / "images", 3))
    for name in ("x000", "x001"):
        save_findings(store, name, {xray_model.findings[0]: True}, ModelFacts.of(xray_model))
    Path(store.get_image_uri("x001")).write_bytes(b"no DICOM")
    save_findings(store, "x002", {xray_model.findings[0]: True}, ModelFacts.of(xray_model)).write_text("{")
    scoring = ReadersAgreement(xray_model, folder=tmp_path)
    result = scoring(REQUEST, store)
    assert (result["images"], result["unreadable"], result["damaged"]) == (1, 1, 1)
    assert "x002" not in json.dumps(result)  # MONAI Label logs it
    assert "'x002' cannot be used" in scoring.info()["result"]["damaged_labels"][0]


def test_nobody_has_said_anything(tmp_path: Path, xray_model: BundleModel) -> None:
    store = local_store(folder_of_images(tmp_path / "images", 1))
    result = ReadersAgreement(xray_model, folder=tmp_path)(REQUEST, store)
    assert result["images"] == 0
    assert all("note" in row for row in result["zero_shot"].values())


def test_the_last_result_is_in_the_servers_info(scored: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    scoring = ReadersAgreement(xray_model, folder=tmp_path)
    assert list(scoring.info()) == ["description"]
    result = scoring(REQUEST, scored[0])  # MONAI Label runs it in another process
    info = ReadersAgreement(xray_model, folder=tmp_path).info()
    assert {
        key: value for key, value in info["result"].items() if key not in ("intended_use", "damaged_labels")
    } == result
    json.dumps(info, allow_nan=False)
