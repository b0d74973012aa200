"""open_clip towers from tiny checkpoints in open_clip's own format: access, projection, statistics, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from monai_medclip.networks import OpenClipImageEncoder, attend, has_attention

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
TIMM = {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224"}

MODELS = {
    "OpenAI": {"vision_cfg": VISION, "quick_gelu": True},
    "LAION": {"vision_cfg": {**VISION, "ls_init_value": 0.1, "final_ln_after_pool": True}},
    "mean pool": {"vision_cfg": {**VISION, "pool_type": "avg"}},
    "CoCa": {"vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}},
    "SigLIP": {
        "custom_text": True,
        "vision_cfg": {
            **TIMM,
            "timm_model_name": "test_vit",
            "image_size": 160,
            "timm_pool": "map",
            "timm_proj": "none",
        },
    },
    "BiomedCLIP": {
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "", "timm_proj": "mlp"},
    },
}


def save_open_clip(folder: Path, name: str, *, safe: bool = True, embed_dim: int = 12) -> None:
    """A folder as on the hub: open_clip_config.json and the weights."""
    config = {"embed_dim": 64 if name == "SigLIP" else embed_dim, "text_cfg": TEXT, **MODELS[name]}
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    custom = config.get("custom_text", False)  # OpenAI's and LAION's models keep their text tower in pieces
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**json.loads(json.dumps(arguments)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if safe:
        save_file(state, folder / "open_clip_model.safetensors")
    else:
        torch.save(state, folder / "open_clip_pytorch_model.bin")


@pytest.mark.parametrize("name", MODELS)
def test_finishing_from_the_captured_attention_equals_forward(tmp_path: Path, name: str) -> None:
    save_open_clip(tmp_path, name)
    encoder = OpenClipImageEncoder(tmp_path).eval()
    image = torch.rand(2, 3, *encoder.image_size)
    expected = encoder(image)
    assert expected.shape == (2, encoder.width)
    assert encoder.num_blocks >= 2
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        context = attend(encoder.qkv(tokens, block))[1]
        torch.testing.assert_close(encoder.finish(tokens, context, block), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("safe", [True, False])
def test_folder_gives_open_clips_own_embedding_and_statistics(tmp_path: Path, safe: bool) -> None:
    save_open_clip(tmp_path, "OpenAI", safe=safe)
    encoder = OpenClipImageEncoder(tmp_path).eval()
    original = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(image), original.encode_image(image))
    assert encoder.projected
    assert encoder.width == 12
    assert encoder.mean == (0.1, 0.2, 0.3)
    assert encoder.std == (0.4, 0.5, 0.6)


def test_siglip_pools_with_one_query_and_no_prefix_tokens(tmp_path: Path) -> None:
    save_open_clip(tmp_path, "SigLIP")
    encoder = OpenClipImageEncoder(tmp_path).eval()
    last = encoder.num_blocks - 1
    qkv = encoder.qkv(encoder.tokens_entering(torch.rand(1, 3, 160, 160), last), last)
    assert qkv.q.shape[2] == 1
    assert encoder.prefix_tokens(last) == 0
    assert encoder.to_grid(torch.zeros(1, qkv.k.shape[2])).shape[2:] == encoder.grid_size


def test_another_image_size_resamples_the_positions(tmp_path: Path) -> None:
    save_open_clip(tmp_path, "OpenAI")
    encoder = OpenClipImageEncoder(tmp_path, image_size=(48, 64)).eval()
    assert encoder.grid_size == (6, 8)
    assert encoder(torch.rand(1, 1, 48, 64)).shape == (1, 12)


def test_gray_image_equals_its_three_copies(tmp_path: Path) -> None:
    save_open_clip(tmp_path, "OpenAI")
    encoder = OpenClipImageEncoder(tmp_path).eval()
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(encoder(gray), encoder(gray.repeat(1, 3, 1, 1)))


def test_resnet_tower_pools_its_feature_map() -> None:
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None}
    model = open_clip.model.CustomTextCLIP(embed_dim=12, vision_cfg=vision, text_cfg=TEXT)
    open_clip.model.set_model_preprocess_cfg(model, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    encoder = OpenClipImageEncoder(model).eval()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(encoder.pool_features(encoder.feature_map(image)), encoder(image))
    assert not has_attention(encoder)


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no open_clip_config\.json"):
        OpenClipImageEncoder(tmp_path)
    save_open_clip(tmp_path, "OpenAI", safe=False)
    path = tmp_path / "open_clip_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    del state["visual.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"visual\.conv1\.weight"):
        OpenClipImageEncoder(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"open_clip could not build.*weights"):
        OpenClipImageEncoder(tmp_path)
