"""Features of an image encoder, written by extract.json, are what precomputed.json trains on."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_medclip.networks import BackboneClassifier, PrecomputedFeatures

from .runs import CONFIGS, TINY, TINY_PHANTOM, run, workflow


def test_what_extraction_shares_with_training_is_equal() -> None:
    extract, train = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("extract", "train"))
    shared = extract.keys() & train.keys() - {"imports", "output_dir", "run", "batch_size"}
    assert {"items", "splits", "image_encoder", "image_preprocessing", "initialize"} <= shared
    assert {key for key in shared if extract[key] != train[key]} == set()


def test_a_clip_is_trained_on_features_and_asked_of_the_images_behind_them(
    phantom: Path, tmp_path: Path, text_model: Path
) -> None:
    densenet = {"_target_": "monai_medclip.networks.MonaiImageEncoder", "name": "densenet121", "image_size": 64}
    options: dict[str, Any] = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(tmp_path / "features")}
    extraction = run("extract", **options, image_encoder=densenet)
    manifest = tmp_path / "features" / "features.csv"
    assert np.load(manifest.with_suffix(".npy")).shape == (40, 1024)
    assert (tmp_path / "features" / "extract_run.json").is_file()

    options = {**TINY, "manifest": str(manifest), "findings": ["nodule"], "text_model": str(text_model)}
    options["output_dir"] = str(tmp_path / "out")
    trained = run("train", "precomputed", **options, max_epochs=1)
    assert isinstance(trained.parser.get_parsed_content("clip").image_encoder, PrecomputedFeatures)
    asked = run("inference", "precomputed", **options)
    get = extraction.parser.get_parsed_content
    items = list(asked.dataset)
    images = torch.stack([get("image_preprocessing")({"image": item["pixels"]})["image"] for item in items])
    features = torch.stack([item["features"] for item in items])
    classifier = BackboneClassifier(get("image_encoder"), asked.network_def, [(images, features)]).eval()
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), asked.network_def(features), atol=1e-3, rtol=1e-3)


def test_nodules_go_through_the_ct_backbone_and_then_into_a_clip(shared_data: Path, tmp_path: Path) -> None:
    data = {"manifest": str(shared_data / "manifest.csv"), "threads": 1, "device": "cpu"}
    items = workflow("extract", "manifest+nodules", **data).parser.get_parsed_content("items")
    sides = [[item["id"] for item in items if item["split"] == split] for split in ("train", "val", "test")]
    some = [one for side in sides for one in side[:: max(1, len(side) // 10)]]
    options: dict[str, Any] = {"checkpoint": None, "crop_size": [8, 32, 32], "voxel_mm": [1.5, 0.875, 0.875]}
    options |= {**data, "where": {"id": some}, "output_dir": str(tmp_path / "features")}
    run("extract", "manifest+nodules+astra", **options)
    manifest = tmp_path / "features" / "features.csv"
    with manifest.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["id"] for row in rows} == set(some)
    assert all("Malignancy rated" in row["text"] for row in rows)

    options = {**TINY, "manifest": str(manifest), "output_dir": str(tmp_path / "out")}
    run("train", "precomputed+nodule_features", **options, max_epochs=1, val_interval=1)
    first = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert first["baselines"]["size"]["auc/malignant"] > 0.5
    run("evaluate", "precomputed+nodule_features", **options)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == first
