"""The code in the documentation runs as it is written."""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from monai_medclip import networks
from monai_medclip.networks import AstraImageEncoder, MonaiImageEncoder
from monai_medclip.transforms import ChestXrayTransform

from .conftest import write_table
from .runs import CONFIGS, TINY, run, workflow

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def code_blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HOW_TO / page).read_text(), flags=re.DOTALL)


def test_ten_lines_embed_a_trained_model(
    trained: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "medclip_output")
    (tmp_path / "my_images").mkdir()
    for image in sorted((phantom / "images").rglob("*.dcm"))[:2]:
        shutil.copy(image, "my_images")
    (code,) = code_blocks("embed-in-your-pipeline.md")
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    names: dict[str, Any] = {}
    exec(compile(code, "embed-in-your-pipeline.md", "exec"), names)
    assert [scores.shape for scores in names["scores"].values()] == [(1, 6), (1, 6)]
    findings = names["workflow"].network_def.findings
    with (tmp_path / "medclip_output" / "predictions" / "predictions.csv").open() as stream:
        written = {row["id"]: [float(row[finding]) for finding in findings] for row in csv.DictReader(stream)}
    for item, scores in names["scores"].items():
        assert scores[0].tolist() == pytest.approx(written[item], abs=1e-4)  # in evaluation mode, no token dropped


@pytest.mark.parametrize(("page", "lines"), [("explain.md", 11), ("../../README.md", 10)])
def test_the_explanation_pages_draw_their_picture(
    page: str, lines: int, trained: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "medclip_output")
    Path("bundles").symlink_to(CONFIGS.parents[1])
    shutil.copy(next(iter(sorted((phantom / "images").rglob("*.dcm")))), "case.dcm")
    (code,) = (block for block in code_blocks(page) if "save_figure" in block)
    assert len([line for line in code.splitlines() if line.strip()]) == lines
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    assert names["heatmap"].shape == (1, 1, 128, 128)
    assert (tmp_path / "nodule.png").stat().st_size > 10_000


def test_the_page_of_dicom_results_writes_objects(
    trained: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom", reason="needs the highdicom extra")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "xray_run")
    shutil.copy(next(iter(sorted((phantom / "images").rglob("*.dcm")))), "film.dcm")
    (code,) = code_blocks("dicom-results.md")
    names: dict[str, Any] = {}
    exec(compile(code, "dicom-results.md", "exec"), names)
    assert sorted(pydicom.dcmread(file).Modality for file in names["files"]) == ["OT", "OT", "SR"]


def test_a_method_of_ones_own_is_valid_json() -> None:
    (block,) = code_blocks("explain.md", "json")
    assert json.loads(block)["methods"]["occlusion"]


def test_the_page_of_precomputed_features_explains_features_and_pixels(
    features_with_pixels: Path, text_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(features_with_pixels, "my_data")
    shutil.copytree(text_model, "bert-base-uncased")
    options = {**TINY, "manifest": "my_data/features.csv", "findings": ["nodule"], "feature_width": 1024}
    run("train", "precomputed", **options, max_epochs=1)
    code = code_blocks("explain-precomputed-features.md")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "explain-precomputed-features.md", "exec"), names)
    assert names["heatmaps"].shape == (2, 1, 128, 128)
    assert float(names["heatmaps"].amax((1, 2, 3)).min()) > 0
    assert len(names["found"].top(5)[0][0]) == 5


def test_the_page_of_precomputed_features_explains_a_nodule_in_words_features_and_ct(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(
        AstraImageEncoder().bfloat16().trunk.state_dict(), tmp_path / "astra.pt"
    )  # the package need not be installed
    monkeypatch.setattr(networks, "packaged_weights", lambda name: str(tmp_path / f"{name}.pt"))
    monkeypatch.chdir(tmp_path)
    data = {**TINY, "manifest": str(shared_data / "manifest.csv"), "output_dir": "nodule_features"}
    items = workflow("extract", "manifest+nodules", **data).parser.get_parsed_content("items")
    some = [one for split in ("train", "val", "test") for one in _first(items, split, 4)]
    run("extract", "manifest+nodules+astra", **data, where={"id": some})
    options = {**TINY, "manifest": "nodule_features/features.csv", "output_dir": "nodule_clip", "baselines": {}}
    run("train", "precomputed+nodule_features", **options, max_epochs=1, val_interval=1)
    names: dict[str, Any] = {}
    for code in code_blocks("explain-precomputed-features.md")[1:]:
        exec(compile(code, "explain-precomputed-features.md", "exec"), names)
    assert names["heatmap"].shape == (1, 5, 24, 96, 96)
    assert names["found"].contributions.shape == (4, 5, 1024)
    assert len(names["found_heat"]) == 1
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("words.png", "nodule.png"))
    written = nib.load(tmp_path / "maps" / "heatmap_01_malignant.nii.gz")
    native = nib.load(names["nodule"]["pixels"])
    assert written.shape == native.shape
    np.testing.assert_allclose(written.affine, native.affine, atol=1e-4)


