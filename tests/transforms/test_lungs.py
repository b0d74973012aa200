"""The lungs of a chest with known lungs, on any grid; refused where there are none; and the crop to them and back."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_medclip.transforms import (
    BadInputError,
    CropLungsd,
    DisplayOrderd,
    LoadCTd,
    LungMaskd,
    find_lung_sides,
    find_lungs,
)

from .make_chest import dice, make_chest


def found(chest, **options):
    return LungMaskd("image", **options)({"image": chest.hu})["lungs"]


@pytest.mark.parametrize(
    ("axes", "tilt_deg", "spacing"),
    [("LPS", 0, (2, 2, 4)), ("SPL", 0, (2, 2, 4)), ("AIR", 12, (3, 2, 5)), ("RAI", 20, (1.5, 1.5, 5))],
)
def test_right_and_left_lung_are_found_on_any_grid(axes, tilt_deg, spacing):
    chest = make_chest(axes=axes, tilt_deg=tilt_deg, spacing=spacing)
    mask = found(chest, sides=True)
    assert mask.shape == chest.hu.shape
    assert torch.equal(mask.affine, chest.hu.affine)
    labels = mask[0].numpy()
    assert dice(labels == 1, chest.right) > 0.97
    assert dice(labels == 2, chest.left) > 0.97
    assert labels[chest.nodule].mean() > 0.9  # a nodule at the pleura belongs to it
    assert (labels[chest.windpipe] > 0).mean() < 0.2
    assert torch.equal(found(chest), (mask > 0).to(torch.uint8))


def test_fine_voxels_are_averaged_and_the_mask_has_their_grid():
    chest = make_chest(spacing=(1.0, 1.0, 4.0))
    mask = find_lungs(chest.hu[0].numpy(), (1.0, 1.0, 4.0))
    assert mask.dtype == bool
    assert dice(mask, chest.lungs) > 0.97


@pytest.mark.parametrize(("right", "left", "label"), [(True, False, 1), (False, True, 2)])
def test_a_single_lung_keeps_its_side(right, left, label):
    chest = make_chest(right=right, left=left)
    mask = found(chest, sides=True)[0].numpy()
    assert set(np.unique(mask)) == {0, label}
    assert dice(mask, chest.lungs) > 0.97


def test_lungs_that_touch_are_parted_where_they_meet():
    chest = make_chest(lung_radius=71.0)
    assert (chest.right & chest.left).any()
    mask = found(chest, sides=True)[0].numpy()
    assert dice(mask == 1, chest.right) > 0.95
    assert dice(mask == 2, chest.left) > 0.95


def test_bowel_gas_alone_is_no_lung():
    chest = make_chest(right=False, left=False, gas=40.0)
    with pytest.raises(BadInputError, match=r"no lung found: \d.*% of the voxels are air.* -(9\d\d|1000) HU"):
        found(chest)


def test_lungs_cut_open_by_the_field_of_view_are_refused():
    """The lower slices still enclose them; taken for the whole, they would be small lungs."""
    crop = make_chest().hu[0, 52:, :, :].numpy().copy()
    crop[:, :, :14] = np.where(crop[:, :, :14] < -400, 40, crop[:, :, :14])
    with pytest.raises(BadInputError, match=r"crop: the field of view cuts the lungs open: \d+ ml"):
        find_lungs(crop, (2, 2, 4), file="crop")


def test_a_crop_around_a_nodule_is_refused(shared_data):
    path = shared_data / "ct_lidc_voi" / "image" / "LIDC-IDRI-0003_R_2.nii.gz"
    item = LoadCTd("image")({"image": str(path)})
    with pytest.raises(BadInputError, match=r"0003_R_2.*whole chest CT"):
        LungMaskd("image")(item)


def test_the_real_lungs_are_found(shared_data):
    """LIDC-IDRI-0001 beside TotalSegmentator's lungs, on every other voxel to be quick; the nodule lies in them."""
    ct, lungs, nodule = (
        nib.load(shared_data / "ct_volumes" / f"lidc0001_{name}.nii.gz").slicer[::2, ::2]
        for name in ("ct", "lungs", "nodule")
    )
    sides = find_lung_sides(ct.get_fdata(dtype=np.float32), ct.header.get_zooms())
    assert dice(sides, lungs.get_fdata()) > 0.96
    assert (sides[nodule.get_fdata() > 0] > 0).mean() > 0.99
    right, left = (float(np.argwhere(sides == side)[:, 0].mean()) for side in (1, 2))
    assert right < left  # this file's x runs to the patient's left
    assert 1.0 < (sides == 1).sum() / (sides == 2).sum() < 1.4  # the heart takes its place on the left


