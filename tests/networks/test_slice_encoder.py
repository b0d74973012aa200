"""Slices through a 2D encoder, pooled by attention: what is promised of order, chunks, weights, gradients, access."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.explainers import Chefer, GradECLIP, Occlusion
from monai_medclip.networks import (
    CLIP,
    SliceClassifier,
    SliceEncoder,
    SmallViT,
    TimmImageEncoder,
    ZeroShotClassifier,
    attend,
    freeze_parts,
    has_attention,
    parameter_groups,
)

from .toys import BagOfWords, tokenize

NAMES = ["nodule", "emphysema"]


def small_vit() -> SmallViT:
    torch.manual_seed(0)
    return SmallViT((32, 48), width=64, depth=2, num_heads=2, patch_drop=0.0)


def volumes(batch: int = 2, slices: int = 5, channels: int = 1) -> Tensor:
    return torch.rand(batch, channels, slices, 32, 48, generator=torch.Generator().manual_seed(1))


def trained(encoder: SliceEncoder) -> SliceEncoder:
    """Weights as if trained: some slices count more than others."""
    generator = torch.Generator().manual_seed(2)
    for weight in encoder.pooling.parameters():
        nn.init.normal_(weight, std=0.5, generator=generator)
    return encoder.eval()


def zero_shot(encoder: SliceEncoder) -> ZeroShotClassifier:
    return CLIP(encoder, BagOfWords(), embed_dim=16).classifier(NAMES, tokenize).eval()


def test_untrained_it_is_the_mean_over_slices() -> None:
    encoder = SliceEncoder(small_vit(), slices=5, heads=4).eval()
    volume = volumes()
    by_hand = torch.stack([encoder.slice_encoder(volume[:, :, s]) for s in range(5)]).mean(0)
    torch.testing.assert_close(encoder(volume), by_hand)
    torch.testing.assert_close(encoder.slice_weights(volume), torch.full((2, 4, 5), 0.2))


@pytest.mark.parametrize("heads", [1, 4])
def test_a_volume_of_identical_slices_has_the_features_of_the_slice(heads: int) -> None:
    encoder = trained(SliceEncoder(small_vit(), slices=5, heads=heads))
    image = volumes()[:, :, 0]
    torch.testing.assert_close(encoder(image.unsqueeze(2).expand(-1, -1, 5, -1, -1)), encoder.slice_encoder(image))


def test_weights_are_a_softmax_per_head_and_the_pooled_features_their_sum() -> None:
    encoder = trained(SliceEncoder(small_vit(), heads=4))
    volume = volumes()
    features, weights = encoder.slice_features(volume), encoder.slice_weights(volume)
    pooling = encoder.pooling
    keys = F.layer_norm(features, (64,)) @ pooling.key.weight.T  # (B, S, D)
    for head in range(4):
        own = slice(16 * head, 16 * head + 16)
        by_hand = (keys[..., own] @ pooling.query[own] / 16**0.5).softmax(dim=1)  # (B, S)
        torch.testing.assert_close(weights[:, head], by_hand)
        pooled = (by_hand[..., None] * features[..., own]).sum(1)
        torch.testing.assert_close(encoder(volume)[:, own], pooled)
    assert weights.std() > 0.05  # or the test would pass for a mean


@pytest.mark.parametrize("chunk", [1, 3, 7, None])
@pytest.mark.parametrize("channels", [1, 3])
def test_chunks_do_not_matter_and_bound_what_passes_at_once(chunk: int | None, channels: int) -> None:
    torch.manual_seed(0)
    inner = SmallViT((32, 48), in_channels=3, width=64, depth=1, num_heads=2)
    passes: list[int] = []
    inner.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    encoder = trained(SliceEncoder(inner, chunk=chunk))
    volume = volumes(channels=channels)
    expected = trained(SliceEncoder(inner, chunk=10))(volume)
    passes.clear()
    torch.testing.assert_close(encoder(volume), expected)
    assert sum(passes) == 10
    assert max(passes) == (chunk or 10)


@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (2, 1), (1, 3)])
def test_slices_of_one_channel_or_of_one_volume_are_no_copy(batch: int, channels: int) -> None:
    seen: list[int] = []
    inner = SmallViT((32, 48), in_channels=channels, width=64)
    inner.register_forward_pre_hook(lambda _, args: seen.append(args[0].untyped_storage().data_ptr()))
    volume = volumes(batch, channels=channels)
    SliceEncoder(inner, chunk=2).eval()(volume)
    assert set(seen) == {volume.untyped_storage().data_ptr()}


def test_order_of_slices_matters_through_positions_only() -> None:
    volume = volumes()
    without = trained(SliceEncoder(small_vit()))
    torch.testing.assert_close(without(volume.flip(2)), without(volume))
    with_positions = trained(SliceEncoder(small_vit(), slices=5))
    assert not torch.allclose(with_positions(volume.flip(2)), with_positions(volume), atol=1e-3)
    nn.init.zeros_(with_positions.pooling.pos_embed)
    torch.testing.assert_close(with_positions(volume.flip(2)), with_positions(volume))


def test_positions_are_of_relative_depth_for_another_number_of_slices() -> None:
    pooling = SliceEncoder(small_vit(), slices=4).pooling
    nn.init.zeros_(pooling.key.weight)
    with torch.no_grad():
        pooling.key.weight[0, 0], pooling.query[0] = 1.0, 8.0  # width 64: score = first entry of norm(f) + p
        pooling.pos_embed[0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    weights = attend(pooling.qkv(torch.zeros(1, 8, 64)))[0][0, 0, 0]
    depths = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])  # cell centers, the ends held
    torch.testing.assert_close(weights, depths.softmax(0))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_reach_every_slice_and_every_weight_that_moves(checkpoint: bool) -> None:
    inner = small_vit()
    encoder = SliceEncoder(inner, chunk=2, checkpoint=checkpoint).train()
    inner.eval()  # or batch normalization would tie the slices of a chunk together
    volume = volumes().requires_grad_()
    (encoder(volume) ** 2).sum().backward()
    per_slice = volume.grad.abs().sum(dim=(1, 3, 4))  # (B, S)
    assert (per_slice > 0).all()
    assert inner.trunk.pos_embed.grad.abs().sum() > 0
    assert encoder.pooling.query.grad.abs().sum() > 0


def test_checkpointing_changes_memory_not_gradients() -> None:
    gradients, saved = [], []
    for checkpoint in (False, True):
        encoder = SliceEncoder(small_vit(), chunk=2, checkpoint=checkpoint).train()
        encoder.slice_encoder.eval()
        sizes: list[int] = []

        def count(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            output = encoder(volumes())
        output.square().sum().backward()
        gradients.append(encoder.slice_encoder.trunk.pos_embed.grad)
        saved.append(sum(sizes))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert saved[1] < saved[0] / 10


def test_the_pooling_learns_which_slice_counts() -> None:
    """The answer lies in the one slice that is brighter: attention must find it, the mean dilutes it."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(64, 9, 16, generator=generator) * 0.3
    answer = torch.randint(0, 2, (64,), generator=generator)
    features[:, :, 0] = -1.0
    places = torch.randint(0, 9, (64,), generator=generator)
    features[torch.arange(64), places, 0] = 2.0
    features[torch.arange(64), places, 1] = 2.0 * answer - 1
    torch.manual_seed(0)
    pooling = SliceEncoder(TimmImageEncoder("test_vit", options={"embed_dim": 16, "num_heads": 2})).pooling
    optimizer = torch.optim.Adam(pooling.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(4 * pooling(features)[:, 0, 1], answer.float()).backward()
        optimizer.step()
    weights = attend(pooling.qkv(features))[0][:, 0, 0]
    assert (weights.argmax(1) == places).float().mean() > 0.95


def test_clip_and_zero_shot_read_volumes_of_any_number_of_slices() -> None:
    classifier = zero_shot(SliceEncoder(small_vit()))
    for slices in (1, 5, 9):
        assert classifier(MetaTensor(volumes(slices=slices))).shape == (2, 2)
    volume = volumes()
    torch.testing.assert_close(
        classifier.score_features(classifier.image_encoder(volume)), classifier(volume), atol=1e-5, rtol=1e-5
    )


def test_a_tower_of_a_pretrained_clip_stays_in_its_space() -> None:
    class Tower(SmallViT):
        projected = True

    torch.manual_seed(0)
    encoder = SliceEncoder(Tower((32, 48), width=64))
    clip = CLIP(encoder, BagOfWords(), embed_dim=16).eval()
    assert encoder.projected
    assert clip.embed_dim == 64
    image = volumes()[:, :, 0]
    expected = F.normalize(encoder.slice_encoder(image), dim=-1)
    torch.testing.assert_close(clip.encode_image(image.unsqueeze(2).expand(-1, -1, 5, -1, -1)), expected)


def test_attributes_are_those_of_a_3d_encoder() -> None:
    inner = TimmImageEncoder("test_vit", image_size=(32, 48), options={"patch_size": 16})
    encoder = SliceEncoder(inner, slices=7)
    assert (encoder.spatial_dims, encoder.image_size, encoder.grid_size) == (3, (7, 32, 48), (7, 1, 1))
    assert (encoder.width, encoder.in_channels, encoder.mean, encoder.std) == (inner.width, 3, inner.mean, inner.std)
    assert not encoder.projected
    assert SliceEncoder(inner).image_size == (-1, 32, 48)


def test_a_frozen_slice_encoder_stays_in_evaluation_mode_and_the_pooling_is_the_top_layer() -> None:
    clip = CLIP(SliceEncoder(small_vit(), slices=5), BagOfWords(), embed_dim=16)
    groups = parameter_groups(clip, 1e-3, 0.1, layer_decay=0.5)
    top = {id(weight) for group in groups if group["name"].startswith("top") for weight in group["params"]}
    assert {id(weight) for weight in clip.image_encoder.pooling.parameters()} <= top
    freeze_parts(clip, ["image_encoder.slice_encoder"])
    clip.train()
    assert not any(module.training for module in clip.image_encoder.slice_encoder.modules())
    assert clip.image_encoder.pooling.training


@pytest.mark.parametrize("slices", [None, 5])
def test_finishing_from_the_captured_attention_equals_forward(slices: int | None) -> None:
    encoder = trained(SliceEncoder(small_vit(), slices=slices, heads=4))
    volume = volumes()
    assert has_attention(encoder)
    assert (encoder.num_blocks, encoder.num_prefix_tokens) == (1, 0)
    tokens = encoder.tokens_entering(volume, -1)
    torch.testing.assert_close(encoder.finish(tokens, attend(encoder.qkv(tokens, 0))[1], 0), encoder(volume))


def test_values_of_slices_and_of_their_patches_are_laid_out_in_the_volume() -> None:
    encoder = SliceEncoder(small_vit(), slices=5)
    assert encoder.to_grid(torch.arange(10.0).reshape(2, 5))[1, 0, :, 0, 0].tolist() == [5, 6, 7, 8, 9]
    laid = encoder.to_grid(torch.arange(5 * 24.0).reshape(1, 5, 24))
    assert laid.shape == (1, 1, 5, 4, 6)
    assert laid[0, 0, 3, 1, 2] == 3 * 24 + 1 * 6 + 2
    with pytest.raises(ValueError, match="4 values are not one for each of 5 slices"):
        encoder.to_grid(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="23 values do not fill"):
        encoder.to_grid(torch.zeros(2, 5, 23))


@pytest.mark.parametrize("explainer", [GradECLIP(verify=True), Chefer(verify=True)])
def test_explainers_say_which_slice(explainer: Any) -> None:
    classifier = zero_shot(trained(SliceEncoder(small_vit(), heads=4)))
    volume = volumes()
    maps, scores = explainer.explain(classifier, volume)
    assert maps.shape == (2, 2, 5, 32, 48)
    torch.testing.assert_close(scores, classifier(volume))
    assert float(maps.std(dim=(3, 4)).max()) < 1e-6 < float(maps[..., 0, 0].std(dim=2).max())


def in_slices(classifier: Any, explainer: Any, volume: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (S, F, rows, columns) and scores (S, F) of the slices of one volume."""
    features = classifier.image_encoder.slice_features(volume)
    slices = volume.shape[2]
    return explainer.explain(
        SliceClassifier(classifier),
        volume[0].movedim(1, 0),
        slice_features=features.expand(slices, -1, -1),
        slice_index=torch.arange(slices),
    )


def test_one_slice_has_the_score_of_its_volume_and_its_gradients() -> None:
    classifier = zero_shot(trained(SliceEncoder(small_vit(), slices=5, heads=4)))
    view = SliceClassifier(classifier)
    volume = volumes(1).requires_grad_()
    logits = classifier(volume)
    (whole,) = torch.autograd.grad(logits[0, 1], volume)
    slices = volume.detach()[0].movedim(1, 0).requires_grad_()
    features = classifier.image_encoder.slice_features(volume).detach().expand(5, -1, -1)
    scores = view(slices, slice_features=features, slice_index=torch.arange(5))
    torch.testing.assert_close(scores, logits.expand(5, -1))
    (each,) = torch.autograd.grad(scores[:, 1].sum(), slices)
    torch.testing.assert_close(each, whole[0].movedim(1, 0))


@pytest.mark.parametrize("explainer", [GradECLIP(blocks=2), Chefer(), Occlusion(), GradECLIP(target="cosine")])
def test_explainers_of_images_show_where_in_a_slice(explainer: Any) -> None:
    explainer.verify = True
    classifier = zero_shot(trained(SliceEncoder(small_vit(), heads=4)))
    maps, scores = in_slices(classifier, explainer, volumes(1))
    assert maps.shape == (5, 2, 32, 48)
    expected = classifier(volumes(1))
    expected = classifier.as_cosine(expected) if explainer.target == "cosine" else expected
    torch.testing.assert_close(scores, expected.expand(5, -1), atol=1e-4, rtol=1e-4)
    assert float(maps.std(dim=(2, 3)).min()) > 0


def test_a_slice_that_does_not_count_gets_no_heat() -> None:
    encoder = trained(SliceEncoder(small_vit(), slices=5))
    classifier = zero_shot(encoder)
    with torch.no_grad():
        encoder.pooling.pos_embed[0, 0] += 50 * encoder.pooling.key.weight.T @ encoder.pooling.query
    weights = encoder.slice_weights(volumes(1))[0, 0]
    assert weights[0] > 0.999
    maps, _ = in_slices(classifier, GradECLIP(), volumes(1))
    heat = maps.sum(dim=(1, 2, 3))
    assert heat[1:].max() < 1e-3 * heat[0]


def test_what_does_not_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="spatial_dims=3: slices are 2D images"):
        SliceEncoder(SmallViT(16, spatial_dims=3, width=64))
    with pytest.raises(ValueError, match="chunk=0"):
        SliceEncoder(small_vit(), chunk=0)
    with pytest.raises(ValueError, match=r"heads=3 must divide .* width 64"):
        SliceEncoder(small_vit(), heads=3)
    with pytest.raises(ValueError, match="slices=0"):
        SliceEncoder(small_vit(), slices=0)
    with pytest.raises(ValueError, match=r"not \(2, 1, 32, 48\)"):
        SliceEncoder(small_vit())(torch.zeros(2, 1, 32, 48))
    clip = CLIP(small_vit(), BagOfWords(), embed_dim=16)
    with pytest.raises(TypeError, match="SmallViT does not read a volume slice by slice"):
        SliceClassifier(clip.classifier(NAMES, tokenize))
