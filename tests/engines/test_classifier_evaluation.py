"""A classifier whose logit is the brightness of its image: figures, thresholds and files are known beforehand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medclip.engines import evaluate_classifier

NAN = float("nan")
VAL = [(-2.0, 0.0), (-1.0, 0.0), (1.0, 1.0), (2.0, 1.0)]
TEST = [(-3.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (3.0, 1.0), (0.5, 0.0), (2.0, NAN)]


class Brightness(nn.Module):
    """Two logits: the mean of the image, and minus it; dropout would change both."""

    findings = ("bright", "dark")

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, image: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        mean = self.dropout(image).flatten(1).mean(1)
        return torch.stack([mean, -mean], dim=1)


def batches(rows: list[tuple[float, float]], split: str, named: bool = True) -> list[dict[str, Any]]:
    """Two items per batch and patient; dark is not bright."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(rows), 2):
        some = rows[first : first + 2]
        batch: dict[str, Any] = {
            "image": torch.stack([torch.full((1, 4, 4), value) for value, _ in some]),
            "label": torch.tensor([[label, 1 - label] for _, label in some]),
        }
        if named:
            batch |= {"id": [f"{split}{first + n}" for n in range(len(some))], "patient_id": [f"p{first}"] * len(some)}
        found.append(batch)
    return found


def loaders(test: list[tuple[float, float]] = TEST) -> dict[str, list[dict[str, Any]]]:
    return {"val": batches(VAL, "v"), "test": batches(test, "t")}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_figures_by_hand_and_files(tmp_path: Path) -> None:
    found = evaluate_classifier(Brightness(), loaders(), output_dir=str(tmp_path), bootstrap=20)
    bright, dark = found.judged.report.findings
    assert [bright.auc, dark.auc] == pytest.approx([5 / 6] * 2)  # of six pairs one is in the wrong order
    assert (bright.positives, bright.negatives, found.judged.report.groups) == (2, 3, 3)
    assert -1 < bright.threshold <= 1
    metrics = json.loads(found.metrics_file.read_text())["classification"]
    assert metrics["macro_auc"] == pytest.approx(5 / 6)
    assert metrics["bright_threshold"] == bright.threshold
    rows = table(tmp_path)
    assert [row["id"] for row in rows] == [f"t{n}" for n in range(6)]
    assert [float(row["bright logit"]) for row in rows] == pytest.approx([value for value, _ in TEST])
    assert [float(row["dark logit"]) for row in rows] == pytest.approx([-value for value, _ in TEST])
    assert [row["bright label"] for row in rows] == ["0", "1", "0", "1", "0", ""]
    assert [int(row["bright called"]) for row in rows] == [int(value >= bright.threshold) for value, _ in TEST]
    page = found.report_file.read_text()
    assert "bright" in page
    assert "0.833" in page
    assert 'src="http' not in page
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4


def test_thresholds_and_temperatures_do_not_know_the_test_labels(tmp_path: Path) -> None:
    turned = [(value, 1 - label) for value, label in TEST]
    one, other = (
        evaluate_classifier(Brightness(), loaders(rows), output_dir=str(tmp_path), bootstrap=0).judged
        for rows in (TEST, turned)
    )
    assert [finding.threshold for finding in one.report.findings] == [f.threshold for f in other.report.findings]
    assert [each.temperature for each in one.calibrated] == [each.temperature for each in other.calibrated]
    assert one.report.macro_auc == pytest.approx(1 - other.report.macro_auc)


def test_same_data_same_files_and_the_mode_comes_back(tmp_path: Path) -> None:
    classifier = Brightness().train()
    for name in ("a", "b"):
        evaluate_classifier(classifier, loaders(), output_dir=str(tmp_path / name), bootstrap=20)
    assert classifier.training
    for file in ("metrics.json", "predictions.csv", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_items_give_figures_by_subgroup(tmp_path: Path) -> None:
    rows = [(0.1 * n * (1 if n % 2 else -1), float(n % 2)) for n in range(40)]
    items = [{"id": f"t{n}", "view": ("PA", "AP")[n // 2 % 2]} for n in range(40)]
    found = evaluate_classifier(Brightness(), loaders(rows), output_dir=str(tmp_path), items=items, bootstrap=20)
    assert {row.value for row in found.judged.by_subgroup["bright"]} == {"PA", "AP"}
    without = evaluate_classifier(Brightness(), loaders(rows), output_dir=str(tmp_path), items=items[:3], bootstrap=20)
    assert without.judged.by_subgroup == {}  # items that are not the loader's say nothing


def test_items_without_names_are_counted(tmp_path: Path) -> None:
    made = {"val": batches(VAL, "v"), "test": batches(TEST, "t", named=False)}
    found = evaluate_classifier(Brightness(), made, output_dir=str(tmp_path), bootstrap=0)
    assert [row["id"] for row in table(tmp_path)] == [str(n) for n in range(6)]
    assert found.judged.report.groups == 6


def test_missing_and_empty_splits_are_refused(tmp_path: Path) -> None:
    made = loaders()
    with pytest.raises(ValueError, match=r"needs the splits \['test', 'val'\], given are \['test'\]"):
        evaluate_classifier(Brightness(), {"test": made["test"]}, output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="the loader is empty"):
        evaluate_classifier(Brightness(), {**made, "val": []}, output_dir=str(tmp_path))


def test_labels_of_other_findings_are_refused(tmp_path: Path) -> None:
    made = loaders()
    for batch in (*made["val"], *made["test"]):
        batch["label"] = batch["label"][:, :1]
    with pytest.raises(ValueError, match=r"2 logits, the items have 1 labels.*\['bright', 'dark'\]"):
        evaluate_classifier(Brightness(), made, output_dir=str(tmp_path))