@pytest.mark.parametrize(("axes", "tilt_deg"), [("LPS", 0), ("RAI", 15)])
def test_the_crop_keeps_the_margin_and_a_map_finds_its_way_back(tmp_path, axes, tilt_deg):
    chest = make_chest(axes=axes, tilt_deg=tilt_deg)
    nib.save(nib.Nifti1Image(chest.hu[0].numpy(), chest.hu.affine.numpy()), tmp_path / "ct.nii.gz")
    pipeline = Compose(
        [
            LoadCTd("image"),
            DisplayOrderd("image", spatial_dims=3),
            LungMaskd("image"),
            CropLungsd(["image", "lungs"], margin_mm=8.0),
        ]
    )
    item = pipeline({"image": str(tmp_path / "ct.nii.gz")})
    assert item["image"].shape == item["lungs"].shape
    inside = np.argwhere(item["lungs"][0].numpy() > 0)
    spare = np.stack([inside.min(0), np.array(item["lungs"].shape[1:]) - 1 - inside.max(0)])
    np.testing.assert_array_equal(spare, [[2, 4, 4]] * 2)  # 8 mm of slices 4 mm and pixels 2 mm apart
    heat = torch.zeros(1, *item["image"].shape[1:])
    heat[0, 5, 9, 7] = 1.0
    place = item["image"].affine.numpy() @ [5, 9, 7, 1]
    item["heat"] = MetaTensor(heat).copy_meta_from(item["image"])
    back = Invertd(["heat", "lungs"], pipeline, orig_keys="image", nearest_interp=True, to_tensor=False)(item)
    assert back["heat"].shape == chest.hu.shape
    (voxel,) = np.argwhere(back["heat"][0].numpy() > 0)
    np.testing.assert_allclose(chest.hu.affine.numpy() @ [*voxel, 1], place, atol=1e-3)
    native = LungMaskd("image")(LoadCTd("image")({"image": str(tmp_path / "ct.nii.gz")}))["lungs"]
    np.testing.assert_array_equal(back["lungs"].numpy(), native.numpy())


def test_a_crop_without_a_mask_or_on_another_grid_is_named():
    image = MetaTensor(torch.zeros(1, 8, 8, 8))
    with pytest.raises(BadInputError, match=r"scan-7: it has no lung mask.*LungMaskd before"):
        CropLungsd("image")({"image": image, "id": "scan-7"})
    with pytest.raises(BadInputError, match="share of lung: 0"):
        CropLungsd("image")({"image": image, "lungs": MetaTensor(torch.zeros(1, 8, 8, 8))})
    with pytest.raises(ValueError, match="'image' has shape"):
        CropLungsd("image")({"image": image, "lungs": MetaTensor(torch.ones(1, 4, 4, 4))})
    with pytest.raises(ValueError, match="margin_mm is -1"):
        CropLungsd("image", margin_mm=-1)


