"""The shortcut audit: a label that is written beside the anatomy is found where it is written, and named."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from monai_medclip.audits.logistic import fit_logistic
from monai_medclip.audits.result import AuditResult
from monai_medclip.audits.shortcut import judge_shortcuts, shortcuts
from monai_medclip.audits.shortcut_features import shortcut_inputs
from monai_medclip.data import read_manifest
from monai_medclip.metrics import ClassificationReport, classification
from monai_medclip.networks import SmallCNN
from monai_medclip.transforms import CheckedDataset, DisplayOrderd, FitImaged, LoadRadiographd

from .shortcut_cases import dataset

FINDING = ("pneumonia",)
QUICK = partial(fit_logistic, strengths=(0.01,))


def audit(write: Any, **arguments: Any) -> dict[str, Any]:
    spatial_dims = arguments.pop("spatial_dims", 2)
    train, test = (dataset(write, seed=seed, spatial_dims=spatial_dims) for seed in (0, 1))
    result = shortcuts(train, test, FINDING, fit=QUICK, bootstrap=100, **arguments)
    assert len({tuple(row) for row in result.rows}) == 1  # one set of columns
    return {row["input"]: row["pneumonia AUC"] for row in result.rows}


def test_a_label_in_the_size_of_the_file_is_in_no_pixel() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["file"] = {"spatial_shape": np.array([500 + 100 * truth, 400])}

    found = audit(write)
    assert found["image size"] == 1.0
    assert abs(found["24 x 24 pixels"] - 0.5) < 0.2
    assert abs(found["intensity histogram"] - 0.5) < 0.2


def test_a_label_in_the_brightness_is_in_the_statistics_and_not_in_the_size() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["image"] = item["image"] + 0.1 * truth
        item["file"] = {"spatial_shape": np.array([500, 400])}

    found = audit(write, encoder=SmallCNN(96, in_channels=1, channels=(8, 8), width=16))
    assert found["intensity statistics"] == found["intensity histogram"] == found["24 x 24 pixels"] == 1.0
    assert found["untrained encoder"] > 0.9
    assert found["image size"] == 0.5


def test_a_label_in_the_end_that_lies_outside_the_volume_is_in_the_padding_alone() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["image"][:, -1 if truth else 0] = rng.normal(0.5, 0.1)

    found = audit(write, spatial_dims=3)
    assert found["padding"] == 1.0
    assert abs(found["intensity statistics"] - 0.5) < 0.2
    assert abs(found["24 x 24 pixels"] - 0.5) < 0.2


def test_a_label_in_the_view_is_in_the_metadata() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item |= {"view": "AP" if truth else "PA"}

    assert audit(write)["metadata"] == 1.0
    assert "metadata" not in audit(write, metadata=("meta.age",))


def test_the_verdict_before_a_model_is_known_names_the_input() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["meta"] = {"diameter_mm": 5.0 + 10 * truth + rng.random()}

    result = shortcuts(*(dataset(write, seed=seed) for seed in (0, 1)), FINDING, fit=QUICK, bootstrap=50)
    assert result.name == "shortcuts"
    assert result.warning
    assert "pneumonia 1.000 by lesion size" in result.verdict
    size = next(row for row in result.rows if row["input"] == "lesion size")
    assert (size["pneumonia low"], size["macro AUC"], size["macro high"]) == (1.0, 1.0, 1.0)


def test_an_oracle_stands_in_the_table_and_in_no_verdict() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item["meta"] = {"findings": [{"name": "pneumonia", "size_mm": 10.0}] if truth else []}

    result = shortcuts(*(dataset(write, seed=seed) for seed in (0, 1)), FINDING, fit=QUICK, bootstrap=0)
    assert result.rows[-1]["pneumonia AUC"] == 1.0
    assert result.rows[-1]["pneumonia low"] is None
    assert not result.warning
    assert "lesion size" not in result.verdict


def test_a_finding_that_cannot_be_fitted_has_no_figure_and_the_others_have() -> None:
    def write(item: dict[str, Any], truth: bool, rng: np.random.Generator) -> None:
        item |= {"view": "AP" if truth else "PA", "label": [float(truth), float(item["patient_id"] == "p3")]}

    train, test = (dataset(write, seed=seed) for seed in (0, 1))
    result = shortcuts(train, test, ("pneumonia", "hernia"), fit=QUICK, bootstrap=0)
    metadata = next(row for row in result.rows if row["input"] == "metadata")
    assert (metadata["pneumonia AUC"], metadata["hernia AUC"], metadata["macro AUC"]) == (1.0, None, 1.0)
    with pytest.raises(ValueError, match="2 labels for the 1 findings"):
        shortcuts(train, test, FINDING)


ROWS = (
    {"input": "24 x 24 pixels", "reads": "squares", "leaves unproven": "reading the image"},
    {"input": "lesion size", "reads": "mm", "leaves unproven": "seeing more than the size"},
    {"input": "an oracle", "reads": "the truth", "leaves unproven": None},
)


def handed(*aucs: float, low: float = -0.05) -> AuditResult:
    """An audit in which the three inputs reach these AUCs, intervals 0.05 to either side."""
    return AuditResult(
        "shortcuts",
        "",
        tuple(
            row | {f"{name} {end}": auc + by for name in ("macro", *FINDING) for end, by in ENDS}
            for row, auc in zip(ROWS, aucs, strict=True)
        ),
        False,
    )


ENDS = (("AUC", 0.0), ("low", -0.05), ("high", 0.05))


def model(auc: float) -> ClassificationReport:
    """One finding, 40 items of each class, with the AUC asked for (in steps of 1/40) and its own interval."""
    negative, positive = np.arange(40) + 0.5, np.full(40, 40 * auc)
    scores, truth = np.concatenate([negative, positive]), np.repeat([0.0, 1.0], 40)
    report = classification(scores[:, None], truth[:, None], FINDING, bootstrap=500)
    assert report.findings[0].auc == pytest.approx(auc)
    return report


def test_what_an_input_decides_as_well_is_no_evidence() -> None:
    judged = judge_shortcuts(handed(0.98, 0.7, 1.0), model(0.975))
    assert judged.warning
    assert judged.verdict == (
        "pneumonia is decided by 24 x 24 pixels (AUC 0.980) better than by the model (0.975): "
        "this figure is no evidence of reading the image."
    )
    assert [row["input"] for row in judged.rows] == ["the model", *(row["input"] for row in ROWS)]
    assert judged.rows[0]["pneumonia AUC"] == pytest.approx(0.975)
    assert judged.rows[0]["leaves unproven"] is None
    assert set(judged.rows[0]) == set(judged.rows[1])


def test_each_input_leaves_something_else_unproven() -> None:
    judged = judge_shortcuts(handed(0.6, 0.915, 1.0), model(0.925))
    assert "lesion size (AUC 0.915) as well as by the model (0.925)" in judged.verdict
    assert judged.verdict.endswith("no evidence of seeing more than the size.")


def test_half_of_the_lead_is_named_without_a_warning() -> None:
    judged = judge_shortcuts(handed(0.75, 0.6, 1.0), model(0.95))
    assert not judged.warning
    assert "24 x 24 pixels (AUC 0.750) reaches 56% of the model's lead" in judged.verdict


def test_a_model_far_above_its_rivals_is_told_so() -> None:
    judged = judge_shortcuts(handed(0.55, 0.6, 1.0), model(0.95))
    assert not judged.warning
    assert "comes near the model's macro AUC of 0.950; the best of them, lesion size, has 0.600" in judged.verdict


def test_a_model_at_chance_is_no_model() -> None:
    judged = judge_shortcuts(handed(0.8, 0.6, 1.0), model(0.5))
    assert judged.warning
    assert "not above chance, while 24 x 24 pixels (AUC 0.800) alone is above it" in judged.verdict
    assert not judge_shortcuts(handed(0.52, 0.51, 1.0), model(0.5)).warning


def test_a_judge_needs_the_same_findings() -> None:
    report = model(0.9)
    other = report._replace(findings=(report.findings[0]._replace(name="hernia"),))
    with pytest.raises(ValueError, match="no finding \\['hernia'\\]"):
        judge_shortcuts(handed(0.5, 0.5, 0.5), other)
    assert "nothing is known" in judge_shortcuts(AuditResult("shortcuts", "", (), False), report).verdict


def test_pneumonia_in_children_falls_to_the_size_of_the_file_and_to_gray_squares(shared_data: Any) -> None:
    items = read_manifest(
        shared_data / "manifest.csv", source="kermany", findings=["pneumonia"], empty_labels="negative"
    )
    read = [LoadRadiographd("image"), FitImaged("image", (96, 96), how="stretch"), DisplayOrderd("image")]
    sides = [[item for item in items if item["split"] == split] for split in ("train", "test")]
    train, test = (CheckedDataset(side, read, progress=False) for side in sides)
    aucs = {}
    for one in shortcut_inputs(train, test):
        fit = QUICK(one.train, [item["label"] for item in train.data], FINDING)
        asked = classification(fit.scores(one.test), [item["label"] for item in test.data], FINDING)
        aucs[one.name] = asked.macro_auc
    assert aucs["image size"] == pytest.approx(0.75, abs=0.03)
    assert aucs["24 x 24 pixels"] > 0.97
