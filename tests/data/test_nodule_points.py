"""Nodule tables and detections: every source's own space ends in RAS mm, and what cannot be placed is named."""

from __future__ import annotations

import csv
import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated, ConvertBoxModed
from monai.data import MetaTensor

from monai_medclip.data import read_nodule_csv, read_nodule_json, read_nodule_masks

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.287966244644280690737019247886"


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_lunas_annotations_are_in_lps(tmp_path):
    file = table(
        tmp_path / "annotations.csv",
        "seriesuid,coordX,coordY,coordZ,diameter_mm",
        f"{UID},102.2377292,65.32842988,-240.6955559,18.210145",
        f"{UID},1,2,3,-1",
    )
    first, second = read_nodule_csv(file, space="lps")
    assert first.image == UID
    assert first.center_mm == pytest.approx((-102.2377292, -65.32842988, -240.6955559))
    assert first.diameter_mm == pytest.approx(18.210145)
    assert first.box_mm is None
    assert first.score is None
    assert second.diameter_mm is None  # negative, as LUNA16's evaluation reads it
    assert read_nodule_csv(file, space="ras")[1].center_mm == (1, 2, 3)


def test_candidates_and_submissions_bring_class_and_probability(tmp_path, caplog):
    candidates = table(tmp_path / "c.csv", "seriesuid,coordX,coordY,coordZ,class", "a,1,2,3,0", "a,4,5,6,1")
    assert [point.label for point in read_nodule_csv(candidates, space="lps")] == ["0", "1"]
    found = table(tmp_path / "s.csv", "seriesuid,coordX,coordY,coordZ,probability", "a,1,2,3,0.1", "a,4,5,6,0.5")
    with caplog.at_level(logging.INFO, "monai_medclip"):
        (kept,) = read_nodule_csv(found, space="lps", min_score=0.5)
    assert (kept.score, kept.center_mm) == (0.5, (-4, -5, 6))
    assert "1 nodules kept, 1 with a score below 0.5" in caplog.text


def test_boxes_in_mm_are_mirrored_with_their_corners(tmp_path):
    file = table(tmp_path / "b.csv", "id,x0,y0,z0,x1,y1,z1,text", '"ct",10,20,30,14,26,38,"Solid, 6 mm."')
    (lps,) = read_nodule_csv(file, space="lps")
    assert lps.center_mm == (-12, -23, 34)
    assert lps.box_mm == (-14, -26, 30, -10, -20, 38)
    assert lps.diameter_mm == pytest.approx(6.0)  # mean of 4, 6 and 8
    assert lps.text == "Solid, 6 mm."
    sized = table(tmp_path / "s.csv", "image,x,y,z,w,h,d,diameter_mm", "ct,12,23,34,4,6,8,5.5")
    assert read_nodule_csv(sized, space="lps")[0] == lps._replace(diameter_mm=5.5, text="")


def test_voxel_boxes_hold_the_voxels_that_a_mask_of_them_holds(tmp_path):
    """The same nodule as a box of slices, as a center voxel with sides, and as a mask, on an oblique grid."""
    turn = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]])
    affine = nib.affines.from_matvec(turn @ np.diag([-0.7, 0.7, 2.5]), (11, -7, 90))
    mask = np.zeros((30, 40, 20), np.uint8)
    mask[10:15, 20:27, 6:9] = 1
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "ct.nii.gz")
    corners = table(tmp_path / "b.csv", "image,x0,y0,z0,x1,y1,z1", "ct,10,20,6,15,27,9")
    sized = table(tmp_path / "s.csv", "image,x,y,z,w,h,d", "ct.nii.gz,12,23,7,5,7,3")
    (expected,) = read_nodule_masks(tmp_path / "ct.nii.gz")
    for file in (corners, sized):
        (point,) = read_nodule_csv(file, space="voxel", image_root=tmp_path)
        assert point.center_mm == pytest.approx(expected.center_mm)
        assert point.box_mm == pytest.approx(expected.box_mm)
        assert point.diameter_mm == pytest.approx((3.5 + 4.9 + 7.5) / 3)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("seriesuid,coordX,coordY,coordZ,weight", "a,1,2,3,4", r"unknown column\(s\) \['weight'\].*Expected: image"),
        ("seriesuid,coordX,coordY,diameter_mm", "a,1,2,3", "do not say where nodules are"),
        ("x,y,z", "1,2,3", "do not say where nodules are"),
        ("id,x,y,z,x0,y0,z0,x1,y1,z1", "a,1,2,3,1,1,1,2,2,2", "do not say where nodules are"),
        ("id,seriesuid,x,y,z", "a,b,1,2,3", "'id' and 'seriesuid' both mean 'image'"),
        ("id,x,y,z", "a,1,two,3", "row 2: y is 'two', not a number"),
        ("id,x,y,z", "a,1,nan,3", "row 2: y is 'nan'"),
        ("id,x,y,z", ",1,2,3", "row 2: the image is not named"),
        ("id,x,y,z,diameter_mm", "a,1,2,3,0", "diameter_mm is 0"),
        ("id,x0,y0,z0,x1,y1,z1", "a,5,0,0,1,1,1", "lower corner first"),
    ],
)
def test_a_table_that_cannot_be_placed_is_named(tmp_path, header, row, message):
    with pytest.raises(ValueError, match=f"n.csv.*{message}"):
        read_nodule_csv(table(tmp_path / "n.csv", header, row), space="lps")


