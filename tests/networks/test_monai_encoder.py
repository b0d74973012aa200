"""MONAI's networks in 2D and 3D, and precomputed features."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.networks import MonaiImageEncoder, PrecomputedFeatures, attend, has_attention

VIT = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 3, "qkv_bias": True}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("size", [(32, 48), (16, 24, 32)])
def test_finishing_from_the_captured_attention_equals_forward(size: tuple[int, ...], pooling: str) -> None:
    encoder = MonaiImageEncoder("vit", image_size=size, spatial_dims=len(size), pooling=pooling, options=VIT).eval()
    image = torch.rand(2, 1, *size)
    expected = encoder(image)
    assert expected.shape == (2, 24)
    assert encoder.num_prefix_tokens == (pooling == "cls")
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        qkv = encoder.qkv(tokens, block)
        torch.testing.assert_close(encoder.finish(tokens, attend(qkv)[1], block), expected, atol=1e-5, rtol=1e-5)
        patches = qkv.k.shape[2] - encoder.num_prefix_tokens
        assert encoder.to_grid(torch.zeros(2, patches)).shape == (2, 1, *(n // 8 for n in size))


def test_a_changed_voxel_changes_its_own_cell_of_the_grid() -> None:
    encoder = MonaiImageEncoder("vit", image_size=(16, 24, 32), spatial_dims=3, options=VIT).eval()
    image = torch.rand(1, 1, 16, 24, 32)
    changed = image.clone()
    changed[..., 9, 17, 31] += 1  # slice 9, row 17, column 31: cell (1, 2, 3)
    difference = (encoder.tokens_entering(image, 0) - encoder.tokens_entering(changed, 0)).abs().sum(-1)[:, 1:]
    assert encoder.to_grid(difference)[0, 0].nonzero().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(("name", "width", "stride"), [("densenet121", 1024, 32), ("resnet50", 2048, 16)])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_convolutional_network_pools_its_feature_map(name: str, width: int, stride: int, spatial_dims: int) -> None:
    encoder = MonaiImageEncoder(name, image_size=32, spatial_dims=spatial_dims).eval()
    image = torch.rand(1, 1, *(32,) * spatial_dims)
    features = encoder.feature_map(image)
    assert features.shape == (1, width, *(32 // stride,) * spatial_dims)
    assert encoder.width == width
    torch.testing.assert_close(encoder.pool_features(features), encoder(image))
    assert not has_attention(encoder)


def test_checkpoint_with_a_head_loads_and_without_a_layer_does_not(tmp_path) -> None:
    encoder = MonaiImageEncoder("vit", image_size=32, options=VIT).eval()
    state = {**encoder.trunk.state_dict(), "classification_head.0.weight": torch.zeros(2, 24)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "vit.pt")
    copy = MonaiImageEncoder("vit", image_size=32, options=VIT, checkpoint=tmp_path / "vit.pt").eval()
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(copy(image), encoder(image))
    torch.save({key: value for key, value in state.items() if key != "norm.weight"}, tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"lacks 1 weights of ViT: norm\.weight"):
        MonaiImageEncoder("vit", image_size=32, options=VIT, checkpoint=tmp_path / "vit.pt")


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="densenet121"):
        MonaiImageEncoder("unet")


def test_precomputed_features_pass_as_they_are_and_images_do_not() -> None:
    encoder = PrecomputedFeatures(1024)
    features = torch.rand(3, 1024)
    assert torch.equal(encoder(MetaTensor(features)), features)
    assert type(encoder(MetaTensor(features))) is torch.Tensor
    assert encoder.spatial_dims == 0
    assert not has_attention(encoder)
    with pytest.raises(ValueError, match=r"\(B, 1024\)"):
        encoder(torch.rand(2, 1, 32, 32))
