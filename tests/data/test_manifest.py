"""Manifests: what is read, what is refused and how the refusal reads; the real one loads as it is."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_medclip.data import (
    LIDC_FINDINGS,
    ManifestError,
    label_vector,
    matches_rule,
    positives_by,
    read_manifest,
    read_rejected,
    text_key,
)

ROWS = [
    {"id": "a", "file": "images/a.png", "patient_id": "p1", "split": "train", "labels": "nodule; Pleural_Effusion"},
    {"id": "b", "file": "images/b.png", "patient_id": "p1", "split": "train", "labels": "no finding"},
    {"id": "c", "file": "images/c.png", "patient_id": "p2", "split": "test", "labels": ""},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write(folder: Path, rows: list[dict[str, str]]) -> Path:
    rows = [{"text": f"Report of {row.get('id', 'it')}, in full.", **row} for row in rows]
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def changed(position: int, **cells: str) -> list[dict[str, str]]:
    return [{**row, **(cells if i == position else {})} for i, row in enumerate(ROWS)]


def test_a_row_becomes_an_item(folder):
    meta = {"diameter_mm": 12.5}
    items = read_manifest(write(folder, [{**row, "meta": json.dumps(meta), "site": "north"} for row in ROWS]))
    item = items[0]
    assert item["image"] == str(folder / "images" / "a.png")
    assert (item["id"], item["study_id"], item["patient_id"], item["split"]) == ("a", "a", "p1", "train")
    assert item["labels"] == ["nodule", "Pleural_Effusion"]
    assert (item["text"], item["meta"], item["site"]) == ("Report of a, in full.", meta, "north")
    assert (item["masks"], item["boxes"], item["view"]) == ({}, [], "")
    assert item["positives"] == text_key("report  of A, in full.") != text_key("Report of b, in full.")


def test_labels_are_one_zero_or_unknown(folder):
    path = write(folder, ROWS)
    names = ["pleural effusion", "mass", "nodule"]
    unknown = [item["label"] for item in read_manifest(path, findings=names)]
    assert unknown[:2] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert all(math.isnan(value) for value in unknown[2])
    negative = read_manifest(path, findings=names, empty_labels="negative")
    assert negative[2]["label"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("meta.size >= 4", 1.0),
        ("meta.size < 4", 0.0),
        ("meta.size == 4.0 and view == PA", 1.0),
        ("view != PA", 0.0),
        ("meta.kind == 'part solid'", 1.0),
        ("meta.absent > 1", math.nan),
        ("meta.absent > 1 and view == AP", 0.0),
        ("meta.absent > 1 and view == PA", math.nan),
    ],
)
def test_rules(rule, answer):
    item = {"view": "PA", "meta": {"size": 4, "kind": "part solid"}}
    assert matches_rule(item, rule) == pytest.approx(answer, nan_ok=True)
    assert label_vector(item, {"asked": rule}) == pytest.approx([answer], nan_ok=True)


@pytest.mark.parametrize("rule", ["__import__('os')", "size ~ 4", "meta.kind > 3"])
def test_what_is_no_rule_is_refused_not_run(rule):
    with pytest.raises(ValueError, match="rule"):
        matches_rule({"meta": {"kind": "solid"}}, rule)


def test_selectors(folder):
    path = write(
        folder, [{**row, "source": "x" if row["id"] == "a" else "y", "size": str(i)} for i, row in enumerate(ROWS)]
    )
    ids = [
        [item["id"] for item in read_manifest(path, **chosen)]
        for chosen in (
            {"split": "train"},
            {"source": "y"},
            {"where": {"id": ["a", "c"]}},
            {"where": "size >= 1 and source == y", "split": "test"},
        )
    ]
    assert ids == [["a", "b"], ["b", "c"], ["a", "c"], ["c"]]
    with pytest.raises(ManifestError, match="no row is left"):
        read_manifest(path, split="val")


def test_json_forms_read_the_same(folder):
    rows = [{**row, "text": f"Report of {row['id']}, in full."} for row in ROWS]
    expected = read_manifest(write(folder, rows))
    (folder / "list.json").write_text(json.dumps(rows))
    monai = {"training": [{**r, "image": r["file"]} for r in rows[:2]], "test": rows[2:], "name": "mine"}
    for part in (*monai["training"], *monai["test"]):
        part.pop("split", None)
    (folder / "monai.json").write_text(json.dumps(monai))
    assert read_manifest(folder / "list.json") == expected
    assert read_manifest(folder / "monai.json") == expected


def test_images_may_lie_elsewhere(folder, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("elsewhere"), ROWS)
    with pytest.raises(ManifestError, match="give image_root"):
        read_manifest(path)
    assert len(read_manifest(path, image_root=folder)) == 3


def test_the_image_behind_precomputed_features_starts_from_the_manifests_folder(folder):
    rows = [{**row, "pixels": row["file"] if number else ""} for number, row in enumerate(ROWS)]
    first, second, _ = read_manifest(write(folder, rows))
    assert first["pixels"] == ""
    assert second["pixels"] == second["image"] == str(folder / rows[1]["file"])


def test_masks_and_boxes_beside_the_manifest_are_joined(folder):
    (folder / "masks.csv").write_text("id,label,file\na,nodule,masks/a.png\nz,nodule,masks/z.png\n")
    (folder / "boxes.csv").write_text("id,label,x0,y0,x1,y1,kind\nb,lung,1,2,3.5,4,annotated\n")
    first, second, _ = read_manifest(write(folder, ROWS))
    assert first["masks"] == {"nodule": str(folder / "masks" / "a.png")}
    assert second["boxes"] == [{"label": "lung", "kind": "annotated", "box": [1.0, 2.0, 3.5, 4.0]}]
    (folder / "masks.csv").write_text("image,path\n")
    with pytest.raises(ManifestError, match=r"masks.csv, row 1: missing column"):
        read_manifest(folder / "manifest.csv")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, id="a"), r"manifest.csv, row 3: id 'a' is also in row 2. .* rename"),
        (changed(1, split="test"), r"row 3: patient 'p1' is in 'test' here and in 'train' in row 2. Put all"),
        (changed(2, text=" "), r"row 4: the text is empty. Give"),
        (changed(2, patient_id=""), r"row 4: patient_id is empty.* Give"),
        (changed(2, file=""), r"row 4: the image path is empty. Give"),
        (changed(2, file="images/z.png"), r"row 4: the image .*z.png does not exist. Correct"),
        (changed(2, pixels="images/z.png"), r"row 4: the pixels .*z.png do not exist. Correct"),
        (changed(2, meta="{half"), r"row 4: column 'meta' is not JSON"),
        (changed(2, meta="[1]"), r"row 4: column 'meta' holds list"),
    ],
)
def test_a_bad_row_is_named_or_listed(folder, rows, message):
    path = write(folder, rows)
    with pytest.raises(ManifestError, match=message) as error:
        read_manifest(path)
    kept = read_manifest(path, rejected=folder / "out" / "rejected.csv")
    (refused,) = read_rejected(folder / "out" / "rejected.csv")
    assert len(kept) == 2
    assert refused.file == str(path)
    assert refused.row in (3, 4)
    assert refused.reason in str(error.value)


def test_a_counterfactual_twin_is_no_second_split(folder):
    rows = changed(1, split="counterfactual")
    assert [item["split"] for item in read_manifest(write(folder, rows))] == ["train", "counterfactual", "test"]


def test_missing_columns_and_files_are_named(folder):
    with pytest.raises(ManifestError, match=r"manifest.csv, row 1: missing column\(s\) \['file', 'patient_id'\]"):
        read_manifest(write(folder, [{"id": "a", "path": "a.png"}]))
    with pytest.raises(ManifestError, match=r"missing column\(s\) \['text_alt'\]"):
        read_manifest(write(folder, ROWS), text_column="text_alt")
    with pytest.raises(ManifestError, match=r"nowhere.csv: there is no such manifest"):
        read_manifest(folder / "nowhere.csv")
    (folder / "broken.json").write_text('[{"id": ')
    with pytest.raises(ManifestError, match=r"broken.json, row 1: not valid JSON"):
        read_manifest(folder / "broken.json")
    (folder / "wide.csv").write_text("id,file,patient_id,text\na,a.png,p,Clear, no effusion.\n")
    with pytest.raises(ManifestError, match=r"wide.csv, row 2: more cells than columns. Quote"):
        read_manifest(folder / "wide.csv")


def test_a_finding_that_nobody_labeled_is_an_error(folder):
    with pytest.raises(ManifestError, match="is unknown in every row"):
        read_manifest(write(folder, ROWS), findings={"calcified": "meta.Calcification < 6"})
    with pytest.raises(ValueError, match="give a list of label names"):
        read_manifest(write(folder, ROWS), findings="nodule")


def test_positives_by_study():
    items = positives_by([{"study_id": "1"}, {"study_id": "2"}, {"study_id": "1"}], "study_id")
    assert items[0]["positives"] == items[2]["positives"] != items[1]["positives"]
    assert 0 <= items[0]["positives"] < 2**63


def test_the_real_manifest_loads_as_it_is(shared_data):
    items = read_manifest(shared_data / "manifest.csv")
    assert len(items) == 3218
    assert len({item["id"] for item in items}) == 3218
    pairs = {(item["text_id"], item["positives"]) for item in items}
    assert len(pairs) == len({text for text, _ in pairs}) == len({key for _, key in pairs})
    assert sum(len(item["masks"]) for item in items) == 997
    assert sum(len(item["boxes"]) for item in items) == 458


def test_real_nodules_carry_their_ratings(shared_data):
    manifest = shared_data / "manifest.csv"
    chosen = {"source": "lidc", "split": "test", "text_column": "text_alt", "findings": LIDC_FINDINGS}
    items = read_manifest(manifest, **chosen)
    assert np.sum([item["label"] for item in items], axis=0).tolist() == [62, 25, 13, 25, 13]
    assert len(items) == 193
    assert all("Malignancy rated" in item["text"] and item["masks"]["nodule"] for item in items)


def test_on_error_says_whether_bad_rows_raise_or_are_listed(tmp_path):
    (tmp_path / "a.png").touch()
    path = tmp_path / "manifest.csv"
    path.write_text("file,text,patient_id\na.png,Normal.,p1\nb.png,Normal.,p2\n")
    listing = tmp_path / "rejected.csv"
    with pytest.raises(ManifestError, match=r"row 3: the image .*b\.png does not exist"):
        read_manifest(path, on_error="raise", rejected=listing)
    assert not listing.exists()
    assert [item["id"] for item in read_manifest(path, on_error="skip", rejected=listing)] == ["a.png"]
    assert [one.row for one in read_rejected(listing)] == [3]
    with pytest.raises(ValueError, match="needs rejected"):
        read_manifest(path, on_error="skip")
    with pytest.raises(ValueError, match="on_error='ignore'"):
        read_manifest(path, on_error="ignore")
