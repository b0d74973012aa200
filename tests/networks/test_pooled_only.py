"""The last block for the CLS token alone is the whole model, value and gradient."""

from __future__ import annotations

import pytest
import timm
import torch

from monai_medclip.networks.pooled_only import cls_only_forward, reads_cls_only

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}


def vit(**options: object) -> timm.models.VisionTransformer:
    return timm.models.VisionTransformer(**{**SMALL, **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"init_values": 0.1, "qk_norm": True}, {"reg_tokens": 3}, {"qkv_bias": False, "pre_norm": True}, {"depth": 1}],
    ids=str,
)
def test_output_and_gradients_equal_the_whole_model(options):
    network, image = vit(**options), torch.randn(3, 3, 32, 32)
    assert reads_cls_only(network)
    whole = network(image)
    direction = torch.randn_like(whole)
    (whole * direction).sum().backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    short = cls_only_forward(network, image)
    (short * direction).sum().backward()
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("options", [{"global_pool": "avg"}, {"global_pool": "map"}, {"num_classes": 3}], ids=str)
def test_a_model_that_reads_other_tokens_is_left_alone(options):
    assert not reads_cls_only(vit(**options))


def test_a_hook_on_the_last_block_still_sees_all_tokens():
    network = vit()
    handle = network.blocks[-1].register_forward_hook(lambda *_: None)
    assert not reads_cls_only(network)
    handle.remove()
    assert reads_cls_only(network)
    assert not reads_cls_only(timm.create_model("resnet10t", num_classes=0))
