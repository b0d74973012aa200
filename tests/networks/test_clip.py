"""CLIP: one space, one scale, and no MetaTensor that escapes."""

from __future__ import annotations

import math
from pathlib import Path

import open_clip
import pytest
import torch
from monai.data import MetaTensor
from safetensors.torch import load_file, save_file
from torch import nn

from monai_medclip.networks import CLIP

from .test_open_clip_encoder import save_open_clip
from .toys import BagOfWords, tiny_clip, tokenize

TEXTS = ["There is a nodule.", "The lungs are clear.", "The heart is enlarged."]


def test_embeddings_are_unit_vectors_of_the_asked_width() -> None:
    clip = tiny_clip(embed_dim=10)
    output = clip(torch.rand(3, 1, 32, 32), *tokenize(TEXTS))
    assert output.image.shape == output.text.shape == (3, 10)
    torch.testing.assert_close(output.image.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(output.text.norm(dim=1), torch.ones(3))


def test_projections_are_linear_without_bias() -> None:
    clip = tiny_clip()
    assert clip.image_projection.bias is None
    assert clip.text_projection.bias is None
    assert clip.image_projection.weight.shape == (16, 64)


def test_scale_starts_at_one_over_tau_and_never_passes_its_limit() -> None:
    clip = tiny_clip(temperature=0.1)
    assert clip.logit_scale.item() == pytest.approx(10.0, rel=1e-5)
    clip.log_scale.data.fill_(9.0)
    assert clip.logit_scale.item() == pytest.approx(100.0, rel=1e-5)


def test_scale_at_its_limit_can_come_down_again() -> None:
    clip = tiny_clip()
    clip.log_scale.data.fill_(9.0)
    clip(torch.rand(3, 1, 32, 32), *tokenize(TEXTS)).logit_scale.backward()
    assert clip.log_scale.item() == pytest.approx(math.log(100))
    assert clip.log_scale.grad.item() == pytest.approx(100.0, rel=1e-5)


def test_fixed_temperature_is_not_trained_and_fits_the_same_checkpoint() -> None:
    fixed, learned = tiny_clip(temperature=0.1, learn_temperature=False), tiny_clip(logit_bias=-10.0)
    assert "log_scale" not in dict(fixed.named_parameters())
    assert learned.logit_bias.item() == -10.0
    fixed.load_state_dict(learned.state_dict())
    assert fixed.logit_bias.item() == -10.0


def test_meta_tensor_images_give_plain_embeddings() -> None:
    clip = tiny_clip().eval()
    image = torch.rand(2, 1, 32, 32)
    embeddings = clip.encode_image(MetaTensor(image))
    assert type(embeddings) is torch.Tensor
    torch.testing.assert_close(embeddings, clip.encode_image(image))


def test_chunks_of_a_batch_equal_the_batch() -> None:
    clip = tiny_clip().eval()
    images = torch.rand(5, 1, 32, 32)
    chunks = torch.cat([clip.encode_image(chunk) for chunk in images.split(2)])
    torch.testing.assert_close(chunks, clip.encode_image(images), atol=1e-6, rtol=0)


def test_encoder_that_ends_in_the_shared_space_keeps_its_own_projection() -> None:
    image_encoder, text_encoder = BagOfWords(8), BagOfWords(8)
    image_encoder.projected = text_encoder.projected = True
    clip = CLIP(image_encoder, text_encoder, embed_dim=512)
    assert clip.embed_dim == 8
    assert isinstance(clip.image_projection, nn.Identity)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature -1"):
        tiny_clip(temperature=-1)
    image_encoder, text_encoder = BagOfWords(8), BagOfWords(9)
    image_encoder.projected = text_encoder.projected = True
    with pytest.raises(ValueError, match=r"\[8, 9\]"):
        CLIP(image_encoder, text_encoder)


@pytest.mark.parametrize("name", ["OpenAI", "SigLIP"])
def test_whole_open_clip_model_keeps_its_projections_scale_and_bias(tmp_path: Path, name: str) -> None:
    save_open_clip(tmp_path, name)
    original = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    clip = CLIP.from_open_clip(tmp_path).eval()
    image, ids = torch.rand(2, 3, *clip.image_encoder.image_size), torch.tensor([[60, 5, 9, 63, 0, 0, 0, 0]])
    torch.testing.assert_close(clip.encode_image(image), original.encode_image(image, normalize=True))
    torch.testing.assert_close(clip.encode_text(ids, (ids > 0).long()), original.encode_text(ids, normalize=True))
    torch.testing.assert_close(clip.logit_scale, original.logit_scale.exp())
    assert clip.logit_bias.item() == (0.0 if original.logit_bias is None else original.logit_bias.item())


def test_scale_above_clips_limit_survives_a_training_step(tmp_path: Path) -> None:
    save_open_clip(tmp_path, "OpenAI")
    path = tmp_path / "open_clip_model.safetensors"
    save_file({**load_file(path), "logit_scale": torch.tensor(math.log(117.0))}, path)
    clip = CLIP.from_open_clip(tmp_path).train()
    ids = torch.tensor([[60, 5, 63]])
    assert clip(torch.rand(1, 3, 32, 32), ids, torch.ones_like(ids)).logit_scale.item() == pytest.approx(117.0)
