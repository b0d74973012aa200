import csv
import json
import logging
from pathlib import Path
from types import ModuleType

import pytest
from monai.data import DataLoader, Dataset

from monai_medclip.engines import RESEARCH_USE, evaluate_clip
from monai_medclip.findings import Finding

FINDINGS = [Finding("nodule", ("spot", "nodule"), ("no spot",)), Finding("mass", ("lump", "mass"), ("no mass",))]


def loaders(words: ModuleType) -> dict[str, DataLoader]:
    seen = [
        ("nodule", "nodule", [1.0, 0.0]),
        ("mass", "mass", [0.0, 1.0]),
        ("clear lungs", "clear lungs", [0.0, 0.0]),
        ("nodule mass", "nodule mass", [1.0, float("nan")]),
        ("heart", "normal heart", [0.0, 0.0]),
        ("heart", "normal heart", [0.0, 0.0]),
    ]
    items = [words.item(number, *entry) for number, entry in enumerate(seen)]
    return {split: DataLoader(Dataset(items), batch_size=4) for split in ("val", "test")}


def test_known_figures_are_written_and_summarized(
    words: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = evaluate_clip(
            words.counting_clip(),
            loaders(words),
            FINDINGS,
            words.tokenizer,
            output_dir=str(tmp_path),
            bootstrap=50,
            baselines={"24 x 24 pixels": {"nodule": 0.6}},
        )
    metrics = json.loads(found.metrics_file.read_text())
    assert metrics["intended_use"] == RESEARCH_USE
    assert metrics["items"] == {"val": 6, "test": 6}
    assert metrics["zero_shot"]["macro_auc"] == 1.0
    assert metrics["zero_shot"]["rule"] == found.zero_shot.rule
    assert metrics["zero_shot"]["mass_negatives"] == 4  # one of six is unknown, one has it
    assert 0 <= metrics["zero_shot"]["nodule_auc_low"] <= 1
    assert "macro_auc" in metrics["zero_shot"]["name_pair"]
    retrieval = metrics["retrieval"]
    assert retrieval["tie_aware_text_to_image_recall@1"] == 1.0
    assert retrieval["strict_text_to_image_recall@1"] == pytest.approx(5 / 6)  # two identical items share a place
    assert retrieval["tie_aware_text_to_image_chance@1"] == pytest.approx((4 * 1 + 2 * 2) / 36)
    assert metrics["baselines"] == {"24 x 24 pixels": {"nodule": 0.6}}
    for text in ("zero-shot macro AUC 1.000", "name pair", "chance", "24 x 24 pixels", str(found.metrics_file)):
        assert text in caplog.text


def test_predictions_are_one_row_per_item(words: ModuleType, tmp_path: Path) -> None:
    found = evaluate_clip(
        words.counting_clip(), loaders(words), FINDINGS, words.tokenizer, output_dir=str(tmp_path), bootstrap=0
    )
    with found.predictions_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"i{number}" for number in range(6)]
    assert [row["mass label"] for row in rows] == ["0", "1", "0", "", "0", "0"]
    logits = [float(row["nodule logit"]) for row in rows]
    assert logits == pytest.approx(found.zero_shot.logits[:, 0].tolist(), abs=1e-12)


def test_same_data_same_files(words: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluate_clip(words.counting_clip(), loaders(words), FINDINGS, words.tokenizer, output_dir=str(tmp_path / name))
    for file in ("metrics.json", "predictions.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_without_findings_there_is_retrieval_alone(words: ModuleType, tmp_path: Path) -> None:
    test = {"test": loaders(words)["test"]}
    found = evaluate_clip(words.counting_clip(), test, [], words.tokenizer, output_dir=str(tmp_path))
    assert found.zero_shot is None
    assert found.predictions_file is None
    assert found.retrieval.tie_aware.image_to_text.recall[1] == 1.0


def test_a_missing_split_is_named(words: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs the splits \['test', 'val'\], given are \['test'\]"):
        evaluate_clip(words.counting_clip(), {"test": []}, FINDINGS, words.tokenizer, output_dir=str(tmp_path))


def test_thirds_of_a_covariate_stand_beside(
    words: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = loaders(words)
    ids = [str(name) for batch in made["test"] for name in batch.get("id", range(6))]
    sizes = {name: float(size) for name, size in zip(ids, (5, 6, 20, 21, 10, 11), strict=True)}
    with caplog.at_level(logging.INFO):
        evaluate_clip(
            words.counting_clip(),
            made,
            FINDINGS,
            words.tokenizer,
            output_dir=str(tmp_path),
            bootstrap=0,
            covariates={"diameter": sizes},
        )
    found = json.loads((tmp_path / "metrics.json").read_text())["within_thirds"]["diameter"]["nodule"]
    assert found["covariate_auc"] == 0.5  # nodules measure 5 and 21: one is smaller than all others, one larger
    assert found["tercile_1_auc"] == found["tercile_3_auc"] == 1.0
    assert found["tercile_2_auc"] is None  # 10 and 11 are both without one
    assert "AUC within thirds of diameter" in caplog.text
    with pytest.raises(ValueError, match="'diameter' has no value for 5 test items"):
        evaluate_clip(
            words.counting_clip(),
            made,
            FINDINGS,
            words.tokenizer,
            output_dir=str(tmp_path),
            covariates={"diameter": {ids[0]: 5.0}},
        )