def test_the_page_of_ct_looks_for_nodules_in_a_whole_volume(
    shared_data: Path, phantom_ct: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_data").symlink_to(shared_data)
    (volume, *_) = sorted((phantom_ct / "images").rglob("*.nii.gz"))
    shutil.copy(volume, "study.nii.gz")
    options = {**TINY, "manifest": "my_data/manifest.csv", "output_dir": "runs/nodules_0", "baselines": {}}
    items = workflow("train", "manifest+nodules", **options).parser.get_parsed_content("items")
    sides = [[item["id"] for item in items if item["split"] == split] for split in ("train", "val", "test")]
    some = [one for side in sides for one in side[:: max(1, len(side) // 10)]]
    run("train", "manifest+nodules", **options, where={"id": some}, max_epochs=1, val_interval=1)
    (code,) = (block for block in code_blocks("ct.md") if "NoduleScan" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "ct.md", "exec"), names)
    assert names["heat"].shape == (1, 5, 64, 64, 56)
    lungs = names["item"]["lungs"].as_tensor()[0] > 0
    assert not names["heat"].as_tensor()[0, :, ~lungs].any()
    assert float(names["heat"].as_tensor()[0, 0, lungs].std()) > 0
    np.testing.assert_allclose(nib.load("maps/heatmap_01_malignant.nii.gz").affine, nib.load(volume).affine, atol=1e-4)


def _first(items: list[dict[str, Any]], split: str, count: int) -> list[str]:
    return [item["id"] for item in items if item["split"] == split][:count]


@pytest.fixture
def features_with_pixels(phantom: Path, tmp_path: Path) -> Path:
    """Features of phantoms from a DenseNet, its weights, and a manifest that names the image behind each vector."""
    folder = tmp_path / "hospital"
    shutil.copytree(phantom / "images", folder / "images")
    images = sorted((folder / "images").rglob("*.dcm"))[:12]
    torch.manual_seed(0)
    backbone = MonaiImageEncoder("densenet121", image_size=128).eval()
    torch.save(backbone.trunk.state_dict(), folder / "densenet121.pt")
    prepare = ChestXrayTransform(image_size=(128, 128), keys="pixels")
    with torch.no_grad():
        vectors = [backbone(prepare({"pixels": str(image)})["pixels"][None])[0].numpy() for image in images]
    np.save(folder / "features.npy", np.stack(vectors))
    rows = [
        {
            "id": number,
            "file": "features.npy",
            "features_row": number,
            "pixels": image.relative_to(folder),
            "patient_id": number,
            "split": "test" if number < 2 else "val" if number < 4 else "train",
            "labels": ("nodule", "normal")[number % 2],
            "text": ("There is a nodule.", "The lungs are clear.")[number % 2],
        }
        for number, image in enumerate(images)
    ]
    write_table(folder / "features.csv", rows)
    return folder


PAGES = [*sorted((HOW_TO.parent).rglob("*.md")), HOW_TO.parents[1] / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_of_a_documented_run_is_a_key_of_the_configs(page: Path) -> None:
    known = {"config_file", "tracking", "save_execute_config", "run_id", "args_file"}
    configs = [json.loads(path.read_text()) for path in CONFIGS.glob("*.json")]
    known |= {key for config in configs for key in (*config, *config.get("configs", {}))}
    for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for command in re.findall(r"monai\.bundle run\b.*", block.replace("\\\n", " ")):
            options = re.findall(r"--(\w+)", command.split("#")[0])
            assert {option for option in options if option not in known} == set(), command


def test_bringing_ones_own_data_works_as_documented(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_data)
    blocks = code_blocks("bring-your-own-data.md", "bash")
    for block, task in zip(blocks, ("train", "inference"), strict=True):
        command = block.replace("\\\n", " ").split("monai.bundle run")[1]
        assert f"['$bundle/configs/{task}.json','$bundle/configs/manifest.json']" in command
        words = shlex.split(command.partition("--manifest")[2])
        options = {"manifest": words[0]} | {words[n].lstrip("-"): words[n + 1] for n in range(1, len(words), 2)}
        options["findings"] = ast.literal_eval(options["findings"])
        run(task, "manifest", **options, **TINY, max_epochs=1, image_encoder__image_size=32)
    with (own_data / "runs" / "mine" / "predictions" / "predictions.csv").open() as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == ["0.png", "1.png"]
    overlay = json.loads(code_blocks("bring-your-own-data.md", "json")[0])
    made = workflow("train", "manifest", manifest="my_data/manifest.csv", output_dir="other", **overlay)
    labels = [item["label"] for item in made.parser.get_parsed_content("items")]
    assert labels[:2] == [[1.0], [0.0]]


@pytest.fixture
def own_data(own_manifest: Path, tmp_path: Path) -> Path:
    """A folder as the page describes it."""
    shutil.copytree(own_manifest.parent, tmp_path / "my_data")
    with own_manifest.open() as stream:
        rows = list(csv.DictReader(stream))[:31]
    for number, row in enumerate(rows):
        row["labels"] = ("pleural effusion", "pneumothorax")[number % 2]
        row["meta"] = json.dumps({"malignancy": 4 - number % 2})
    with (tmp_path / "my_data" / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "new_images").mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(tmp_path / "my_data" / name, tmp_path / "new_images")
    return tmp_path
