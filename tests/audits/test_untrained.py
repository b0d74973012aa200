"""An untrained copy forgets every weight, and says the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from monai_medclip.audits.untrained import pooled_features, untrained
from monai_medclip.networks import PrecomputedFeatures, SmallCNN, SmallViT


def trained(spatial_dims: int = 2) -> SmallCNN:
    """Nothing random about it: every weight is 7, and so are the running statistics."""
    network = SmallCNN(16, in_channels=1, spatial_dims=spatial_dims, channels=(8, 8), width=12)
    for values in (*network.parameters(), *network.buffers()):
        values.data.fill_(7)
    return network


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_copy_does_not_depend_on_the_weights_but_on_the_seed(spatial_dims: int) -> None:
    fresh = SmallCNN(16, in_channels=1, spatial_dims=spatial_dims, channels=(8, 8), width=12)
    images = list(torch.rand(5, 1, *[16] * spatial_dims))
    told = pooled_features(untrained(trained(spatial_dims), seed=3), images)
    assert told.shape == (5, 12)
    assert np.array_equal(told, pooled_features(untrained(fresh, seed=3), images))
    assert not np.allclose(told, pooled_features(untrained(fresh, seed=4), images))
    assert told.std(axis=0).min() > 0  # every feature tells images apart


def test_the_network_and_the_global_random_state_stay_as_they_are() -> None:
    network, state = trained(), torch.get_rng_state()
    copied = untrained(network)
    assert all((weight == 7).all() and weight.requires_grad for weight in network.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert not copied.training
    assert not any(weight.requires_grad for weight in copied.parameters())
    norm = next(module for module in copied.modules() if isinstance(module, nn.BatchNorm2d))
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == 1).all()


def test_convolutions_keep_the_variance_of_their_fan_out_and_linear_layers_of_their_fan_in() -> None:
    network = nn.Sequential(nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 3, groups=64), nn.Linear(256, 32))
    whole, depthwise, linear = (layer.weight for layer in untrained(network).children())
    assert float(whole.var()) == pytest.approx(2 / (64 * 9), rel=0.1)
    assert float(depthwise.var()) == pytest.approx(2 / 9, rel=0.2)
    assert float(linear.var()) == pytest.approx(2 / 256, rel=0.1)


def test_tokens_and_positions_of_a_transformer_are_drawn_too() -> None:
    network = SmallViT(32, width=64, num_heads=2)
    for weight in network.parameters():
        weight.data.fill_(7)
    copied = untrained(network)
    assert not any((weight == 7).any() for weight in copied.parameters())
    assert np.isfinite(pooled_features(copied, [torch.rand(1, 32, 32)])).all()


def test_feature_maps_are_averaged_over_positions() -> None:
    network = nn.Conv2d(1, 3, 1, bias=False)
    image = torch.rand(1, 4, 4)
    expected = float(image.mean()) * network.weight.detach().numpy().ravel()
    assert pooled_features(network, [image])[0] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="PrecomputedFeatures has no weights"):
        untrained(PrecomputedFeatures(8))
    network = untrained(nn.Conv2d(1, 3, 1))
    with pytest.raises(ValueError, match="fit them to one size first"):
        pooled_features(network, [torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)])
    with pytest.raises(ValueError, match="not finite"):
        pooled_features(network, [torch.full((1, 4, 4), torch.nan)])
