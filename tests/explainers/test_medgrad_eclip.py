"""MedGrad E-CLIP: Grad-ECLIP without lambda, times an entropy weight that does not know the prompt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers import Explainer, GradECLIP
from monai_medclip.explainers.entropy import local_entropy
from monai_medclip.explainers.medgrad_eclip import MedGradECLIP, entropy_weight, gray_levels
from monai_medclip.findings import Finding
from monai_medclip.networks import CLIP, SmallViT, ZeroShotClassifier

from ..networks.toys import BagOfWords, tokenize

FINDINGS = [Finding(name, (f"there is {name}",), ()) for name in ("edema", "mass", "nodule")]


def classifier(spatial_dims: int = 2, in_channels: int = 1) -> ZeroShotClassifier:
    encoder = SmallViT(
        32, in_channels=in_channels, spatial_dims=spatial_dims, width=64, depth=2, num_heads=2, patch_drop=0.0
    )
    return ZeroShotClassifier(CLIP(encoder, BagOfWords(), embed_dim=16), FINDINGS, tokenize).eval()


def images(spatial_dims: int = 2, channels: int = 1) -> Tensor:
    """Noise whose strength grows along the last axis."""
    noise = torch.randn(2, channels, *(32,) * spatial_dims)
    return (noise * torch.linspace(0, 1, 32)).round(decimals=1)


def coarse(explainer: Explainer, network: ZeroShotClassifier, image: Tensor) -> Tensor:
    """Maps on the patch grid, before they are enlarged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_medclip.explainers.base.upsample", lambda maps, size: maps)
        maps = explainer(network, image)
    assert maps.shape[2:] == network.image_encoder.grid_size
    return maps


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_it_is_the_entropy_weight_times_grad_eclip_without_lambda(spatial_dims, blocks):
    network, image = classifier(spatial_dims), images(spatial_dims)
    w_e = entropy_weight(gray_levels(image), network.image_encoder.grid_size, 2)  # (B, 1, P)
    unweighted = coarse(GradECLIP(loosening="none", blocks=blocks), network, image).flatten(2)
    found = coarse(MedGradECLIP(radius=2, blocks=blocks), network, image).flatten(2)
    assert found.max() > 0
    torch.testing.assert_close(found, w_e * unweighted)


def test_multiply_is_the_entropy_weight_times_grad_eclip():
    network, image = classifier(), images()
    w_e = entropy_weight(gray_levels(image), (4, 4))
    found = coarse(MedGradECLIP(weight="multiply"), network, image).flatten(2)
    torch.testing.assert_close(found, w_e * coarse(GradECLIP(), network, image).flatten(2))
    assert not torch.allclose(found, coarse(MedGradECLIP(), network, image).flatten(2))


def test_the_weight_is_the_same_for_every_prompt():
    network, image = classifier(), images()
    unweighted = coarse(GradECLIP(loosening="none"), network, image)
    ratio = coarse(MedGradECLIP(), network, image) / unweighted  # (B, F, *grid), NaN where both are 0
    spread = ratio.nan_to_num(-1).amax(1) - ratio.nan_to_num(2).amin(1)
    told_by_all = ~ratio.isnan().any(1)
    assert told_by_all.any()
    assert spread[told_by_all].abs().max() < 1e-4


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_weight_is_the_mean_entropy_of_each_patch_scaled(spatial_dims):
    gray = gray_levels(images(spatial_dims))
    bits = local_entropy(gray, 3).float()
    patches = F.avg_pool3d(bits[:, None], 8) if spatial_dims == 3 else F.avg_pool2d(bits[:, None], 8)
    patches = patches.flatten(2)
    low, high = patches.amin(-1, keepdim=True), patches.amax(-1, keepdim=True)
    w_e = entropy_weight(gray, (4,) * spatial_dims, 3)
    torch.testing.assert_close(w_e, (patches - low) / (high - low))
    columns = w_e.reshape(2, *(4,) * spatial_dims).flatten(1, -2).mean(1)
    assert (columns.diff(dim=-1) > 0).all()  # the noise grows along the last axis, and so does its entropy


def test_gray_levels_of_known_images():
    ramp = torch.linspace(-3, 5, 256).reshape(1, 1, 16, 16)
    assert gray_levels(ramp).flatten().tolist() == list(range(256))  # the image's own range
    assert gray_levels(ramp, (-3.0, -1.0)).flatten()[64:].eq(255).all()
    assert gray_levels(torch.full((1, 1, 2, 2), 1.0), (0.0, 2.0)).eq(128).all()
    assert gray_levels(torch.full((1, 1, 2, 2), 1.0)).eq(0).all()


def test_channels_become_luminance():
    colors = torch.zeros(1, 3, 2, 2)
    for channel in range(3):
        colors[0, channel].flatten()[channel] = 1.0
    assert gray_levels(colors, (0.0, 1.0)).flatten().tolist() == [54, 182, 18, 0]
    gray = torch.rand(2, 1, 8, 8)
    assert gray_levels(gray.expand(-1, 3, -1, -1), (0.0, 1.0)).equal(gray_levels(gray, (0.0, 1.0)))
    assert gray_levels(torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1), (0.0, 1.0)).eq(128).all()


def test_brightness_and_contrast_change_the_weight_only_with_a_window():
    image = images()
    grid = (4, 4)
    own = [entropy_weight(gray_levels(x), grid) for x in (image, 4 * image + 2)]
    torch.testing.assert_close(*own)
    fixed = [entropy_weight(gray_levels(x, (-1.0, 1.0)), grid) for x in (image, 4 * image + 2)]
    assert not torch.allclose(*fixed)


def test_items_of_a_batch_do_not_see_each_other():
    network, image = classifier(), images()
    together = MedGradECLIP()(network, image)
    alone = torch.cat([MedGradECLIP()(network, one) for one in image.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, (-5.0, 5.0)])
def test_a_constant_image_is_refused_by_its_number(window):
    image = images()
    image[1] = 0.5
    with pytest.raises(ValueError, match="image 1 of the batch"):
        MedGradECLIP(window=window)(classifier(), image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0}, "radius=0"),
        ({"weight": "add"}, "add"),
        ({"window": (1.0, 1.0)}, "window"),
        ({"window": (0.0, 1.0, 2.0)}, "window"),
        ({"blocks": 0}, "blocks=0"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MedGradECLIP(**arguments)


def test_the_radius_matters():
    network, image = classifier(), images()
    assert not torch.allclose(MedGradECLIP(radius=1)(network, image), MedGradECLIP(radius=7)(network, image))
