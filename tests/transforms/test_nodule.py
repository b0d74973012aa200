"""Nodule crops: right place, right size in mm, right way round, whatever the file's axes; and back onto its grid.

Volumes that hold their own coordinates tell the truth of linear sampling: every voxel must show its own place in mm.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from scipy.spatial.transform import Rotation

from monai_medclip.transforms import nodule
from monai_medclip.transforms.chest_ct import LoadCTd
from monai_medclip.transforms.display_order import DisplayOrderd
from monai_medclip.transforms.nodule import CropNoduled
from monai_medclip.transforms.nodule_center import NoduleCenterd
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


def test_what_cannot_be_cropped_is_named():
    volume = tensor(scan(ball(5.0)))
    with pytest.raises(BadInputError, match=r"outside the volume.*LPS"):
        CropNoduled("image")({"image": volume, "center_mm": CENTER * [-1, -1, 1]})
    with pytest.raises(BadInputError, match="no nodule center"):
        CropNoduled("image")({"image": volume})
    with pytest.raises(ValueError, match="ascending"):
        CropNoduled("image", offsets_mm=(2.0, 0.0))
    with pytest.raises(ValueError, match="choose 2 and offsets_mm, or 3"):
        CropNoduled("image", spatial_dims=3, offsets_mm=(0.0,))
    with pytest.raises(ValueError, match="3"):
        CropNoduled("image", spatial_dims=3, size=(40, 40))
    with pytest.raises(ValueError, match="must be positive"):
        CropNoduled("image", spatial_dims=3, pixel_mm=(1.0, 0.0, 1.0))


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


LAYOUTS = {
    "axial": np.diag([0.8, 0.6, 1.5]),
    "mirrored": np.diag([-0.8, -0.6, 1.5]),
    "sagittal": np.array([[0, 0, 1.5], [-0.8, 0, 0], [0, 0.6, 0]]),
    "oblique": Rotation.from_euler("xyz", (20, -12, 30), degrees=True).as_matrix() @ np.diag([-0.8, -0.6, 1.5]),
    "gantry tilt": np.array([[-0.8, 0, 0], [0, -0.6 * np.cos(0.35), 0], [0, 0.6 * np.sin(0.35), 1.5]]),
}
BOX = {"spatial_dims": 3, "size": (10, 16, 12), "pixel_mm": (1.5, 1.0, 0.75)}


def coordinates(layout, shape=(80, 100, 60)):
    """A volume (3, x, y, z) that holds its own places in RAS mm, with `CENTER` near its middle."""
    matrix = LAYOUTS[layout]
    affine = nib.affines.from_matvec(matrix, CENTER - matrix @ (np.array(shape) / 2 - 0.3))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = np.moveaxis(nib.affines.apply_affine(affine, index), -1, 0).astype(np.float32)
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(places)), affine=torch.from_numpy(affine))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_voxels_of_a_box_show_their_own_place_in_mm(layout):
    crop = CropNoduled("image", **BOX)({"image": coordinates(layout), "center_mm": CENTER})["image"]
    assert crop.shape == (3, 10, 16, 12)
    up, back, left = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(BOX["size"], BOX["pixel_mm"], strict=True))
    np.testing.assert_allclose(crop[2, :, 4, 7], CENTER[2] + up, atol=1e-3)  # feet to head
    np.testing.assert_allclose(crop[1, 3, :, 7], CENTER[1] - back, atol=1e-3)  # front to back
    np.testing.assert_allclose(crop[0, 3, 4, :], CENTER[0] - left, atol=1e-3)  # right to left
    place = crop.affine.numpy() @ [3, 4, 7, 1]
    np.testing.assert_allclose(place[:3], crop[:, 3, 4, 7], atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_map_that_holds_its_places_holds_them_on_the_scanners_grid(layout, spatial_dims):
    """Inside the box every voxel of the scanner gets its own place back, between the map's; outside all is zero."""
    options = BOX if spatial_dims == 3 else {"size": (16, 12), "pixel_mm": (1.0, 0.75)}
    volume = coordinates(layout)
    transform = CropNoduled("image", **options)
    item = transform({"image": volume, "center_mm": CENTER})
    image = item["image"] if spatial_dims == 3 else item["image"].reshape(3, 3, 16, 12)[:, 1]
    back = transform.inverse({"image": MetaTensor(image.clone()).copy_meta_from(item["image"])})["image"]
    assert back.shape == volume.shape
    np.testing.assert_allclose(back.affine.numpy(), volume.affine.numpy(), atol=1e-9)
    off = np.abs(volume.numpy() - CENTER[:, None, None, None])  # (3, x, y, z) along x, y, z
    half = np.array([12 * 0.75, 16 * 1.0, 10 * 1.5])[:, None, None, None] / 2
    edge = np.array([0.75, 1.0, 1.5])[:, None, None, None] / 2
    axes = 3 if spatial_dims == 3 else 2  # planes stand for what is above and below them
    within, core = (off < half - 1e-3)[:axes].all(0), (off < half - edge - 1e-3)[:axes].all(0)
    beyond = (off > half + 1e-3)[:axes].any(0)
    if spatial_dims == 2:
        within, core, beyond = within & (off[2] < 3.7), core & (off[2] < 3.7), beyond | (off[2] > 4.5)
    assert core.sum() > 1000
    np.testing.assert_allclose(back.numpy()[:axes, core], volume.numpy()[:axes, core], atol=1e-3)
    assert (np.abs(back.numpy()).sum(0)[within] > 0).all()
    assert (back.numpy()[:, beyond] == 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_marked_voxel_lands_on_its_voxel(tmp_path, layout):
    """Through the file, `LoadCTd`, the crop and MONAI's `Invertd`; the mark lies on a voxel of the scanner."""
    places = coordinates(layout)
    affine = places.affine.numpy()
    values = np.where(np.arange(places[0].numel()).reshape(places.shape[1:]) % 2, -900.0, 40.0)
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), tmp_path / "ct.nii.gz")
    marked = np.array([44, 47, 31])
    shift = np.array([2 * 0.75, -1.0, 0.0])  # the mark is 2 columns and a row from the center
    center = nib.affines.apply_affine(affine, marked) + shift
    pipeline = Compose([LoadCTd("image"), CropNoduled("image", **{**BOX, "size": (11, 15, 11)})])
    item = pipeline({"image": str(tmp_path / "ct.nii.gz"), "center_mm": center})
    heat = torch.zeros(2, 11, 15, 11)
    heat[1, 5, 7 - 1, 5 + 2] = 1.0
    item["heat"] = MetaTensor(heat).copy_meta_from(item["image"])
    back = Invertd("heat", pipeline, orig_keys="image", nearest_interp=False, to_tensor=False)(item)["heat"].numpy()
    assert back.shape == (2, *values.shape)
    assert (back[0] == 0).all()
    assert np.unravel_index(back[1].argmax(), values.shape) == tuple(marked)
    assert back[1].max() == pytest.approx(1.0, abs=1e-3)


