"""Derm7pt: rows as published in release_v0, with tiny stand-ins for the images."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import (
    DERM7PT_DIAGNOSES,
    DERM7PT_GROUPS,
    criteria_caption,
    diagnosis_group,
    read_derm7pt,
    read_rejected,
)
from monai_medclip.transforms import LoadDermoscopyd

HEADER = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)
NO, EXCISED, FLAT = "absent", "palpable,back,male,excision", "low,flat,acral,female,clinical follow up"
ROWS = [
    f"1,basal cell carcinoma,4,{NO},{NO},{NO},blue areas,irregular,present,comma,low,{EXCISED},A/A1.JPG,A/A2.jpg,,",
    f"2,clark nevus,0,typical,{NO},{NO},{NO},{NO},{NO},{NO},{FLAT},A/A3.jpg,A/A4.jpg,,",
    f"3,melanoma (0.76 to 1.5 mm),7,{NO},irregular,diffuse irregular,{NO},irregular,present,linear irregular,"
    f"high,{EXCISED},B/B1.jpg,B/B2.jpg,1b12,",
    f"4,melanoma metastasis,1,{NO},{NO},{NO},white areas,{NO},{NO},hairpin,high,{EXCISED},B/B3.JPG,B/B3.JPG,,no photo",
    f"5,miscellaneous,0,{NO},{NO},{NO},{NO},{NO},{NO},{NO},low,{EXCISED},C/C1.jpg,C/C2.jpg,,",
]
SPLIT = {"train": [0, 1], "valid": [2], "test": [3, 4]}


def write(root: Path, rows: list[str] = ROWS, split: dict[str, list[int]] = SPLIT) -> Path:
    folder = root / "release_v0"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "meta.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name, indexes in split.items():
        (folder / "meta" / f"{name}_indexes.csv").write_text("\n".join(["indexes", *map(str, indexes)]) + "\n")
    for cells in csv.DictReader([HEADER, *rows]):
        for column in ("clinic", "derm"):
            path = folder / "images" / cells[column]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(path, format="JPEG")
    return folder


def test_a_case_becomes_an_item(tmp_path):
    folder = write(tmp_path)
    items = read_derm7pt(tmp_path)
    assert [item["id"] for item in items] == [f"derm7pt_{n}" for n in ("0001", "0002", "0003", "0004", "0005")]
    assert [item["split"] for item in items] == ["train", "train", "val", "test", "test"]
    melanoma = items[2]
    assert melanoma["image"] == str(folder / "images" / "B" / "B2.jpg")
    assert melanoma["labels"] == ["malignant", "melanoma", "melanoma (0.76 to 1.5 mm)"]
    assert melanoma["text"] == (
        "Dermoscopic image of melanoma (0.76 to 1.5 mm), irregular streaks, diffuse irregular pigmentation, "
        "irregular dots and globules, blue-whitish veil present, linear irregular vessels, pigment network absent, "
        "regression structures absent."
    )
    wanted = {"sex": "male", "location": "back", "seven_point_score": 7, "streaks": "irregular", "malignant": 1}
    assert wanted.items() <= melanoma["meta"].items()
    assert melanoma["patient_id"] == melanoma["study_id"] == melanoma["id"]
    assert LoadDermoscopyd("image")(melanoma)["image"].shape == (3, 6, 4)


def test_the_folder_itself_may_be_given_and_the_diagnosis_kept_out_of_the_text(tmp_path):
    items = read_derm7pt(write(tmp_path), with_diagnosis=False)
    assert all(item["text"].startswith("Dermoscopic image of a skin lesion, ") for item in items)


def test_malignancy_is_unknown_where_the_diagnosis_does_not_tell(tmp_path):
    rule = {"veil": "meta.blue_whitish_veil == present", "high": "meta.seven_point_score >= 4"}
    write(tmp_path)
    items = read_derm7pt(tmp_path, findings=["malignant", "benign", "nevus"])
    assert [item["label"] for item in items[:4]] == [[1, 0, 0], [0, 1, 1], [1, 0, 0], [1, 0, 0]]
    malignant, benign, nevus = items[4]["label"]
    assert math.isnan(malignant)
    assert math.isnan(benign)
    assert (nevus, items[4]["labels"]) == (0.0, ["other lesion", "miscellaneous"])
    assert [item["label"] for item in read_derm7pt(tmp_path, findings=rule)] == [[1, 1], [0, 0], [1, 1], [0, 0], [0, 0]]


def test_a_photograph_tells_the_diagnosis_alone_and_a_stand_in_is_left_out(tmp_path):
    folder = write(tmp_path)
    items = read_derm7pt(tmp_path, image="clinic", rejected=tmp_path / "rejected.csv")
    assert items[0]["text"] == "Clinical photograph of basal cell carcinoma."
    assert items[0]["image"] == str(folder / "images" / "A" / "A1.JPG")
    assert [item["id"] for item in items] == ["derm7pt_0001", "derm7pt_0002", "derm7pt_0003", "derm7pt_0005"]
    (refused,) = read_rejected(tmp_path / "rejected.csv")
    assert (refused.id, refused.row) == ("derm7pt_0004", 5)
    assert refused.reason.startswith("no clinical photograph: the dermoscopic image stands")


def test_cases_without_image_or_split_are_counted_and_listed(tmp_path, caplog):
    folder = write(tmp_path, split={"train": [0, 1], "valid": [2], "test": [3]})
    (folder / "images" / "A" / "A4.jpg").unlink()
    with caplog.at_level("INFO", "monai_medclip"):
        items = read_derm7pt(tmp_path, rejected=tmp_path / "rejected.csv")
    assert len(items) == 3
    reasons = [row.reason for row in read_rejected(tmp_path / "rejected.csv")]
    assert reasons[0] == f"image file absent: {folder / 'images' / 'A' / 'A4.jpg'}"
    assert reasons[1].startswith("case on no side of the published split")
    assert "3 items kept; left out: 1 image file absent, 1 case on no side of the published split" in caplog.text


def test_the_authors_groups():
    assert (len(DERM7PT_DIAGNOSES), len(DERM7PT_GROUPS)) == (20, 5)
    groups = {name: diagnosis_group(name) for name in DERM7PT_DIAGNOSES}
    assert sum(group == "nevus" for group in groups.values()) == 7
    assert sum(group == "melanoma" for group in groups.values()) == 6
    assert (groups["vascular lesion"], groups["melanoma metastasis"]) == ("other lesion", "melanoma")
    with pytest.raises(ValueError, match="'wart' is none of Derm7pt's"):
        diagnosis_group("wart")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS[1].replace("clark nevus", "wart"), r"meta\.csv, row 2: diagnosis 'wart' is none of Derm7pt's"),
        (ROWS[1].replace("typical", "strange"), r"row 2: criterion 'pigment_network' is 'strange'.*Correct the cell"),
    ],
)
@pytest.mark.parametrize("image", ["derm", "clinic"])
def test_an_unknown_word_is_named_with_its_row(tmp_path, row, message, image):
    write(tmp_path, [row], {"train": [0], "valid": [], "test": []})
    with pytest.raises(ValueError, match=message):
        read_derm7pt(tmp_path, image=image)


def test_damaged_tables_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta\.csv is missing: give the folder release_v0"):
        read_derm7pt(tmp_path)
    folder = write(tmp_path)
    with pytest.raises(ValueError, match="image='both': use 'derm'"):
        read_derm7pt(tmp_path, image="both")
    (folder / "meta" / "valid_indexes.csv").write_text("indexes\n1\n")
    with pytest.raises(ValueError, match=r"valid_indexes\.csv, row 2: case 1 is on 'train' too"):
        read_derm7pt(tmp_path)
    (folder / "meta" / "valid_indexes.csv").write_text("indexes\n5\n")
    with pytest.raises(ValueError, match=r"index '5' is no row of meta\.csv \(0 to 4\)"):
        read_derm7pt(tmp_path)
    (folder / "meta" / "valid_indexes.csv").write_text("row\n2\n")
    with pytest.raises(ValueError, match=r"missing column\(s\) \['indexes'\]"):
        read_derm7pt(tmp_path)
    (folder / "meta" / "valid_indexes.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid_indexes\.csv is missing"):
        read_derm7pt(tmp_path)


def test_no_image_at_all_is_an_error(tmp_path):
    folder = write(tmp_path)
    for path in (folder / "images").rglob("*.*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"Derm7pt: no case is left \(5 image file absent\)"):
        read_derm7pt(tmp_path)


def test_captions_tell_what_the_table_tells(tmp_path):
    write(tmp_path)
    names = HEADER.split(",")[3:10]
    for item in read_derm7pt(tmp_path):
        assert item["text"] == criteria_caption(item["meta"]["diagnosis"], {n: item["meta"][n] for n in names})
