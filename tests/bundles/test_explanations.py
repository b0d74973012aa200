"""Explaining as a user does it: one file and one question, a few test cases, and the comparison of before and after."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from .runs import CONFIGS, TINY_PHANTOM, files, run, run_as_user


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "explanations.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_dicom_file_and_one_question_on_the_command_line(trained: Path, phantom: Path, tmp_path: Path) -> None:
    image = next(iter(sorted((phantom / "images").rglob("*.dcm"))))
    out = tmp_path / "explained"
    run_as_user(
        files("explain"),
        tmp_path,
        output_dir=trained,
        explanation_dir=out,
        image=image,
        prompts="['pleural effusion','The heart is enlarged.']",
        report="FINDINGS: There is a small left pleural effusion. IMPRESSION: Left pleural effusion.",
        rule="positive",
        device="cpu",
    )
    rows = rows_of(out)
    assert [row["prompt"] for row in rows] == ["pleural effusion", "The heart is enlarged."] * 4
    assert all(row["notice"].startswith("Research use only") for row in rows)
    case = out / image.name
    written = {path.name for path in case.iterdir()}
    assert {"grid.png", "Grad-ECLIP_01_pleural-effusion.png", "MedGrad-E-CLIP.html", "sentences.html"} <= written
    assert {"report_Grad-ECLIP.png", "report_Chefer.png"} <= written
    assert "The heart is enlarged." in (case / "Chefer.html").read_text()
    assert json.loads((out / "run.json").read_text())["seed"] == 0

    native = pydicom.dcmread(image)
    volume = nib.load(case / "maps" / "Grad-ECLIP_01_pleural-effusion.nii.gz")
    assert volume.shape == (native.Columns, native.Rows, 1)
    spacing = [float(mm) for mm in native.PixelSpacing]
    assert np.allclose(volume.header.get_zooms()[:2], spacing, atol=1e-4)
    assert float(volume.get_fdata().max()) == pytest.approx(float(rows[2]["largest_heat"]), rel=0.05, abs=1e-6)


def test_test_cases_know_where_their_findings_are(trained: Path, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "explained"
    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(trained), "explanation_dir": str(out)}
    run("explain", **options, cases=3)
    rows = rows_of(out)
    assert len(rows) == 3 * 4 * 6
    with (phantom / "masks.csv").open(newline="") as stream:
        masks = {(row["id"], row["label"]) for row in csv.DictReader(stream)}
    known = {(row["id"], row["prompt"]) for row in rows if row["share_in_truth"]}
    assert known == {pair for pair in masks if pair[0] in {row["id"] for row in rows}} & known
    assert known
    assert all(0 <= float(row["share_in_truth"]) <= 1 for row in rows if row["share_in_truth"])


def test_before_and_after_training_side_by_side(trained: Path, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "explained"
    configs = [*files("explain"), str(CONFIGS / "comparison.json")]
    options = {**TINY_PHANTOM, "dataset_dir": phantom, "output_dir": trained, "explanation_dir": out, "cases": 1}
    run_as_user(configs, tmp_path, **{name: value for name, value in options.items() if name != "batch_size"})
    rows = rows_of(out)
    scores = {row["method"]: float(row["score"]) for row in rows if row["prompt"] == "nodule"}
    assert list(scores) == ["Grad-ECLIP before training", "Grad-ECLIP", "MedGrad E-CLIP", "patch-token Grad-CAM"]
    assert scores["Grad-ECLIP before training"] != pytest.approx(scores["Grad-ECLIP"], abs=1e-3)
    assert scores["Grad-ECLIP"] == pytest.approx(scores["MedGrad E-CLIP"], abs=1e-4)


def test_a_question_of_nothing_is_refused_with_the_remedy(trained: Path, phantom: Path, tmp_path: Path) -> None:
    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(trained), "prompts": []}
    with pytest.raises(RuntimeError) as refused:
        run("explain", **options, explanation_dir=str(tmp_path))
    told, error = "", refused.value
    while error is not None:
        told, error = f"{told} {error}", error.__cause__ or error.__context__  # type: ignore[assignment]
    assert "--prompts" in told
