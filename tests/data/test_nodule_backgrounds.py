"""Background places: in the lung or at its border, away from the nodule, half of them on something dense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from monai_medclip.data import BACKGROUND_TEXT, nodule_backgrounds, text_key

SHAPE, SPACING_MM = (60, 60, 20), (1.0, 1.0, 2.0)
NODULE = (15, 15, 8)


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    """Tissue with a lung on the side of low x; in it a nodule of one voxel and a vessel along z."""
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    affine[:3, 3] = 30.0, 20.0, -100.0
    volume_hu = np.full(SHAPE, 40, np.int16)
    volume_hu[:40] = -850
    volume_hu[28:31, 40:43] = 40
    nodule = np.zeros(SHAPE, np.uint8)
    nodule[NODULE] = 1
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[:40] = 1
    volume_hu[NODULE] = 40
    files = {}
    for name, voxels in (("image", volume_hu), ("nodule", nodule), ("lungs", lungs)):
        files[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(voxels, affine), files[name])
    masks = {"nodule": files["nodule"], "lungs": files["lungs"]}
    about = {"text": "Solid lung nodule.", "labels": ["malignant"], "meta": {"diameter_mm": 5.0}, "diameter_mm": 5.0}
    return {"id": "case", "patient_id": "p1", "split": "val", "image": files["image"], "masks": masks, **about}


def voxels_of(places: list[dict[str, Any]]) -> np.ndarray:
    """(P, 3) indices of the centers, which must be those of voxels."""
    affine = nib.load(places[0]["image"]).affine
    found = apply_affine(np.linalg.inv(affine), [place["center_mm"] for place in places])
    np.testing.assert_allclose(found, found.round(), atol=1e-4)
    return found.round().astype(int)


def test_places_keep_their_distance_from_the_nodule_and_stay_near_the_lung(item: dict[str, Any]) -> None:
    at = voxels_of(nodule_backgrounds([item], count=3000, seed=0, gap_mm=8, border_mm=4))
    assert np.linalg.norm((at - NODULE) * SPACING_MM, axis=1).min() > 8
    assert at[:, 0].max() == 43  # the lung ends at 39, and 4 mm are allowed
    assert len(np.unique(at, axis=0)) == 3000


def test_half_of_the_places_are_dense_until_one_kind_runs_short(item: dict[str, Any]) -> None:
    volume_hu = np.asanyarray(nib.load(item["image"]).dataobj)

    def dense(**options: Any) -> int:
        return int((volume_hu[tuple(voxels_of(nodule_backgrounds([item], seed=1, **options)).T)] > -500).sum())

    assert dense(count=200) == 100
    assert dense(count=200, dense_share=0.0) == 0
    vessel = 3 * 3 * 20
    assert dense(count=400, dense_share=1.0, border_mm=0) == vessel


def test_without_a_lung_mask_what_holds_air_is_lung(item: dict[str, Any]) -> None:
    bare = {**item, "masks": {"nodule": item["masks"]["nodule"]}}
    assert voxels_of(nodule_backgrounds([bare], count=3000, seed=0, border_mm=0, dense_share=1.0))[:, 0].max() < 40
    at = voxels_of(nodule_backgrounds([bare], count=3000, seed=0, border_mm=4))
    assert at[:, 0].max() == 43


def test_items_say_background_and_forget_what_was_said_of_the_nodule(item: dict[str, Any]) -> None:
    first, second = nodule_backgrounds([item], count=2, seed=0)
    assert (first["id"], second["id"]) == ("case_background_1", "case_background_2")
    assert (first["patient_id"], first["split"], first["image"]) == ("p1", "val", item["image"])
    assert first["text"] == BACKGROUND_TEXT
    assert first["positives"] == second["positives"] == text_key(BACKGROUND_TEXT)
    assert (first["labels"], first["meta"]) == ([], {})
    assert "diameter_mm" not in first


def test_places_depend_on_the_seed_and_the_item_alone(item: dict[str, Any]) -> None:
    other = {**item, "id": "other"}
    alone = nodule_backgrounds([item], count=5, seed=0)
    assert nodule_backgrounds([other, item], count=5, seed=0)[5:] == alone
    assert nodule_backgrounds([item], count=5, seed=1) != alone


def test_a_volume_without_room_gives_fewer_places(item: dict[str, Any]) -> None:
    assert nodule_backgrounds([item], count=5, seed=0, gap_mm=500) == []


def test_bad_input_is_refused(item: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count 0"):
        nodule_backgrounds([item], count=0, seed=0)
    with pytest.raises(ValueError, match="no 'nodule' mask"):
        nodule_backgrounds([{**item, "masks": {}}], count=1, seed=0)
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "small.nii")
    with pytest.raises(ValueError, match="onto the image's grid"):
        nodule_backgrounds([{**item, "masks": {"nodule": str(tmp_path / "small.nii")}}], count=1, seed=0)
