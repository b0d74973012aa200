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
