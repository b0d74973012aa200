"""Chefer: one block by its formula, all blocks by the full recursion of matrices."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from monai_medclip.explainers import Chefer
from monai_medclip.explainers.base import upsample
from monai_medclip.networks import attend
from monai_medclip.networks.attention import merge_heads

from .byhand import NAMES, classifier, images, last_attention, on_patches


def test_the_last_block_alone_is_attention_times_its_gradient() -> None:
    network, image = classifier(), images()
    at = last_attention(network, image)
    expected = on_patches(F.relu(at.gradient * at.attention.unsqueeze(1)).mean(dim=2))
    torch.testing.assert_close(Chefer(blocks=1)(network, image), upsample(expected, (32, 32)), rtol=1e-4, atol=1e-6)


def test_all_blocks_equal_the_recursion_of_whole_matrices() -> None:
    """R = I; per block R += mean_h(ReLU(G * A)) R, with N x N matrices, one finding at a time."""
    network, image = classifier(), images(1)
    encoder = network.image_encoder
    maps = []
    for f in range(len(NAMES)):
        tokens = encoder.tokens_entering(image, 0).detach().requires_grad_()
        attentions, entering = [], tokens
        for block in range(encoder.num_blocks):
            qkv = encoder.qkv(entering, block)
            attention, _ = attend(qkv)
            attentions.append(attention)
            entering = encoder.leave(entering, merge_heads(attention @ qkv.v), block)
        score = network.score_features(encoder.pool(entering))[0, f]
        grads = torch.autograd.grad(score, attentions)
        relevance = torch.eye(tokens.shape[1])
        for attention, gradient in zip(attentions, grads, strict=True):
            relevance = relevance + F.relu(gradient * attention)[0].mean(dim=0) @ relevance
        maps.append(relevance[0])
    expected = on_patches(torch.stack(maps)[None].detach())
    torch.testing.assert_close(Chefer()(network, image), upsample(expected, (32, 32)), rtol=1e-4, atol=1e-6)


def test_logit_and_cosine_differ_over_several_blocks_but_not_over_one() -> None:
    network, image = classifier(), images(1)
    scale = float(network.clip.logit_scale.detach())
    one, cosine = (Chefer(blocks=1, target=target)(network, image) for target in ("logit", "cosine"))
    torch.testing.assert_close(one, scale * cosine, rtol=1e-4, atol=1e-6)
    two, cosine = (Chefer(target=target)(network, image) for target in ("logit", "cosine"))
    assert not torch.allclose(two, scale * cosine, rtol=1e-2)
