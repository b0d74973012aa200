"""Nodules of a segmentation: parts and numbers, their places and sizes, and the specks that are no nodules."""

from __future__ import annotations

import logging

import nibabel as nib
import numpy as np
import pytest

from monai_medclip.data import read_nodule_masks

TILT = np.array([[-0.8, 0, 0, 40], [0, -0.75, 0, 30], [0, 0.2, 1.5, -100], [0, 0, 0, 1]])  # a gantry's


def save(path, voxels, affine=TILT):
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def balls(*radii_mm, values=None):
    """Balls of these radii along x, and where their middles are in RAS mm."""
    index = np.stack(np.meshgrid(*map(np.arange, (90, 40, 30)), indexing="ij"), -1)
    mm = nib.affines.apply_affine(TILT, index)
    voxels, middles = np.zeros(index.shape[:3], np.uint8), []
    for number, radius_mm in enumerate(radii_mm):
        middle = nib.affines.apply_affine(TILT, (15 + 28 * number, 20, 15))
        voxels[np.linalg.norm(mm - middle, axis=-1) <= radius_mm] = 1 if values is None else values[number]
        middles.append(middle)
    return voxels, middles


def test_parts_are_found_largest_first_on_a_tilted_grid(tmp_path):
    voxels, middles = balls(4.0, 7.0, 5.0)
    small, large, medium = middles
    points = read_nodule_masks(save(tmp_path / "ct_nodule.nii.gz", voxels), suffix="_nodule")
    assert [(point.image, point.id) for point in points] == [("ct", "1"), ("ct", "2"), ("ct", "3")]
    for point, middle, radius_mm in zip(points, (large, medium, small), (7, 5, 4), strict=True):
        np.testing.assert_allclose(point.center_mm, middle, atol=0.1)
        assert point.diameter_mm == pytest.approx(2 * radius_mm, rel=0.03)
        low, high = np.array(point.box_mm[:3]), np.array(point.box_mm[3:])
        np.testing.assert_allclose((low + high) / 2, middle, atol=0.8)
        assert ((high - low) >= 2 * radius_mm - 1.6).all()


def test_numbers_tell_touching_nodules_apart_and_join_parts(tmp_path):
    voxels = np.zeros((20, 20, 20), np.int16)
    voxels[2:6, 5:9, 5:9], voxels[6:10, 5:9, 5:9], voxels[15:17, 5:9, 5:9] = 3, 7, 7
    file = save(tmp_path / "m.nii", voxels, np.eye(4))
    three, seven = read_nodule_masks(file, by="value")
    assert (three.id, seven.id) == ("3", "7")
    assert three.center_mm == pytest.approx((3.5, 6.5, 6.5))
    assert seven.box_mm == pytest.approx((5.5, 4.5, 4.5, 16.5, 8.5, 8.5))
    assert three.diameter_mm == pytest.approx((6 * 64 / np.pi) ** (1 / 3))
    first, second = read_nodule_masks(file)  # as parts
    assert first.center_mm == pytest.approx((5.5, 6.5, 6.5))
    assert second.center_mm == pytest.approx((15.5, 6.5, 6.5))


def test_corners_join_and_specks_are_counted(tmp_path, caplog):
    voxels = np.zeros((20, 20, 20), np.uint8)
    voxels[2:5, 2:5, 2:5] = voxels[5:8, 5:8, 5:8] = 1  # touch at a corner
    voxels[12, 12, 12] = voxels[18, 18, 10:12] = 1
    save(tmp_path / "a.nii.gz", voxels, np.eye(4))
    save(tmp_path / "b.nii.gz", np.zeros((4, 4, 4), np.uint8), np.eye(4))
    with caplog.at_level(logging.INFO, "monai_medclip"):
        (point,) = read_nodule_masks(tmp_path)
    assert (point.image, point.center_mm) == ("a", pytest.approx((4.5, 4.5, 4.5)))
    assert "1 nodules in 2 masks; left out: 2 parts below 14.1 mm3; masks without a nodule: 1" in caplog.text
    assert len(read_nodule_masks(tmp_path, min_mm3=2.0)) == 2


def test_soft_masks_have_parts_but_no_numbers(tmp_path):
    file = save(tmp_path / "p.nii.gz", np.pad(np.full((4, 4, 4), 0.3, np.float32), 3), np.eye(4))
    assert read_nodule_masks(file)[0].center_mm == pytest.approx((4.5, 4.5, 4.5))
    with pytest.raises(ValueError, match=r"p\.nii\.gz has values that are no whole numbers.*by='part'"):
        read_nodule_masks(file, by="value")


def test_what_is_no_mask_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no mask whose name ends in _nodule\.nii\.gz"):
        read_nodule_masks(tmp_path, suffix="_nodule")
    with pytest.raises(ValueError, match="by='voxel'"):
        read_nodule_masks(tmp_path, by="voxel")
    with pytest.raises(ValueError, match=r"flat\.nii has shape \(4, 4\)"):
        read_nodule_masks(save(tmp_path / "flat.nii", np.ones((4, 4), np.uint8)))
    (tmp_path / "flat.nii").write_bytes(b"no NIfTI")
    with pytest.raises(ValueError, match=r"flat\.nii cannot be read"):
        read_nodule_masks({"ct": tmp_path / "flat.nii"})
    (tmp_path / "again").mkdir()
    save(tmp_path / "again" / "flat.nii.gz", np.ones((4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="are both masks of 'flat'"):
        read_nodule_masks(tmp_path)
