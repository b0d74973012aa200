"""Maps that do not look: the blob, the dice, the flow of attention, and the patches asked one by one."""

from __future__ import annotations

import torch

from monai_medclip.explainers import AttentionRollout, CentreBlob, PatchSimilarity, RandomMap
from monai_medclip.explainers.base import upsample
from monai_medclip.networks import attend

from .byhand import classifier, images, last_attention


def test_the_blob_is_highest_in_the_middle_and_the_same_for_every_finding() -> None:
    blob = CentreBlob(sigma=0.25)(classifier(), images())
    assert blob.shape == (2, 3, 32, 32)
    torch.testing.assert_close(blob, blob[:1, :1].expand_as(blob))
    torch.testing.assert_close(blob, blob.flip(2).flip(3))
    assert float(blob[0, 0, 15, 15]) > 0.99
    edge = torch.exp(torch.tensor(-0.5 * ((0.5 / 32 - 0.5) / 0.25) ** 2 - 0.5 * (0.5 / 32 / 0.25) ** 2))
    torch.testing.assert_close(blob[0, 0, 0, 15], edge)


def test_random_maps_follow_their_seed_and_leave_the_global_generator_alone() -> None:
    network, image = classifier(), images()
    state = torch.get_rng_state()
    one, again, other = (RandomMap(seed=seed)(network, image) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(one, again)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one[:, 0], one[:, 1])


def test_rollout_is_the_product_of_averaged_attention_and_identity() -> None:
    network, image = classifier(), images()
    encoder, rows = network.image_encoder, torch.eye(17).expand(2, 17, 17)
    tokens = encoder.tokens_entering(image, 0)
    for block in range(encoder.num_blocks):
        attention, context = attend(encoder.qkv(tokens, block))
        rows = (attention.mean(1) + torch.eye(17)) / 2 @ rows
        tokens = encoder.leave(tokens, context, block)
    expected = rows[:, None, 0, 1:].unflatten(-1, (4, 4)).expand(-1, 3, -1, -1).detach()
    found = AttentionRollout()(network, image)
    torch.testing.assert_close(found, upsample(expected, (32, 32)), rtol=1e-4, atol=1e-6)


def test_patch_similarity_is_the_score_of_each_token_in_the_place_of_the_pooled_one() -> None:
    network, image = classifier(), images()
    encoder = network.image_encoder
    at = last_attention(network, image)
    leaving = encoder.leave(at.tokens, attend(at.qkv)[1], 1)  # (B, 17, D)
    patches = [network.score_features(encoder.pool(leaving[:, n : n + 1])) for n in range(1, 17)]
    expected = torch.stack(patches, dim=-1).unflatten(-1, (4, 4)).detach()
    found = PatchSimilarity()(network, image)
    torch.testing.assert_close(found, upsample(expected, (32, 32)), rtol=1e-3, atol=1e-4)