class FakeInferer:
    """Marks the right half of the lower half of a (z, y, x) volume, and notes what it was given."""

    def __init__(self, modelpath, tqdm_disable):
        self.modelpath = modelpath

    def apply(self, volume):
        """What lungmask promises: the array's own shape, 1 on the right."""
        mask = np.zeros(volume.shape, np.uint8)
        mask[: volume.shape[0] // 2, :, : volume.shape[2] // 2] = volume.mean() < 1000
        return mask


def test_lungmask_sees_slices_feet_first_and_its_weights_are_never_fetched(monkeypatch, tmp_path):
    """Without the package: a stand-in with lungmask's own interface, on a grid that runs the other way."""
    weights = tmp_path / "unet_r231.pth"
    with pytest.raises(ValueError, match=r"unet_r231.*nothing is downloaded"):
        LungMaskd("image", finder="lungmask", weights=weights)
    weights.touch()
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(ImportError, match=r"pip install .*lungmask\]"):
        LungMaskd("image", finder="lungmask", weights=weights)
    monkeypatch.setitem(sys.modules, "lungmask", SimpleNamespace(LMInferer=FakeInferer))
    volume = MetaTensor(torch.zeros(1, 80, 60, 40), affine=torch.diag(torch.tensor([2.0, 2, -4, 1])))  # RAI
    mask = LungMaskd("image", finder="lungmask", weights=weights)({"image": volume})["lungs"][0].numpy()
    expected = np.zeros((80, 60, 40))
    expected[40:, :, 20:] = 1  # the patient's right is at high x here, the feet at high z
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(BadInputError, match="lungmask marks 0 ml"):
        LungMaskd("image", finder="lungmask", weights=weights)({"image": volume + 2000})


def test_weights_of_another_network_are_named(monkeypatch, tmp_path):
    weights = tmp_path / "unet_ltrclobes.pth"
    weights.write_bytes(b"cut off")

    class Lobes(FakeInferer):
        def apply(self, volume):
            return np.full(volume.shape, 5, np.uint8)

    class Broken(FakeInferer):
        def __init__(self, modelpath, tqdm_disable):
            raise RuntimeError("unexpected EOF")

    volume = MetaTensor(torch.zeros(1, 8, 8, 8))
    monkeypatch.setitem(sys.modules, "lungmask", SimpleNamespace(LMInferer=Lobes))
    with pytest.raises(ValueError, match=r"unet_ltrclobes\.pth mark lobes .label 5.*unet_r231"):
        LungMaskd("image", finder="lungmask", weights=weights)({"image": volume})
    monkeypatch.setitem(sys.modules, "lungmask", SimpleNamespace(LMInferer=Broken))
    with pytest.raises(ValueError, match=r"not lungmask's R231 \(RuntimeError: unexpected EOF\)"):
        LungMaskd("image", finder="lungmask", weights=weights)


def test_the_package_itself_gives_its_own_mask_on_any_grid(tmp_path):
    """With lungmask installed: its network with random weights, its own answer turned to the volume's axes."""
    lungmask = pytest.importorskip("lungmask")
    resunet = pytest.importorskip("lungmask.resunet")
    chest = make_chest(axes="RAI", spacing=(4.0, 4.0, 64.0))
    network = resunet.UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True).eval()
    with torch.no_grad():  # shift the classes so that each wins somewhere
        image = torch.nn.functional.interpolate(chest.hu.as_tensor()[None, :, :, :, 1], (256, 256))
        network.last.bias -= network((image.clamp(-1024, 600) + 1024) / 1624)[0].flatten(1).quantile(0.6, dim=1)
    weights = tmp_path / "random.pth"
    torch.save(network.state_dict(), weights)
    mask = LungMaskd("image", finder="lungmask", weights=weights, sides=True)({"image": chest.hu})["lungs"][0].numpy()
    upright = chest.hu[0].numpy()[::-1, ::-1, ::-1]  # RAI to LPS
    own = lungmask.LMInferer(modelpath=str(weights), tqdm_disable=True).apply(np.ascontiguousarray(upright.T))
    assert len(np.unique(own)) > 1
    np.testing.assert_array_equal(mask, own.T[::-1, ::-1, ::-1])


@pytest.mark.parametrize("options", [{"finder": "atlas"}, {"weights": "unet.pth"}, {"mask_keys": "image"}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match=r"finder|mask_keys"):
        LungMaskd("image", **options)
