"""Published dermoscopy collections in their own layout: trained on captions of criteria, asked for the diagnosis."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import DERM7PT_DIAGNOSES, PH2_DIAGNOSES, read_derm7pt

from .runs import COLLECTIONS, TINY, run

HEADER = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)
KINDS = ("clark nevus,0,typical,absent", "melanoma (in situ),5,atypical,irregular", "lentigo,1,absent,absent")
REST = "absent,absent,regular,absent,absent,low,flat,back,female,excision"
COLUMNS = "Name | Clinical Diagnosis | Asymmetry | Pigment Network | Dots/Globules | Streaks | Regression Areas"


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)


def write_derm7pt(root: Path) -> None:
    rows = [f"{n + 1},{KINDS[n % 3]},{REST},A/c{n}.jpg,A/d{n}.jpg,," for n in range(24)]
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "meta.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name, indexes in {"train": range(12), "valid": range(12, 18), "test": range(18, 24)}.items():
        (root / "meta" / f"{name}_indexes.csv").write_text("\n".join(["indexes", *map(str, indexes)]) + "\n")
    for number in range(24):
        write_image(root / "images" / "A" / f"c{number}.jpg", 100 + number)
        write_image(root / "images" / "A" / f"d{number}.jpg", number)


def write_ph2(root: Path) -> None:
    rows = [f"|| IMD{n:03d} || {n % 3} || {n % 3} | {('T', 'AT')[n % 2]} | A | A | A | A || 3  4 ||" for n in range(30)]
    columns = COLUMNS.replace(" | ", " || ", 1) + " | Blue-Whitish Veil || Colors"
    root.mkdir(parents=True)
    (root / "PH2_dataset.txt").write_text("\n".join([f"|| {columns} ||", *rows]) + "\n")
    for number in range(30):
        name = f"IMD{number:03d}"
        write_image(root / "PH2 Dataset images" / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp", number)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_a_collection_is_trained_on_and_asked_for_its_diagnoses(
    collection: str, clip_model: Path, tmp_path: Path
) -> None:
    {"derm7pt": write_derm7pt, "ph2": write_ph2}[collection](tmp_path / "data")
    options: dict[str, Any] = {**TINY, "clip_model": str(clip_model), "clip_weights": None, "max_length": 32}
    options |= {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
    trained = run("train", f"dermoscopy+{collection}", **options, max_epochs=1)
    captions = {item["text"] for item in trained.parser.get_parsed_content("items")}
    assert all(text.startswith("Dermoscopic image of ") and ", " in text for text in captions)
    run("zero_shot", f"dermoscopy+{collection}", **options, bootstrap=20, audits=[], pretrained=False)
    found = json.loads((tmp_path / "out" / "zero_shot" / "metrics.json").read_text())
    classes = read_classes(collection)
    assert len(found["classes"]["confusion"]) == len(classes)
    assert set(found["tables"]) == {"before training", "after training"}
    assert 0 <= found["zero_shot"]["malignant_auc"] <= 1
    with (tmp_path / "out" / "zero_shot" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["class"] for row in rows} <= classes
    assert np.array(found["classes"]["confusion"]).sum() == len(rows)
    if collection == "derm7pt":
        items = read_derm7pt(tmp_path / "data")
        named = {item["id"]: item["meta"]["diagnosis"] for item in items}
        assert {row["id"]: row["class"] for row in rows}.items() <= named.items()  # in situ, not melanoma at large


def read_classes(collection: str) -> set[str]:
    return set(DERM7PT_DIAGNOSES if collection == "derm7pt" else PH2_DIAGNOSES)
