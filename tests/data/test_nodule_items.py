"""From studies and nodule points to items: nothing crosses the split, and nothing is lost silently."""

from __future__ import annotations

import logging

import pytest

from monai_medclip.data import NodulePoint, nodule_items, read_manifest, read_rejected, split_by_patient, text_key

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"


def study(name, patient, split="train", **more):
    text = f"CT of {name}."
    item = {"id": name, "image": f"/cts/{name}.nii.gz", "patient_id": patient, "split": split, "text": text}
    return {**item, "positives": text_key(text), "meta": {"kernel": "B"}, "labels": ["nodule"], **more}


def point(image, x=0.0, **more):
    return NodulePoint(image, (x, 1.0, 2.0), **more)


def test_each_nodule_becomes_an_item_of_its_study():
    studies = [study("a", "p1"), study("b", "p2", "test", sections={"findings": "CT of b."})]
    points = [
        point("b", 5, text="A 6 mm nodule.", score=0.8, label="solid", box_mm=(0, 0, 0, 1, 1, 1)),
        point("a", 1, diameter_mm=8.0, id="N7"),
        point("a", 2),
    ]
    first, second, third = nodule_items(studies, points)
    assert [one["id"] for one in (first, second, third)] == ["a_1", "a_2", "b_1"]
    assert [one["nodule_id"] for one in (first, second, third)] == ["N7", "2", "1"]
    assert [one["center_mm"] for one in (first, second, third)] == [[1, 1, 2], [2, 1, 2], [5, 1, 2]]
    assert (first["diameter_mm"], first["meta"]) == (8.0, {"kernel": "B", "diameter_mm": 8.0})
    assert (second["diameter_mm"], second["meta"]) == (None, {"kernel": "B"})
    assert (first["text"], first["positives"]) == ("CT of a.", text_key("CT of a."))
    assert (third["text"], third["positives"]) == ("A 6 mm nodule.", text_key("A 6 mm nodule."))
    assert "sections" not in third
    assert third["meta"] == {"kernel": "B", "score": 0.8, "nodule_label": "solid", "box_mm": [0, 0, 0, 1, 1, 1]}
    assert studies[0]["meta"] == {"kernel": "B"}  # the studies are left as they were


@pytest.mark.parametrize("split_first", [True, False])
def test_all_nodules_of_a_patient_stay_on_the_patients_side(split_first):
    """Two scans of each of ten patients with three nodules each, split before or after they are taken apart."""
    studies = [study(f"{patient}_{scan}", f"p{patient}", "") for patient in range(10) for scan in "xy"]
    points = [point(one["id"], x) for x in range(3) for one in studies]
    if split_first:
        items = nodule_items(split_by_patient(studies, (0.5, 0.2, 0.3)), points)
    else:
        items = split_by_patient(nodule_items(studies, points), (0.5, 0.2, 0.3))
    sides = {(one["patient_id"], one["split"]) for one in items}
    assert len(items) == 60
    assert len({one["id"] for one in items}) == 60
    assert len(sides) == 10
    assert {split for _, split in sides} == {"train", "val", "test"}


@pytest.mark.parametrize(
    "name",
    ["case", "/cts/file.nii.gz", "file", "elsewhere/file.nii.gz", f"/luna/subset0/{UID}.mhd", UID, "old/case.nii"],
)
def test_an_image_is_known_by_its_id_its_series_or_its_file(name):
    one = study("case", "p", image="/cts/file.nii.gz", meta={"seriesuid": UID})
    (item,) = nodule_items([one, study("other", "q")], [point(name)])
    assert item["id"] == "case_1"


def test_an_id_decides_before_a_file_name():
    studies = [study("a", "p", image="/cts/b.nii.gz"), study("b", "q", image="/cts/a.nii.gz")]
    assert nodule_items(studies, [point("a")])[0]["id"] == "a_1"


def test_points_of_unknown_images_raise_or_are_listed(tmp_path, caplog):
    studies, points = [study("a", "p"), study("empty", "q")], [point("a"), point("b", id="N1"), point("c")]
    with pytest.raises(ValueError, match=r"b: nodule of an unknown image(.|\n)*Give rejected"):
        nodule_items(studies, points)
    with caplog.at_level(logging.INFO, "monai_medclip"):
        (item,) = nodule_items(studies, points, rejected=tmp_path / "rejected.csv")
    assert item["id"] == "a_1"
    assert "1 nodules in 1 images; images without a nodule: 1; nodules of unknown images: 2" in caplog.text
    listed = read_rejected(tmp_path / "rejected.csv")
    assert [(one.file, one.id) for one in listed] == [("b", "N1"), ("c", ""), ("/cts/empty.nii.gz", "empty")]
    with pytest.raises(ValueError, match="None of 1 points lies in one of 2 images"):
        nodule_items(studies, points[2:], rejected=tmp_path / "rejected.csv")


def test_a_name_of_two_items_is_refused():
    studies = [study(name, name, image=f"/cts/{name}/ct.nii.gz") for name in "ab"]
    with pytest.raises(ValueError, match=r"'ct' names 2 items \(\['a', 'b'\] \.\.\.\)"):
        nodule_items(studies, [point("ct")])


def test_manifest_items_become_nodules(tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(b"")
    (tmp_path / "m.csv").write_text("id,file,text,patient_id,split\none,ct.nii.gz,A CT.,p,val\n")
    (item,) = nodule_items(read_manifest(tmp_path / "m.csv"), [point("ct.nii.gz")])
    assert (item["id"], item["split"], item["study_id"], item["image"]) == (
        "one_1",
        "val",
        "one",
        str(tmp_path / "ct.nii.gz"),
    )