def test_spaces_and_scores_must_fit_the_table(tmp_path):
    file = table(tmp_path / "n.csv", "id,x,y,z,weight", "a,1,2,3,4")
    assert read_nodule_csv(file, space="ras", ignore=["weight"])[0].center_mm == (1, 2, 3)
    with pytest.raises(ValueError, match="have no score"):
        read_nodule_csv(file, space="ras", ignore=["weight"], min_score=0.5)
    for space, root in (("voxel", None), ("lps", tmp_path), ("world", None)):
        with pytest.raises(ValueError, match="use 'lps' or 'ras'"):
            read_nodule_csv(file, space=space, image_root=root, ignore=["weight"])
    with pytest.raises(ValueError, match=r"row 2: .*no NIfTI file of 'a'"):
        read_nodule_csv(file, space="voxel", image_root=tmp_path, ignore=["weight"])
    (tmp_path / "a").write_text("no image")
    with pytest.raises(ValueError, match="is no NIfTI file"):
        read_nodule_csv(file, space="voxel", image_root=tmp_path, ignore=["weight"])


DATALIST = {  # two entries as the bundle's annotation files have them
    "training": [
        {
            "box": [[102.2377292, 65.32842988, -240.6955559, 18.210145, 18.210145, 18.210145]],
            "image": f"{UID}/{UID}.nii.gz",
            "label": [0],
        }
    ],
    "validation": [{"box": [], "image": "none.nii.gz", "label": []}],
}


def test_datalists_hold_lunas_numbers(tmp_path):
    """The same nodule of the same series in annotations.csv and in the bundle's list is at one place."""
    (tmp_path / "list.json").write_text(json.dumps(DATALIST))
    (point,) = read_nodule_json(tmp_path / "list.json")
    annotation = table(
        tmp_path / "a.csv",
        "seriesuid,coordX,coordY,coordZ,diameter_mm",
        f"{UID},102.2377292,65.32842988,-240.6955559,18.210145",
    )
    (expected,) = read_nodule_csv(annotation, space="lps")
    assert point.center_mm == pytest.approx(expected.center_mm)
    assert point.diameter_mm == pytest.approx(expected.diameter_mm)
    assert (point.image, point.label, point.score) == (f"{UID}/{UID}.nii.gz", "nodule", None)


@pytest.mark.parametrize("lps", [True, False])
@pytest.mark.parametrize(("scores", "wrap"), [("label_scores", False), ("score", True)])
def test_what_monai_writes_of_a_box_of_voxels_is_read_back(tmp_path, lps, scores, wrap):
    """MONAI's own postprocessing of the bundle and the tutorial, on an image that it has turned to RAS."""
    affine = torch.tensor([[0.7, 0, 0, -170], [0, 0.7, 0, -120], [0, 0, 1.25, -300], [0, 0, 0, 1]], dtype=torch.float64)
    boxes = torch.tensor([[10.0, 20, 30, 20, 40, 38], [100, 50, 60, 110, 60, 70]])  # corners in voxels
    out = {"image": MetaTensor(torch.zeros(1, 200, 200, 100), affine=affine), "box": boxes}
    out = AffineBoxToWorldCoordinated("box", "image", affine_lps_to_ras=lps)(out)
    out = ConvertBoxModed("box", src_mode="xyzxyz", dst_mode="cccwhd")(out)
    entry = {"image": "/elsewhere/ct.nii.gz", "box": out["box"].tolist(), "label": [0, 0], scores: [0.9, 0.04]}
    (tmp_path / "found.json").write_text(json.dumps({"validation": [entry]} if wrap else [entry]))
    points = read_nodule_json(tmp_path / "found.json", space="lps" if lps else "ras")
    for point, box in zip(points, boxes.double(), strict=True):
        low, high = (affine[:3, :3] @ corner + affine[:3, 3] for corner in (box[:3], box[3:]))
        assert point.center_mm == pytest.approx(((low + high) / 2).tolist(), abs=1e-4)
        assert point.box_mm == pytest.approx([*low.tolist(), *high.tolist()], abs=1e-4)
    assert [point.score for point in points] == [0.9, 0.04]
    assert len(read_nodule_json(tmp_path / "found.json", min_score=0.5)) == 1