def test_a_box_is_in_the_order_of_the_display():
    """The crop is the same array as the turned volume's part, where voxels coincide."""
    volume = tensor(
        scan(lambda x, y, z: np.sin(x) + np.cos(3 * y) + z, spacing=(1, 1, 1), axes="PIR", shape=(40, 40, 40))
    )
    center = ORIGIN + np.array([20, 18, 22])
    crop = CropNoduled("image", spatial_dims=3, size=7, pixel_mm=1.0)({"image": volume, "center_mm": center})["image"]
    whole = DisplayOrderd("image", spatial_dims=3)({"image": volume})["image"]  # slices, rows, columns of "SPL"
    k, i, j = 22, 39 - 18, 39 - 20
    part = whole[:, k - 3 : k + 4, i - 3 : i + 4, j - 3 : j + 4]
    np.testing.assert_allclose(crop.numpy(), part.numpy(), atol=1e-3)
    np.testing.assert_allclose(crop.affine[:3, :3], part.affine[:3, :3], atol=1e-9)


def test_a_box_at_the_edge_repeats_it_and_goes_back_onto_what_there_is():
    image = tensor(scan(lambda x, y, z: 100 + 0 * x, shape=(10, 10, 3)))
    center = image.affine[:3, 3].numpy() - 0.4  # a little outside the first voxel's middle
    transform = CropNoduled("image", spatial_dims=3, size=20)
    item = transform({"image": image, "center_mm": center})
    assert item["image"].shape == (1, 20, 20, 20)
    assert torch.allclose(item["image"].as_tensor(), torch.tensor(100.0))
    back = transform.inverse(item)["image"]
    assert back.shape == image.shape
    assert float(back[0, 0, 0, 0]) == pytest.approx(100.0)
    assert float(back[0, 9, 9, 2]) == pytest.approx(100.0 * (9 * 0.8 < 6.6))


def test_the_way_back_looks_at_no_more_than_the_box(monkeypatch):
    """A grid of all of this CT would take 2.5 GB."""
    affine = torch.diag(torch.tensor([0.7, 0.7, 1.0, 1.0]))
    volume = MetaTensor(torch.zeros(1, 1, 1, 1).expand(1, 512, 512, 300), affine=affine)
    transform = CropNoduled("image", **BOX)
    item = transform({"image": volume, "center_mm": (180.0, 180.0, 150.0)})
    grid, voxels = nodule.indices_at, []
    monkeypatch.setattr(
        nodule, "indices_at", lambda axes, to: voxels.append(np.prod([*map(len, axes)])) or grid(axes, to)
    )
    assert transform.inverse(item)["image"].shape == (1, 512, 512, 300)
    assert len(voxels) == 1
    assert voxels[0] < 1.5 * (12 * 0.75 / 0.7 + 1) * (16 / 0.7 + 1) * (15 + 1)


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


def test_the_real_nodule_of_a_whole_ct_fills_its_box(shared_data):
    """LIDC-IDRI-0001: soft tissue in the middle of the crop, and the mask's crop is as large as the mask."""
    folder = shared_data / "ct_volumes"
    item = {"image": str(folder / "lidc0001_ct.nii.gz"), "mask": str(folder / "lidc0001_nodule.nii.gz")}
    item = NoduleCenterd("mask")(item)
    np.testing.assert_allclose(item["center_mm"], [-56.208, -86.343, -115.868], atol=0.1)  # the annotation, in RAS
    load = Compose([LoadCTd("image"), LoadCTd("mask", check_units=False)])
    crop = CropNoduled(["image", "mask"], spatial_dims=3, size=48, pixel_mm=1.0)(load(item))
    image, mask = crop["image"], crop["mask"]
    assert image.shape == mask.shape == (1, 48, 48, 48)
    assert 0 < float(image[0, 20:28, 20:28, 20:28].mean()) < 150  # enhanced soft tissue
    native = nib.load(folder / "lidc0001_nodule.nii.gz")
    native_mm3 = np.asanyarray(native.dataobj).sum() * abs(np.linalg.det(native.affine[:3, :3]))
    assert float(mask.sum()) == pytest.approx(native_mm3, rel=0.02)
    middle = np.array([axis.float().mean() for axis in (mask[0] > 0.5).nonzero(as_tuple=True)])
    np.testing.assert_allclose(middle, 23.5, atol=0.3)
