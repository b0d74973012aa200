"""Nodule crops: right place, right size in mm, right way round, whatever the file's axes; and back onto its grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_medclip.transforms.chest_ct import LoadCTd
from monai_medclip.transforms.nodule import CropNoduled, NoduleCenterd, mask_center_mm
from monai_medclip.transforms.rejects import BadInputError

CENTER = np.array([12.0, -30.0, 55.0])  # RAS mm
ORIGIN = CENTER - 30


def scan(function, *, spacing=(0.8, 0.6, 1.5), axes="RAS", shape=(75, 100, 40)):
    """A volume whose value at (x, y, z) RAS mm is a function of the place, stored in any axis order."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = ORIGIN
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    values = np.asarray(function(*np.moveaxis(index * spacing + ORIGIN, -1, 0)), np.float32)
    ornt = nib.orientations.axcodes2ornt(axes)
    return nib.as_closest_canonical(nib.Nifti1Image(values, affine)).as_reoriented(ornt)


def tensor(image) -> MetaTensor:
    return MetaTensor(torch.from_numpy(image.get_fdata(dtype=np.float32).copy())[None], affine=image.affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL", "PIR"])
def test_pixels_show_their_own_place_in_mm(axes):
    """Volumes that hold their own coordinates: linear sampling returns them exactly."""
    crop = CropNoduled("image", size=10, pixel_mm=0.5, offsets_mm=(-2.0, 0.0, 1.0))
    x, y, z = (
        crop({"image": tensor(scan(lambda *at, i=i: at[i], axes=axes)), "center_mm": CENTER})["image"] for i in range(3)
    )
    assert x.shape == (3, 10, 10)
    steps = (np.arange(10) - 4.5) * 0.5
    np.testing.assert_allclose(x[1].numpy(), np.tile(CENTER[0] - steps, (10, 1)), atol=1e-3)  # right to left
    np.testing.assert_allclose(y[1].numpy(), np.tile(CENTER[1] - steps, (10, 1)).T, atol=1e-3)  # front to back
    np.testing.assert_allclose(z.numpy().mean((1, 2)), CENTER[2] + [-2, 0, 1], atol=1e-3)
    place = x.affine.numpy() @ [2, 3, 0, 1]
    np.testing.assert_allclose(place[:3], [x[1, 2, 3], y[1, 2, 3], z[1, 2, 3]], atol=1e-3)


def ball(radius_mm):
    return lambda x, y, z: 1000.0 * ((x - CENTER[0]) ** 2 + (y - CENTER[1]) ** 2 + (z - CENTER[2]) ** 2 < radius_mm**2)


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 1.0), (0.9, 0.9, 2.5)])
def test_a_nodule_is_as_large_in_the_crop_as_in_the_patient(spacing):
    image = tensor(scan(ball(6.0), spacing=spacing, shape=(90, 90, 45)))
    crop = CropNoduled("image", size=40, pixel_mm=0.7)({"image": image, "center_mm": CENTER})["image"]
    area_mm2 = float((crop[1] > 500).sum()) * 0.7**2
    assert area_mm2 == pytest.approx(np.pi * 36, rel=0.1)
    assert float((crop[0] > 500).sum()) < float((crop[1] > 500).sum())


def test_a_mask_gives_its_centroid(tmp_path):
    nib.save(scan(ball(7.0), axes="LPS"), tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask_center_mm(tmp_path / "mask.nii.gz"), CENTER, atol=0.2)
    item = NoduleCenterd()({"masks": {"nodule": str(tmp_path / "mask.nii.gz")}})
    np.testing.assert_allclose(item["center_mm"], CENTER, atol=0.2)
    assert NoduleCenterd()({"masks": {}, "center_mm": (1, 2, 3)})["center_mm"] == (1, 2, 3)  # a click wins


def test_what_cannot_be_cropped_is_named(tmp_path):
    nib.save(scan(lambda x, y, z: 0 * x), tmp_path / "empty.nii.gz")
    with pytest.raises(BadInputError, match=r"empty\.nii\.gz.*0 voxels"):
        NoduleCenterd("mask")({"mask": str(tmp_path / "empty.nii.gz")})
    (tmp_path / "broken.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(BadInputError, match="cannot be read"):
        mask_center_mm(tmp_path / "broken.nii.gz")
    with pytest.raises(BadInputError, match=r"case.*no 'nodule' mask, only \['lung'\]"):
        NoduleCenterd()({"id": "case", "masks": {"lung": "lung.nii.gz"}})
    volume = tensor(scan(ball(5.0)))
    with pytest.raises(BadInputError, match=r"outside the volume.*LPS"):
        CropNoduled("image")({"image": volume, "center_mm": CENTER * [-1, -1, 1]})
    with pytest.raises(BadInputError, match="no nodule center"):
        CropNoduled("image")({"image": volume})
    with pytest.raises(ValueError, match="ascending"):
        CropNoduled("image", offsets_mm=(2.0, 0.0))


def test_outside_the_file_the_border_is_repeated():
    image = tensor(scan(lambda x, y, z: 100 + 0 * x, shape=(10, 10, 3)))
    center = image.affine[:3, 3].numpy() + 3
    crop = CropNoduled("image")({"image": image, "center_mm": center})["image"]
    assert torch.allclose(crop.as_tensor(), torch.tensor(100.0))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAL"])
def test_a_map_goes_back_onto_the_scanners_grid(tmp_path, axes):
    """A marked pixel of the crop ends up at its own place in mm, in the slab of the planes and nowhere else."""
    nib.save(scan(lambda x, y, z: -800 + ball(6.0)(x, y, z), axes=axes), tmp_path / "ct.nii.gz")
    pipeline = Compose([LoadCTd("image"), CropNoduled("image", pixel_mm=1.0, size=24)])
    item = pipeline({"image": str(tmp_path / "ct.nii.gz"), "center_mm": CENTER})
    heat = torch.zeros(1, 24, 24)
    heat[0, 5, 16] = 1.0
    item["heat"] = MetaTensor(heat).copy_meta_from(item["image"])
    place = (item["image"].affine.numpy() @ [5, 16, 0, 1])[:3]
    back = Invertd("heat", pipeline, orig_keys="image", nearest_interp=False, to_tensor=False)(item)["heat"]
    native = nib.load(tmp_path / "ct.nii.gz")
    assert tuple(back.shape[1:]) == native.shape
    np.testing.assert_allclose(back.affine.numpy(), native.affine, atol=1e-5)
    voxels = np.argwhere(back[0].numpy() > 0.3)
    at = nib.affines.apply_affine(native.affine, voxels)
    assert np.abs(at[:, :2] - place[:2]).max() < 1.0
    assert np.abs(at[:, 2] - CENTER[2]).max() <= 2.5 + 1.25 + 1e-6
    assert len(np.unique(at[:, 2])) == 5  # 1.5 mm slices in a slab of 7.5 mm


def test_the_real_nodules_are_centered(shared_data):
    """The annotated nodule fills the middle of its crop, and its size in the crop is the annotated diameter."""
    name = "LIDC-IDRI-0003_R_2.nii.gz"
    item = {
        "image": str(shared_data / "ct_lidc_voi" / "image" / name),
        "masks": {"nodule": str(shared_data / "ct_lidc_voi" / "mask" / name)},
    }
    image = CropNoduled("image")(LoadCTd("image")(NoduleCenterd()(item)))["image"]
    assert image.shape == (3, 40, 40)
    middle, corners = image[1, 14:26, 14:26].mean(), image[1, :4, :4].mean()
    assert middle > -100 > corners
