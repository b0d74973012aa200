"""A CLIP of 2D images read slice by slice: the same weights, the same space, before any training."""

from __future__ import annotations

import pytest
import torch

from monai_medclip.networks import CLIP, SliceEncoder, SmallViT

from .toys import BagOfWords, tokenize


@pytest.fixture
def clip() -> CLIP:
    return CLIP(SmallViT(32, width=64), BagOfWords(), embed_dim=16, temperature=0.05).eval()


def test_a_volume_of_identical_slices_is_embedded_as_that_slice(clip: CLIP) -> None:
    image = torch.rand(2, 1, 32, 32)
    volume = image.unsqueeze(2).expand(-1, -1, 5, -1, -1)
    over = clip.over_slices(slices=5, chunk=2).eval()
    torch.testing.assert_close(over.encode_image(volume), clip.encode_image(image), rtol=0, atol=1e-5)
    tokens = tokenize(["A nodule.", "Normal chest."])
    torch.testing.assert_close(over.encode_text(*tokens[:2]), clip.encode_text(*tokens[:2]))
    assert float(over.logit_scale.detach()) == pytest.approx(20)


@pytest.mark.parametrize("learn_temperature", [True, False])
def test_all_weights_but_the_poolings_are_shared(learn_temperature: bool) -> None:
    clip = CLIP(SmallViT(32, width=64), BagOfWords(), embed_dim=16, learn_temperature=learn_temperature)
    over = clip.over_slices()
    assert isinstance(over.image_encoder, SliceEncoder)
    shared = {id(weight) for weight in clip.parameters()}
    own = {name for name, weight in over.named_parameters() if id(weight) not in shared}
    assert own == {"image_encoder.pooling.query", "image_encoder.pooling.key.weight"}
    assert shared <= {id(weight) for weight in over.parameters()}
    assert ("log_scale" in dict(over.named_parameters())) is learn_temperature
    assert clip.over_slices().load_state_dict(over.state_dict()).missing_keys == []


def test_a_clip_of_volumes_is_refused() -> None:
    clip = CLIP(SmallViT((16, 32, 32), spatial_dims=3, width=64), BagOfWords(), embed_dim=16)
    with pytest.raises(ValueError, match="spatial_dims=3: slices are 2D"):
        clip.over_slices()
