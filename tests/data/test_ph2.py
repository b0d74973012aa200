"""PH2: the published table's columns, bars and legend, with tiny stand-ins for the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import PH2_DIAGNOSES, partition, read_ph2, read_rejected
from monai_medclip.transforms import LoadDermoscopyd

TABLE = """\
||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | Streaks | \
Regression Areas | Blue-Whitish Veil ||           Colors ||
|| IMD003 ||                        ||                  0 ||         0 |               T |             A |       A | \
               A |                 A ||                4 ||
|| IMD033 ||                        ||                  1 ||         2 |              AT |            AT |       A | \
               A |                 A ||          3  4  6 ||
|| IMD061 ||               Melanoma ||                  2 ||         2 |              AT |            AT |       P | \
               P |                 P ||    1  3  4  5  6 ||

Legends for Clinical Diagnosis:
0 - Common Nevus;
1 - Atypical Nevus;
2 - Melanoma.
"""


def write(root: Path, table: str = TABLE) -> Path:
    root.mkdir(exist_ok=True)
    (root / "PH2_dataset.txt").write_text(table)
    for number, name in enumerate(("IMD003", "IMD033", "IMD061")):
        case = root / "PH2 Dataset images" / name
        (case / f"{name}_Dermoscopic_Image").mkdir(parents=True)
        (case / f"{name}_lesion").mkdir()
        pixels = np.random.default_rng(number).integers(0, 255, (4, 6, 3), np.uint8)
        Image.fromarray(pixels).save(case / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
        Image.fromarray(pixels[..., 0] > 100).save(case / f"{name}_lesion" / f"{name}_lesion.bmp")
    return root


def test_a_case_becomes_an_item(tmp_path):
    folder = write(tmp_path / "PH2Dataset")
    items = read_ph2(tmp_path)
    assert [item["labels"] for item in items] == [
        ["benign", "nevus", "common nevus"],
        ["benign", "nevus", "atypical nevus"],
        ["malignant", "melanoma"],
    ]
    assert [item["label"] for item in items] == [[0.0], [0.0], [1.0]]
    melanoma = items[2]
    assert melanoma["id"] == melanoma["patient_id"] == "ph2_IMD061"
    assert melanoma["text"] == (
        "Dermoscopic image of melanoma, fully asymmetric, atypical pigment network, streaks present, atypical dots and "
        "globules, regression structures present, blue-whitish veil present, white and light brown and dark brown and "
        "blue-gray and black colors."
    )
    assert items[0]["text"].endswith(
        ", dark brown color, streaks absent, dots and globules absent, regression structures absent, "
        "blue-whitish veil absent."
    )
    assert melanoma["meta"]["histological_diagnosis"] == "melanoma"
    assert "histological_diagnosis" not in items[0]["meta"]
    assert melanoma["masks"] == {
        "lesion": str(folder / "PH2 Dataset images" / "IMD061" / "IMD061_lesion" / "IMD061_lesion.bmp")
    }
    assert LoadDermoscopyd("image")(melanoma)["image"].shape == (3, 6, 4)


def test_criteria_can_be_asked_for_and_the_diagnosis_kept_out_of_the_text(tmp_path):
    asked = {"veil": "meta.blue_whitish_veil == present", "round": "meta.asymmetry == fully symmetric"}
    items = read_ph2(write(tmp_path), findings=asked, with_diagnosis=False)
    assert [item["label"] for item in items] == [[0, 1], [0, 0], [1, 0]]
    assert not any(name in item["text"] for item in items for name in PH2_DIAGNOSES)


def test_there_is_no_split_so_one_is_drawn(tmp_path):
    items = read_ph2(write(tmp_path))
    parts = partition(items, parts={"train": 0.34, "val": 0.33, "test": 0.33}, near_duplicate_bits=None)
    assert sorted(item["id"] for part in parts for item in part) == ["ph2_IMD003", "ph2_IMD033", "ph2_IMD061"]


def test_a_missing_image_is_listed_and_a_missing_outline_left_out(tmp_path):
    folder = write(tmp_path) / "PH2 Dataset images"
    (folder / "IMD003" / "IMD003_Dermoscopic_Image" / "IMD003.bmp").unlink()
    (folder / "IMD033" / "IMD033_lesion" / "IMD033_lesion.bmp").unlink()
    items = read_ph2(tmp_path, rejected=tmp_path / "rejected.csv")
    assert [(item["id"], len(item["masks"])) for item in items] == [("ph2_IMD033", 0), ("ph2_IMD061", 1)]
    (refused,) = read_rejected(tmp_path / "rejected.csv")
    assert (refused.id, refused.row) == ("ph2_IMD003", 2)
    assert refused.reason.startswith("image file absent: ")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            TABLE.replace("                  2 ||", "                  3 ||"),
            r"row 4: Clinical Diagnosis is '3': the leg",
        ),
        (TABLE.replace("    1  3  4  5  6 ||", "    1  7 ||"), r"row 4: Colors is '7'"),
        (TABLE.replace("|       P |", "|       X |", 1), r"row 4: Streaks is 'X'"),
        (TABLE.replace("| Streaks ", ""), r"row 1: missing column\(s\) \['Streaks'\]"),
        (
            TABLE.replace("|              AT |            AT |       A", "|     AT |       A"),
            "row 3: 9 cells for 10 columns",
        ),
    ],
)
def test_a_damaged_table_is_named_with_its_row(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        read_ph2(write(tmp_path, table))


def test_a_missing_table_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no PH2_dataset\.txt: give the unpacked folder PH2Dataset"):
        read_ph2(tmp_path)
    (tmp_path / "PH2_dataset.xlsx").touch()
    with pytest.raises(FileNotFoundError, match=r"holds PH2_dataset\.xlsx but not PH2_dataset\.txt.*Unpack that too"):
        read_ph2(tmp_path)
