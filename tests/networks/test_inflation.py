"""Inflated networks give the 2D network's features of a volume of identical slices, where that is promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from monai.networks.nets import ViT, resnet18
from torch import Tensor, nn

from monai_medclip.networks import MonaiImageEncoder, SmallViT, TimmImageEncoder, inflate_state_dict, inflated

DENSE = {"growth_rate": 4, "block_config": (1, 2)}
VIT: dict[str, Any] = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 3}


def as_trained(network: Any) -> Any:
    """Statistics and factors of normalizations away from 0 and 1, so that every branch is heard."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.state_dict().items():
        if weight.ndim == 1 and weight.is_floating_point():
            low, high = (0.8, 1.2) if name.endswith(("weight", "var")) else (-0.2, 0.2)
            weight.uniform_(low, high, generator=generator)
    return network.eval()


def repeating(network: Any) -> Any:
    """Convolutions pad by repeating what is at the edge, so that a volume of identical slices has no ends."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.padding_mode = "replicate"
    return network


def stacked(image: Tensor, slices: int, axis: int = 2) -> Tensor:
    """A volume of identical slices."""
    return image.unsqueeze(axis).repeat_interleave(slices, axis)


def image(channels: int = 3, size: int = 32) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_kernels_are_repeated_and_divided_by_their_depth() -> None:
    network = nn.ModuleDict({"a": nn.Conv3d(2, 3, (5, 3, 3)), "b": nn.BatchNorm3d(3)})
    flat = nn.ModuleDict({"a": nn.Conv2d(2, 3, 3), "b": nn.BatchNorm2d(3)})
    state = inflate_state_dict(flat.state_dict(), network)
    assert list(state) == list(network.state_dict())
    assert state["a.weight"].shape == (3, 2, 5, 3, 3)
    for depth in range(5):
        torch.testing.assert_close(state["a.weight"][:, :, depth], flat["a"].weight.detach() / 5)
    assert torch.equal(state["a.bias"], flat["a"].bias)


def test_inside_zero_padding_only_the_ends_differ() -> None:
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    solid = inflated(nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1)), flat)
    expected, found = flat(image(1)), solid(stacked(image(1), 7))
    difference = (found - expected.unsqueeze(2)).abs().amax(dim=(0, 1, 3, 4))  # per slice
    assert difference[2:5].max() < 1e-5  # two layers of reach 1: slices 0, 1, 5, 6 feel the ends
    assert difference[[0, 1, 5, 6]].min() > 1e-3


@pytest.mark.parametrize("depth_axis", [2, 4])
def test_densenet_of_timm_becomes_monais(depth_axis: int) -> None:
    torch.manual_seed(0)
    flat = repeating(as_trained(TimmImageEncoder("densenet121", options=DENSE)))
    options = {"init_features": 8, **DENSE}
    solid = MonaiImageEncoder("densenet121", image_size=32, spatial_dims=3, in_channels=3, options=options)
    assert inflated(solid, flat, depth_axis=depth_axis) is solid
    assert (solid.mean, solid.std) == (flat.mean, flat.std)
    volume = stacked(image(), 8, depth_axis)
    torch.testing.assert_close(repeating(solid).eval()(volume), flat(image()), atol=1e-4, rtol=1e-4)


def test_resnet_of_timm_becomes_monais_without_its_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flat = repeating(as_trained(timm.create_model("resnet18")))
    torch.save(flat.state_dict(), tmp_path / "resnet18.pt")
    options = {"feed_forward": False, "conv1_t_stride": 2, "bias_downsample": False}
    solid = inflated(resnet18(spatial_dims=3, n_input_channels=3, **options), tmp_path / "resnet18.pt")
    expected = flat.forward_head(flat.forward_features(image()), pre_logits=True)
    torch.testing.assert_close(repeating(solid).eval()(stacked(image(), 4)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [32, 48])
def test_mean_pooled_vit_is_exact_with_positions_repeated_along_the_depth(rows: int) -> None:
    torch.manual_seed(0)
    flat = MonaiImageEncoder("vit", image_size=(rows, 32), pooling="mean", options=VIT).eval()
    size = (16, rows, 32)
    solid = MonaiImageEncoder("vit", image_size=size, spatial_dims=3, pooling="mean", options=VIT).eval()
    inflated(solid, flat)
    plane = torch.rand(2, 1, rows, 32)
    torch.testing.assert_close(solid(stacked(plane, 16)), flat(plane), atol=1e-5, rtol=1e-5)
    positions = solid.trunk.patch_embedding.position_embeddings.unflatten(1, solid.grid_size)[0]
    own = flat.trunk.patch_embedding.position_embeddings.unflatten(1, flat.grid_size)[0]
    assert torch.equal(positions, own.expand(2, -1, -1, -1))


def test_positions_follow_the_depth_axis_and_another_size_of_the_plane() -> None:
    flat = MonaiImageEncoder("vit", image_size=32, options=VIT)
    solid = MonaiImageEncoder("vit", image_size=(32, 16, 24), spatial_dims=3, options=VIT)  # depth is the second axis
    position = flat.trunk.patch_embedding.position_embeddings
    with torch.no_grad():
        position.copy_(torch.arange(4.0).repeat_interleave(4)[None, :, None].expand_as(position))  # the row's number
    inflated(solid, flat, depth_axis=3)
    laid = solid.trunk.patch_embedding.position_embeddings.unflatten(1, solid.grid_size)[0]  # (4, 2, 3, D)
    torch.testing.assert_close(laid, torch.arange(4.0)[:, None, None, None].expand_as(laid))


def test_a_cls_token_is_one_beside_many_copies_so_features_are_near_but_not_equal() -> None:
    torch.manual_seed(0)
    flat = MonaiImageEncoder("vit", image_size=32, options=VIT).eval()
    solid = inflated(MonaiImageEncoder("vit", image_size=(16, 32, 32), spatial_dims=3, options=VIT).eval(), flat)
    expected, found = flat(image(1)), solid(stacked(image(1), 16))
    assert not torch.allclose(found, expected, atol=1e-5)
    assert torch.cosine_similarity(found, expected).min() > 0.99


def test_small_vit_keeps_the_position_of_its_cls_token() -> None:
    torch.manual_seed(0)
    flat, solid = SmallViT(32, width=64), SmallViT((16, 32, 32), width=64, spatial_dims=3)
    inflated(solid, flat)
    assert torch.equal(solid.trunk.pos_embed[:, :1], flat.trunk.pos_embed[:, :1])
    assert torch.equal(solid.trunk.pos_embed[:, 1:17], flat.trunk.pos_embed[:, 1:])
    assert torch.equal(solid.trunk.pos_embed[:, 17:], flat.trunk.pos_embed[:, 1:])


def test_names_and_shapes_that_do_not_correspond_are_named() -> None:
    flat = {"0.weight": torch.zeros(2, 1, 3, 3), "0.bias": torch.zeros(2)}
    solid = nn.Sequential(nn.Conv3d(1, 2, 3))
    with pytest.raises(ValueError, match=r"does not know 2 weights of the 2D network: gate\.weight, 7\.bias"):
        inflate_state_dict({**flat, "gate.weight": torch.zeros(1), "7.bias": torch.zeros(1)}, solid)
    with pytest.raises(ValueError, match=r"the 2D state lacks 1 weights of Sequential: 0\.bias"):
        inflate_state_dict({"0.weight": flat["0.weight"]}, solid)
    with pytest.raises(ValueError, match=r"0\.weight is \(2, 3, 3, 3\) in 2D and \(2, 1, 3, 3, 3\) in 3D"):
        inflate_state_dict({**flat, "0.weight": torch.zeros(2, 3, 3, 3)}, solid)
    with pytest.raises(ValueError, match="depth_axis=1"):
        inflate_state_dict(flat, solid, depth_axis=1)


def test_positions_without_a_grid_or_of_no_rectangle_are_refused() -> None:
    flat = MonaiImageEncoder("vit", image_size=32, options=VIT)
    bare = ViT(1, (16, 32, 32), 8, hidden_size=24, mlp_dim=48, num_layers=2, num_heads=3, classification=True)
    bare.classification_head = nn.Identity()
    with pytest.raises(ValueError, match=r"position_embeddings .* give an image encoder .* grid_size"):
        inflate_state_dict(flat.state_dict(), bare)
    odd = MonaiImageEncoder("vit", image_size=(16, 24), options=VIT)
    solid = MonaiImageEncoder("vit", image_size=(16, 32, 32), spatial_dims=3, options=VIT)
    with pytest.raises(ValueError, match="6 patches in 2D: neither the"):
        inflate_state_dict(odd.state_dict(), solid)


def test_the_3d_network_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    flat, solid = nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Conv3d(1, 2, 3))
    before = {name: weight.clone() for name, weight in solid.state_dict().items()}
    inflate_state_dict(flat.state_dict(), solid)
    assert all(torch.equal(weight, before[name]) for name, weight in solid.state_dict().items())
