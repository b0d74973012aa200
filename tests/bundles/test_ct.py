"""Volumes: slice by slice with an own or a pretrained 2D encoder, DICOM folders as users have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_medclip.data import PhantomPatient, read_manifest
from monai_medclip.data.phantom_dicom import phantom_uid, write_ct_series
from monai_medclip.networks import MonaiImageEncoder, SliceEncoder
from monai_medclip.transforms.nodule_center import mask_center_mm

from .runs import own_data, run, workflow


@pytest.fixture
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {**own_data("ct", request.getfixturevalue), "output_dir": str(tmp_path / "out")}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series of one patient in one folder, as an archive exports them."""
    ct = PhantomPatient(0, 3).ct((56, 64, 64))
    shared = {"patient_id": "p", "sex": "F", "spacing_mm": ct.spacing_mm, "origin_mm": ct.origin_mm}
    for number in (1, 2):
        write_ct_series(tmp_path / "study" / str(number), ct.volume, study=("study", number), **shared)
    return tmp_path / "study"


def test_slice_by_slice_everything_runs(options: dict[str, Any], tmp_path: Path) -> None:
    trained = run("train", "ct+slices", **options, max_epochs=1)
    assert isinstance(trained.parser.get_parsed_content("network").image_encoder, SliceEncoder)
    known = json.loads((tmp_path / "out" / "metrics.json").read_text())
    run("zero_shot", "ct+slices", **options, audits=[], before_training=None, bootstrap=20)
    asked = json.loads((tmp_path / "out" / "zero_shot" / "metrics.json").read_text())
    assert asked["zero_shot"]["macro_auc"] == pytest.approx(known["zero_shot"]["macro_auc"], abs=1e-6)
    run("explain", "ct+slices", **options, cases=1)
    with (tmp_path / "out" / "explanations" / "explanations.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows[::2]] == ["recommended", "Grad-ECLIP", "Chefer", "MedGrad E-CLIP"]
    assert {row["prompt"] for row in rows} == {"nodule", "pleural effusion"}


def test_a_pretrained_clip_of_photographs_reads_ct_before_any_training(
    options: dict[str, Any], clip_model: Path, tmp_path: Path
) -> None:
    chosen = {**options, "source": f"local-dir:{clip_model}", "library": "open_clip", "threads": 1}
    chosen |= {"volume_size": [4, 32, 32], "voxel_mm": [82.0, 11.0, 11.0], "baselines": {}}
    made = run("evaluate", "ct+pretrained+pretrained_slices", **chosen)
    assert made.parser.get_parsed_content("test::dataset")[0]["image"].shape == (3, 4, 32, 32)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["items"]["test"] == 10


def test_a_folder_of_several_series_needs_a_choice(options: dict[str, Any], study: Path, tmp_path: Path) -> None:
    run("train", "ct", **options, max_epochs=1)
    asked = run("inference", "ct", **options, image=str(study))
    assert [item["id"] for item in asked.parser.get_parsed_content("data")] == ["1", "2"]
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in study.rglob("*.dcm"):
        file.rename(flat / f"{file.parent.name}_{file.name}")
    with pytest.raises(RuntimeError) as refused:
        run("inference", "ct", **options, image=str(flat))
    assert "there are 2 CT stacks, and one must be named" in str(refused.value.__cause__)
    predictions = tmp_path / "out" / "predictions" / "predictions.csv"
    uid = phantom_uid("study", 1, "series")
    run("inference", "ct", **options, image=str(flat), series=uid)
    with predictions.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["id"] == "flat"
    run("inference", "ct", **options, image=f"$read_ct_folder({str(flat)!r})", series="series_uid")
    with predictions.open(newline="") as stream:
        both = {row["id"]: float(row["nodule"]) for row in csv.DictReader(stream)}
    assert both.keys() == {uid, phantom_uid("study", 2, "series")}
    assert both[uid] == pytest.approx(float(row["nodule"]), abs=1e-5)


def test_maps_lie_on_the_grid_of_the_dicom_series(options: dict[str, Any], study: Path, tmp_path: Path) -> None:
    run("train", "ct", **options, max_epochs=1)
    methods = {
        "Chefer": {
            "_target_": "monai_medclip.inferers.HeatmapInferer",
            "explainer": {"_target_": "monai_medclip.explainers.Chefer"},
        }
    }
    run("explain", "ct", **options, image=str(study / "1"), methods=methods)
    maps = sorted((tmp_path / "out" / "explanations").rglob("maps/*.nii.gz"))
    assert len(maps) == 2
    written = nib.load(maps[0])
    ct = PhantomPatient(0, 3).ct((56, 64, 64))
    assert written.shape == (64, 64, 56)
    np.testing.assert_allclose(written.header.get_zooms(), ct.spacing_mm[::-1], atol=1e-4)
    assert nib.aff2axcodes(written.affine) == ("L", "P", "S")
    assert np.asarray(written.dataobj).max() > 0


def test_crops_around_what_a_detector_found(phantom_ct: Path, tmp_path: Path) -> None:
    studies = read_manifest(phantom_ct / "manifest.csv")
    points = {item["image"]: mask_center_mm(item["masks"]["nodule"]) for item in studies if "nodule" in item["masks"]}
    found = [
        {"image": image, "box": [[-x, -y, z, 20, 20, 20]] * 2, "label": [0, 0], "label_scores": [0.9, 0.1]}
        for image, (x, y, z) in points.items()
    ]
    (tmp_path / "detections.json").write_text(json.dumps(found))
    options = {"manifest": str(phantom_ct / "manifest.csv"), "points_file": str(tmp_path / "detections.json")}
    options |= {"output_dir": str(tmp_path / "out"), "where": None, "text_column": "text", "batch_size": 2}
    options |= {"findings": [], "labels": [], "prompts": [], "baselines": {}, "covariates": {}}
    made = run("train", "manifest+nodules+nodule_points", **options, max_epochs=1, val_interval=1, threads=1)
    items = made.parser.get_parsed_content("items")
    assert [item["image"] for item in items] == list(points)  # the doubtful second box of each is left out
    for item in items:
        np.testing.assert_allclose(item["center_mm"], points[item["image"]], atol=1e-3)
    crop = made.train_dataset[0]["image"]
    assert crop.shape == (3, 40, 40)
    with (tmp_path / "out" / "studies_without_points.csv").open(newline="") as stream:
        left_out = [row["id"] for row in csv.DictReader(stream)]
    assert left_out == [item["id"] for item in studies if item["image"] not in points]


@pytest.mark.parametrize("name", ["vit", "densenet121", "resnet50"])
def test_monais_3d_networks_take_the_place_of_the_small_one(options: dict[str, Any], name: str, tmp_path: Path) -> None:
    encoder = {"_target_": "monai_medclip.networks.MonaiImageEncoder", "name": name, "spatial_dims": 3}
    encoder |= {"image_size": [32, 32, 32], "in_channels": 2}
    if name == "vit":
        encoder["options"] = {"patch_size": 16, "num_layers": 1, "hidden_size": 48, "mlp_dim": 48, "num_heads": 4}
    two_d = {**encoder, "spatial_dims": 2, "image_size": 32}
    if name == "densenet121":  # and starts from the weights of a 2D network
        encoder = {"_target_": "monai_medclip.networks.inflated", "network_3d": encoder, "source": two_d}
    chosen = {**options, "image_encoder": encoder, "volume_size": [32, 32, 32], "voxel_mm": [10.4, 11.0, 11.0]}
    made = workflow("train", "ct", **chosen)
    get = made.parser.get_parsed_content
    assert isinstance(get("network").image_encoder, MonaiImageEncoder)
    batch = get("validate::dataset")[0]["image"][None]
    with torch.no_grad():
        assert get("network").eval().encode_image(batch).shape == (1, 128)
