"""The small CNN sees place and size, takes 2D and 3D, and says what it was built for."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.networks.attention import has_attention
from monai_medclip.networks.small_cnn import SmallCNN


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_features_of_images_and_volumes(spatial_dims):
    encoder = SmallCNN(16, spatial_dims=spatial_dims, in_channels=2, channels=(4, 8), width=12).eval()
    image = torch.randn(3, 2, *(16,) * spatial_dims)
    features = encoder(image)
    assert features.shape == (3, encoder.width) == (3, 12)
    assert encoder.feature_map(image).shape == (3, 8, *(4,) * spatial_dims)
    torch.testing.assert_close(encoder.pool_features(encoder.feature_map(image)), features)
    torch.testing.assert_close(encoder(image[:1]), features[:1])
    assert encoder.image_size == (16,) * spatial_dims
    assert len(encoder.mean) == len(encoder.std) == 2
    assert not has_attention(encoder)


def test_the_head_knows_where_things_are():
    """Global pooling gives the same features wherever a spot lies; a flatten head does not."""
    encoder = SmallCNN(16, in_channels=1, channels=(4, 4), dropout=0.0).eval()
    here, there = torch.zeros(2, 1, 1, 16, 16)
    here[..., 4:8, 4:8] = there[..., 8:12, 8:12] = 1.0  # the shift is a multiple of the stride, so pooling is blind
    maps = [encoder.feature_map(image)[..., :3, :3].amax((2, 3)) for image in (here, there)]
    torch.testing.assert_close(encoder.feature_map(here).amax((2, 3)), encoder.feature_map(there).amax((2, 3)))
    assert maps[0].shape == (1, 4)
    assert not torch.allclose(encoder(here), encoder(there), atol=1e-4)


def test_a_gray_crop_feeds_every_channel():
    encoder = SmallCNN(8, in_channels=3, channels=(4,)).eval()
    gray = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(encoder(gray), encoder(gray.expand(-1, 3, -1, -1)))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        SmallCNN(36)
    with pytest.raises(ValueError, match="flatten head"):
        SmallCNN(40)(torch.zeros(1, 3, 48, 48))
