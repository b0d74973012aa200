"""transformers vision models from tiny folders made by save_pretrained: access, pooling, statistics, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    PretrainedConfig,
    SiglipVisionConfig,
    ViTConfig,
)

from monai_medclip.networks import TransformersImageEncoder, attend

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "ViT": ViTConfig(**SMALL),
    "CLIP": CLIPVisionConfig(**SMALL),
    "SigLIP": SiglipVisionConfig(**SMALL),
    "DINOv2": Dinov2Config(**SMALL),
    "DINOv2 registers": Dinov2WithRegistersConfig(**SMALL, num_register_tokens=2),
}


def save_model(config: PretrainedConfig, folder: Path) -> None:
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("image_size", [(32, 32), (48, 64)])
def test_finishing_from_the_captured_attention_equals_forward(
    tmp_path: Path, name: str, image_size: tuple[int, int]
) -> None:
    save_model(CONFIGS[name], tmp_path)
    encoder = TransformersImageEncoder(tmp_path, image_size=image_size).eval()
    image = torch.rand(2, 3, *image_size)
    expected = encoder(image)
    assert expected.shape == (2, 24)
    assert encoder.num_blocks == (3 if name == "SigLIP" else 2)
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        qkv = encoder.qkv(tokens, block)
        torch.testing.assert_close(encoder.finish(tokens, attend(qkv)[1], block), expected, atol=1e-5, rtol=1e-5)
        patches = qkv.k.shape[2] - encoder.prefix_tokens(block)
        assert encoder.to_grid(torch.zeros(2, patches)).shape == (2, 1, image_size[0] // 8, image_size[1] // 8)


def test_vision_tower_of_a_whole_clip_is_taken(tmp_path: Path) -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    whole = CLIPModel(CLIPConfig(vision_config=SMALL, text_config=text)).eval()
    whole.save_pretrained(tmp_path)
    encoder = TransformersImageEncoder(tmp_path).eval()
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(image), whole.vision_model(image).pooler_output)


def test_statistics_come_from_the_preprocessor_beside_the_weights(tmp_path: Path) -> None:
    save_model(CONFIGS["ViT"], tmp_path)
    assert TransformersImageEncoder(tmp_path).mean == (0.5, 0.5, 0.5)
    preprocessor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    encoder = TransformersImageEncoder(tmp_path)
    assert encoder.mean == (0.1, 0.2, 0.3)
    assert encoder.std == (0.4, 0.5, 0.6)


def test_gray_image_equals_its_three_copies() -> None:
    encoder = TransformersImageEncoder(CONFIGS["ViT"]).eval()
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(encoder(gray), encoder(gray.repeat(1, 3, 1, 1)))


def test_checkpoint_that_lacks_weights_is_refused_by_name(tmp_path: Path) -> None:
    save_model(CONFIGS["DINOv2"], tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in state if "q_proj.weight" in key or "query.weight" in key)
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights"):
        TransformersImageEncoder(tmp_path)


def test_text_model_is_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20)
    with pytest.raises(ValueError, match="no vision model"):
        TransformersImageEncoder(config)
