"""Fitting an image onto the network's grid keeps its proportions and can be undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_medclip.transforms import DisplayOrderd, FitImaged


@pytest.mark.parametrize(
    ("shape", "size"),
    [((60, 40), (32, 32)), ((41, 60), (32, 24)), ((10, 15), (64, 64)), ((20, 30, 10), (12, 12, 12))],
)
@pytest.mark.parametrize("how", ["pad", "stretch"])
def test_a_linear_ramp_survives_there_and_back(shape, size, how):
    axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in shape), indexing="ij")
    image = MetaTensor(torch.stack([axes[0], axes[1]]), affine=np.diag([2.0, 3, 1, 1]))
    fit = FitImaged("image", size, how=how)
    out = fit({"image": image})
    assert out["image"].shape == (2, *size)
    back = fit.inverse(out)["image"]
    assert back.shape == image.shape
    torch.testing.assert_close(back.affine, image.affine)
    inner = (slice(None), *(slice(n // 5, n - n // 5) for n in shape))
    assert (back[inner] - image[inner]).abs().max() < 0.06


def test_padding_is_centered_and_black_and_the_proportions_stay():
    image = MetaTensor(torch.ones(1, 100, 50))
    out = FitImaged("image", (20, 20))({"image": image})["image"][0]
    torch.testing.assert_close(out[:, 5:15].as_tensor(), torch.ones(20, 10))
    assert not out[:, :5].any()
    assert not out[:, 15:].any()


def test_affine_says_where_each_pixel_is():
    # Pixel centers at 0.5, 1.5, ... mm: halving the grid puts them at 1, 3, ...; padding by 5 starts at -9.
    affine = np.diag([1.0, 1, 1, 1])
    affine[:2, 3] = 0.5
    out = FitImaged("image", (20, 20))({"image": MetaTensor(torch.ones(1, 40, 20), affine=affine)})["image"]
    np.testing.assert_allclose(out.affine[:2, 3].numpy(), [1, -9])
    np.testing.assert_allclose(out.affine[[0, 1], [0, 1]].numpy(), [2, 2])


def test_masks_stay_binary_in_both_directions():
    mask = MetaTensor((torch.rand(1, 37, 53) > 0.5).float())
    fit = FitImaged(["image", "mask"], (16, 16), mode=["linear", "nearest"])
    out = fit({"image": mask.clone(), "mask": mask})
    assert set(out["mask"].unique().tolist()) <= {0.0, 1.0}
    assert len(out["image"].unique()) > 2
    assert set(fit.inverse(out)["mask"].unique().tolist()) <= {0.0, 1.0}


def test_shrinking_does_not_alias():
    stripes = torch.zeros(1, 512, 512)
    stripes[:, ::2] = 1  # the finest stripes there are: without a low-pass filter they come out as moire
    out = FitImaged("image", (60, 60))({"image": MetaTensor(stripes)})["image"]
    assert out.std() < 0.05
    assert out.mean() == pytest.approx(0.5, abs=0.01)


def test_monais_invertd_undoes_size_and_order_with_either_interpolation():
    image = MetaTensor(torch.linspace(0, 1, 60)[:, None].expand(60, 40)[None].contiguous())
    pipeline = Compose([FitImaged("image", (32, 32)), DisplayOrderd("image")])
    for nearest, values in ((True, 40), (False, 60)):
        out = pipeline({"image": image.clone()})
        back = Invertd("image", transform=pipeline, orig_keys="image", nearest_interp=nearest)(out)["image"]
        assert back.shape == (1, 60, 40)
        assert (back - image).abs().max() < 0.05
        assert (len(back[0, :, 20].unique()) < values) == nearest


@pytest.mark.parametrize("wrong", [{"how": "crop"}, {"mode": "cubic"}])
def test_unknown_choices_are_refused(wrong):
    with pytest.raises(ValueError, match="choose"):
        FitImaged("image", (8, 8), **wrong)


def test_wrong_number_of_axes_is_refused():
    with pytest.raises(ValueError, match="spatial_size"):
        FitImaged("image", (8, 8))({"image": MetaTensor(torch.zeros(1, 4, 4, 4))})


def point_in(volume: MetaTensor) -> np.ndarray:
    """RAS mm of the center of mass."""
    values = volume[0].as_tensor().double()
    index = torch.stack(torch.meshgrid(*(torch.arange(n) for n in values.shape), indexing="ij"), -1).double()
    center = (index * values[..., None]).sum(dim=(0, 1, 2)) / values.sum()
    return (volume.affine.double() @ torch.tensor([*center.tolist(), 1.0]).double())[:3].numpy()


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.5, 0.5), (4.0, 2.5, 2.5), (1.0, 2.5, 2.5)])
def test_volumes_of_any_resolution_come_to_one_scale(spacing_mm):
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -40, 7, 100
    shape = [round(40 / mm) for mm in spacing_mm]
    volume = MetaTensor(torch.zeros(1, *shape), affine=affine)
    middle = [n // 2 for n in shape]
    volume[0, middle[0], middle[1], middle[2]] = 1.0
    fit = FitImaged("image", (12, 20, 10), spacing_mm=(4.0, 2.0, 2.0), pad_value=0.0)
    out = fit({"image": volume})["image"]
    assert out.shape == (1, 12, 20, 10)  # 40 mm: ten slices padded to twelve, twenty rows, ten of twenty columns
    np.testing.assert_allclose(out.affine.numpy().diagonal(), [4, 2, 2, 1])
    half_voxel = np.array([2.0, 1.3, 1.3])
    assert (np.abs(point_in(out) - point_in(volume)) <= half_voxel).all()
    back = fit.inverse({"image": out})["image"]
    assert back.shape == volume.shape
    torch.testing.assert_close(back.affine, volume.affine)
    assert (np.abs(point_in(back) - point_in(volume)) <= half_voxel).all()


def test_what_a_fixed_scale_cuts_off_comes_back_as_nothing():
    volume = MetaTensor(torch.ones(1, 8, 8, 8), affine=np.eye(4))
    fit = FitImaged("image", (4, 8, 12), spacing_mm=(1, 1, 1), pad_value=-1024.0)
    out = fit({"image": volume})["image"]
    assert out.shape == (1, 4, 8, 12)
    assert set(out.unique().tolist()) == {1.0, -1024.0}
    back = fit.inverse({"image": out})["image"][0]
    assert back[2:6].unique().tolist() == [1.0]
    assert not back[:2].any()
    assert not back[6:].any()


def test_one_axis_may_shrink_without_aliasing_while_another_grows():
    stripes = torch.zeros(1, 4, 64, 64)
    stripes[:, :, ::2] = 1
    out = FitImaged("image", (8, 16, 16), how="stretch")({"image": MetaTensor(stripes)})["image"]
    torch.testing.assert_close(out.as_tensor(), torch.full((1, 8, 16, 16), 0.5))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0)])
def test_a_scale_needs_one_positive_number_per_axis(spacing_mm):
    with pytest.raises(ValueError, match="3 positive numbers"):
        FitImaged("image", (4, 4, 4), spacing_mm=spacing_mm)
    with pytest.raises(ValueError, match="how='pad'"):
        FitImaged("image", (4, 4), spacing_mm=(1, 1), how="stretch")