def test_other_box_modes_are_monais(tmp_path):
    entry = {"image": "ct", "box": [[10, 20, 30, 14, 26, 38]]}
    (tmp_path / "f.json").write_text(json.dumps([entry]))
    (point,) = read_nodule_json(tmp_path / "f.json", box_mode="xyzxyz", space="ras")
    assert point.box_mm == pytest.approx((10, 20, 30, 14, 26, 38))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "not JSON"),
        ('[{"image": "a"}]', r"entry 1: expected an object with 'image' and 'box', found \['image'\]"),
        ('{"validation": ["a.nii.gz"]}', "entry 1: .*found str"),
        ('[{"image": "a", "box": [[1, 2, 3]]}]', r"entry 1: 'box' has shape \(1, 3\)"),
        ('[{"image": "a", "box": [[1, 2, 3, 4, 0, 6]]}]', "entry 1: the box has sides"),
        ('[{"image": "a", "box": [[1, 2, 3, 4, 5, 6]], "label": [1]}]', "entry 1: label 1 has no name"),
        ('[{"image": "a", "box": [[1, 2, 3, 4, 5, 6]], "label": [0, 0]}]', "1 boxes, 2 labels"),
    ],
)
def test_json_that_is_no_detection_is_named(tmp_path, content, message):
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(ValueError, match=f"f.json.*{message}"):
        read_nodule_json(tmp_path / "f.json")
    with pytest.raises(ValueError, match="space='voxel'"):
        read_nodule_json(tmp_path / "f.json", space="voxel")


def test_real_masks_lie_where_lunas_annotations_say(shared_data, tmp_path):
    """Every eighth LIDC nodule, and the whole CT's: mask centers are within 2.6 mm of the table's, half within 0.3 mm.

    So are all 788 but LIDC-IDRI-0332_R_1, whose row is of another nodule: 33 mm away, 11 mm wide instead of 28.
    """
    with (shared_data / "manifest.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["source"] == "lidc"][::8]
    rows = [row for row in rows if not row["id"].endswith("LIDC-IDRI-0332_R_1")]
    lines, masks = ["id,coordX,coordY,coordZ,diameter_mm"], {}
    for row in rows:
        meta = json.loads(row["meta"])
        lines.append(",".join([row["id"], *(str(meta[f"coord{axis}"]) for axis in "XYZ"), str(meta["diameter_mm"])]))
        masks[row["id"]] = shared_data / row["file"].replace("/image/", "/mask/")
    masks["whole"] = shared_data / "ct_volumes" / "lidc0001_nodule.nii.gz"
    lines.append(lines[1].replace(rows[0]["id"], "whole"))
    assert rows[0]["patient_id"] == "LIDC-IDRI-0001"
    told = read_nodule_csv(table(tmp_path / "a.csv", *lines), space="lps")
    seen = read_nodule_masks(masks)
    assert [point.image for point in seen] == [point.image for point in told]  # one nodule per mask
    apart_mm = [np.linalg.norm(np.subtract(a.center_mm, b.center_mm)) for a, b in zip(told, seen, strict=True)]
    assert np.median(apart_mm) < 0.3
    assert np.max(apart_mm) < 2.6
    assert apart_mm[-1] < 0.1  # the whole CT
    wider = [b.diameter_mm / a.diameter_mm for a, b in zip(told, seen, strict=True)]  # masks hold the outline
    assert 1.0 < min(wider) < np.median(wider) < 1.2
