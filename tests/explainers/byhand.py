"""The last attention of a tiny CLIP, differentiated by hand: what the attention methods are compared with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from monai_medclip.networks import QKV, ZeroShotClassifier, attend
from monai_medclip.networks.attention import merge_heads

from ..networks.toys import tiny_clip, tokenize

NAMES = ["nodule", "mass", "pneumothorax"]


class LastAttention(NamedTuple):
    """Everything at the CLS token of the last block, and the score's gradients there."""

    tokens: Tensor  # (B, N, D) entering
    token_gradient: Tensor  # (B, F, N, D) dS/dx
    qkv: QKV  # (B, H, N, dh)
    attention: Tensor  # (B, H, N) of the CLS token
    gradient: Tensor  # (B, F, H, N): G = dS/dA of the CLS token


def classifier() -> ZeroShotClassifier:
    torch.manual_seed(0)
    return tiny_clip().classifier(NAMES, tokenize, rule="positive_minus_normal").eval()


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def last_attention(network: ZeroShotClassifier, image: Tensor) -> LastAttention:
    """One finding after the other, with all tokens computed: nothing of the package's shortcuts."""
    encoder = network.image_encoder
    last = encoder.num_blocks - 1
    tokens = encoder.tokens_entering(image, last).detach().requires_grad_()
    qkv = encoder.qkv(tokens, last)
    attention, _ = attend(qkv)
    features = encoder.finish(tokens, merge_heads(attention @ qkv.v), last)
    scores = network.score_features(features)
    grads = [
        torch.autograd.grad(scores[:, f].sum(), (attention, tokens), retain_graph=True) for f in range(scores.shape[1])
    ]
    return LastAttention(
        tokens.detach(),
        torch.stack([token for _, token in grads], dim=1),
        QKV(*(part.detach() for part in qkv)),
        attention[:, :, 0].detach(),
        torch.stack([gradient[:, :, 0] for gradient, _ in grads], dim=1),
    )


def on_patches(values: Tensor) -> Tensor:
    """Values of the 16 patches (B, F, 16), behind the CLS token's, as a map (B, F, 4, 4)."""
    return values[..., 1:].unflatten(-1, (4, 4))
