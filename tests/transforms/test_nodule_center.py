"""The middle of a nodule: given in RAS or LPS, or from a mask that may lie on another grid or hold several nodules."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from monai_medclip.transforms.nodule_center import NoduleCenterd, mask_center_mm
from monai_medclip.transforms.rejects import BadInputError

CENTER = np.array([12.0, -30.0, 55.0])  # RAS mm
OTHER = CENTER + np.array([16.0, 0.0, 0.0])


def mask(path, nodules, *, spacing=(0.8, 0.6, 1.5), axes="RAS"):
    """Balls of {value: (middle, radius in mm)}, in any axis order and spacing."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = CENTER - 30
    shape = [round(60 / mm) for mm in spacing]
    mm = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing + affine[:3, 3]
    voxels = np.zeros(shape, np.float32)
    for value, (middle, radius_mm) in nodules.items():
        voxels[np.linalg.norm(mm - middle, axis=-1) < radius_mm] = value
    nib.save(nib.Nifti1Image(voxels, affine).as_reoriented(nib.orientations.axcodes2ornt(axes)), path)
    return str(path)


@pytest.mark.parametrize("grid", [{"axes": "LPS"}, {"axes": "SAL", "spacing": (1.0, 1.0, 1.0)}, {"spacing": (2, 2, 3)}])
def test_a_mask_gives_its_centroid_whatever_its_grid(tmp_path, grid):
    file = mask(tmp_path / "mask.nii.gz", {1: (CENTER, 7.0)}, **grid)
    np.testing.assert_allclose(mask_center_mm(file), CENTER, atol=0.3)
    item = NoduleCenterd()({"masks": {"nodule": file}})
    np.testing.assert_allclose(item["center_mm"], CENTER, atol=0.3)


def test_a_given_center_needs_no_mask():
    center = NoduleCenterd()
    assert center({"masks": {}, "center_mm": (1, 2, 3)})["center_mm"] == (1, 2, 3)  # a click wins
    item = center({"masks": {}, "center_lps_mm": [-12.0, 30.0, 55.0]})
    np.testing.assert_array_equal(item["center_mm"], CENTER)
    np.testing.assert_array_equal(center(item)["center_mm"], CENTER)  # twice is once: not mirrored back
    assert center({"masks": {}, "center_mm": (-1, -2, 3), "center_lps_mm": (1, 2, 3.01)})["center_mm"] == (-1, -2, 3)
    with pytest.raises(BadInputError, match=r"case.*another place than its 'center_lps_mm'.*one of the two"):
        center({"id": "case", "masks": {}, "center_mm": (1, 2, 3), "center_lps_mm": (1, 2, 3)})


def test_two_nodules_in_a_mask_are_told_apart_or_refused(tmp_path):
    both = mask(tmp_path / "both.nii.gz", {1: (CENTER, 6.0), 2: (OTHER, 4.0)})
    apart, numbered = str(tmp_path / "parts.nii.gz"), nib.load(both)
    nib.save(nib.Nifti1Image(np.minimum(numbered.get_fdata(), 1), numbered.affine), apart)
    with pytest.raises(BadInputError, match=r"parts\.nii\.gz: the mask has 2 parts of 8\d\d, 2\d\d mm3"):
        NoduleCenterd("mask")({"mask": apart})
    with pytest.raises(BadInputError, match=r"both\.nii\.gz: the mask numbers 2 nodules. Set value to .*\(1, 2\)"):
        NoduleCenterd("mask")({"mask": both})
    np.testing.assert_allclose(NoduleCenterd("mask", value=2)({"mask": both})["center_mm"], OTHER, atol=0.3)
    by_item = NoduleCenterd("mask", value="number")
    np.testing.assert_allclose(by_item({"mask": both, "number": "1"})["center_mm"], CENTER, atol=0.3)
    with pytest.raises(BadInputError, match="does not say under 'number'"):
        by_item({"mask": both})
    with pytest.raises(BadInputError, match="0 voxels of value 3"):
        NoduleCenterd("mask", value=3)({"mask": both})


def test_touching_numbers_are_several_nodules_and_a_spur_is_not(tmp_path):
    touching = mask(tmp_path / "touching.nii.gz", {1: (CENTER, 6.0), 2: (CENTER + np.array([9, 0, 0]), 4.0)})
    with pytest.raises(BadInputError, match="numbers 2 nodules"):
        mask_center_mm(touching)
    spur = mask(tmp_path / "spur.nii.gz", {1: (CENTER, 6.0), 1.0001: (OTHER, 1.0)})
    np.testing.assert_allclose(mask_center_mm(spur), CENTER, atol=0.3)
    twins = mask(tmp_path / "twins.nii.gz", {1: (CENTER, 1.2), 1.0001: (OTHER, 1.2)})  # both small: two all the same
    with pytest.raises(BadInputError, match="has 2 parts"):
        mask_center_mm(twins)


def test_what_is_no_mask_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"empty\.nii\.gz.*0 voxels above 0"):
        NoduleCenterd("mask")({"mask": mask(tmp_path / "empty.nii.gz", {})})
    (tmp_path / "broken.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(BadInputError, match="cannot be read"):
        mask_center_mm(tmp_path / "broken.nii.gz")
    with pytest.raises(BadInputError, match=r"case.*no 'nodule' mask, only \['lung'\]"):
        NoduleCenterd()({"id": "case", "masks": {"lung": "lung.nii.gz"}})


def test_real_masks_with_specks_are_one_nodule(shared_data):
    """Of the 788 LIDC masks 25 have two parts or more; these have the largest second parts (0.2 to 0.7 %)."""
    for name, parts in (("0194_R_2", 2), ("0701_R_4", 8), ("0164_R_1", 2)):
        file = shared_data / "ct_lidc_voi" / "mask" / f"LIDC-IDRI-{name}.nii.gz"
        assert mask_center_mm(file).shape == (3,)
        assert ndimage.label(nib.load(file).get_fdata() > 0, np.ones((3, 3, 3)))[1] == parts
