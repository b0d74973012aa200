"""The three Grad-CAMs by their formulas: on feature maps, on attention, on the tokens that enter the last block."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_medclip.explainers import AttentionGradCAM, GradCAM, TokenGradCAM
from monai_medclip.explainers.base import upsample
from monai_medclip.networks import CLIP, SmallCNN, TimmImageEncoder

from ..networks.toys import BagOfWords, tokenize
from .byhand import NAMES, classifier, images, last_attention, on_patches


def test_on_attention() -> None:
    network, image = classifier(), images()
    at = last_attention(network, image)
    weights = at.gradient.mean(dim=-1, keepdim=True)  # (B, F, H, 1)
    expected = on_patches(F.relu((weights * at.attention.unsqueeze(1)).sum(dim=2)))
    torch.testing.assert_close(AttentionGradCAM()(network, image), upsample(expected, (32, 32)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("include_prefix", [False, True])
def test_on_the_tokens_that_enter_the_last_block(include_prefix: bool) -> None:
    network, image = classifier(), images()
    at = last_attention(network, image)
    weights = at.token_gradient[:, :, 0 if include_prefix else 1 :].mean(dim=2)  # (B, F, D)
    expected = on_patches(F.relu(torch.einsum("bfd,bnd->bfn", weights, at.tokens)))
    found = TokenGradCAM(include_prefix=include_prefix)(network, image)
    torch.testing.assert_close(found, upsample(expected, (32, 32)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_on_a_feature_map_in_2d_and_3d(spatial_dims: int) -> None:
    torch.manual_seed(0)
    size = (16, 24, 8)[:spatial_dims]
    encoder = SmallCNN(size, in_channels=1, spatial_dims=spatial_dims, channels=(4, 6), width=8)
    network = CLIP(encoder, BagOfWords(), embed_dim=16).eval().classifier(NAMES, tokenize)
    image = torch.rand(2, 1, *size)
    maps = []
    for f in range(len(NAMES)):
        features = encoder.feature_map(image).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network.score_features(encoder.pool_features(features))[:, f].sum(), features)
        weights = gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)  # (B, C, 1, ...)
        maps.append(F.relu((weights * features).sum(dim=1)).detach())
    expected = upsample(torch.stack(maps, dim=1), size)
    found = GradCAM(verify=True).explain(network, image)
    torch.testing.assert_close(found.heatmap, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.scores, network(image), rtol=1e-4, atol=1e-4)


def test_a_network_whose_features_are_no_map_is_refused_before_it_is_run() -> None:
    encoder = TimmImageEncoder("xcit_nano_12_p16_224", image_size=32)  # timm's attention over channels: (B, N, C)
    network = CLIP(encoder, BagOfWords(), embed_dim=16).train().classifier(NAMES, tokenize)
    outputs: list[torch.Tensor] = []
    handle = encoder.trunk.patch_embed.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(TypeError, match=r"TimmImageEncoder's last features \(1, 5, 128\) are no map"):
        GradCAM()(network, torch.rand(1, 3, 32, 32))
    handle.remove()
    assert all(type(output) is not torch.Tensor for output in outputs)  # shapes without numbers
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
