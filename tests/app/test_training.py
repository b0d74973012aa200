from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from monai_medclip.app.labels import ModelFacts, save_findings
from monai_medclip.app.training import FewReadingsError, FitReaderProbe, ReaderProbe
from monai_medclip.engines import RESEARCH_USE, BundleModel

from .stores import folder_of_images, local_store

IMAGES = 12
REQUEST = {"model": "reader_probe", "local_rank": 0}


@pytest.fixture
def store(tmp_path: Path, xray_model: BundleModel) -> Any:
    """Twelve images of six patients; the first finding is in every second patient, the second in nobody."""
    datastore = local_store(folder_of_images(tmp_path / "images", IMAGES, per_patient=2))
    first, second, *_ = xray_model.findings
    for number in range(IMAGES - 2):
        said = {first: number // 2 % 2 == 0, second: False}
        save_findings(datastore, f"x{number:03d}", said, ModelFacts.of(xray_model))
    return datastore


def test_training_fits_the_probe_on_the_readers_findings(store: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    task = FitReaderProbe(xray_model, folder=tmp_path / "probe")
    assert task.stats() == {}
    result = task(REQUEST, store)
    first, second, *others = xray_model.findings
    fit = result["findings"][first]
    assert (fit["positives"], fit["negatives"], fit["patients"]) == (6, 4, 5)
    assert (result["images"], result["patients"]) == (10, 5)
    assert set(result["left_out"]) == {second, *others}
    probe = ReaderProbe.load(tmp_path / "probe", xray_model)
    assert probe is not None
    embedding = xray_model.embedding(xray_model.study(store.get_image_uri("x011")))
    assert list(probe.probabilities(embedding)) == [first]


def test_stats_are_those_that_the_viewers_show(store: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    result = FitReaderProbe(xray_model, folder=tmp_path / "probe")(REQUEST, store)
    stats = FitReaderProbe(xray_model, folder=tmp_path / "probe").stats()  # as the server's own process reads them
    assert stats == {"intended_use": RESEARCH_USE, "damaged_labels": [], **json.loads(json.dumps(result))}
    assert stats["epoch"] == stats["total_epochs"] == 11
    assert stats["total_time"] > 0
    assert 0 <= stats["best_metric"] <= 1


def test_stats_grow_while_images_are_read(
    store: Any, xray_model: BundleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_medclip.app.training._EVERY", 0.0)
    task, stock, seen = FitReaderProbe(xray_model, folder=tmp_path / "probe"), BundleModel.study, []

    def study(model: BundleModel, path: str | Path) -> Any:
        seen.append(task.stats())
        return stock(model, path)

    monkeypatch.setattr(BundleModel, "study", study)
    task(REQUEST, store)
    assert [stats["epoch"] for stats in seen] == list(range(10))
    assert not any("total_time" in stats for stats in seen)


def test_a_training_that_was_stopped_goes_on(
    store: Any, xray_model: BundleModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, read = BundleModel.study, []

    def study(model: BundleModel, path: str | Path) -> Any:
        read.append(Path(path).name)
        if len(read) == 5:
            raise KeyboardInterrupt
        return stock(model, path)

    monkeypatch.setattr(BundleModel, "study", study)
    with pytest.raises(KeyboardInterrupt):
        FitReaderProbe(xray_model, folder=tmp_path / "probe")(REQUEST, store)
    assert ReaderProbe.load(tmp_path / "probe", xray_model) is None
    FitReaderProbe(xray_model, folder=tmp_path / "probe")(REQUEST, store)
    assert read == [f"x{number:03d}.dcm" for number in (0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9)]
    FitReaderProbe(xray_model, folder=tmp_path / "probe")(REQUEST, store)
    assert len(read) == 11


def test_bad_files_and_labels_cost_themselves_alone(store: Any, xray_model: BundleModel, tmp_path: Path) -> None:
    Path(store.get_image_uri("x003")).write_bytes(b"no DICOM")
    Path(store.get_label_uri("x004", "final")).write_text("{")
    task = FitReaderProbe(xray_model, folder=tmp_path / "probe")
    result = task(REQUEST, store)
    assert (result["images"], result["unreadable"], result["damaged"]) == (8, 1, 1)
    assert "x004" not in json.dumps(result)  # MONAI Label logs it
    (listed,) = task.stats()["damaged_labels"]
    assert "'x004' cannot be used" in listed


def test_too_few_findings_end_with_the_reason_in_the_stats(tmp_path: Path, xray_model: BundleModel) -> None:
    store = local_store(folder_of_images(tmp_path / "images", 2))
    save_findings(store, "x000", {xray_model.findings[0]: True}, ModelFacts.of(xray_model))
    task = FitReaderProbe(xray_model, folder=tmp_path / "probe")
    with pytest.raises(FewReadingsError, match="present in 1 and absent in 0 patients"):
        task(REQUEST, store)
    assert "present in 1 and absent in 0" in task.stats()["error"]
    assert task.stats()["total_time"] > 0


def test_nobody_is_named_in_logs_or_in_what_is_kept(
    store: Any, xray_model: BundleModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Path(store.get_image_uri("x003")).write_bytes(b"no DICOM")
    FitReaderProbe(xray_model, folder=tmp_path / "probe")(REQUEST, store)
    assert "cannot be read" in caplog.text
    written = b"".join(path.read_bytes() for path in (tmp_path / "probe").rglob("*") if path.is_file())
    for name in ("Plantagenet", "x003", str(tmp_path)):
        assert name not in "".join(record.getMessage() for record in caplog.records if "medclip" in record.name)
        assert name.encode() not in written
