"""Text towers from open_clip: each gives what open_clip itself gives on text padded to its whole context."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig

from monai_medclip.networks import OpenClipTextEncoder

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 16, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2}
SIGLIP = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
BERT = {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_proj_type": "mlp", "hf_model_pretrained": False}
LENGTHS = [7, 3, 9]


def saved(folder, text_config: dict) -> open_clip.CustomTextCLIP:
    """A tiny model in open_clip's own hub layout."""
    model_config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text_config}
    model = open_clip.CustomTextCLIP(**model_config).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_config, "preprocess_cfg": {}}))
    return model


def batch(length: int, end: int = 59) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(5, 59, mask.shape) * mask
    ids[range(len(LENGTHS)), [n - 1 for n in LENGTHS]] = end  # the end token, CLIP's highest number
    return ids, mask


def whole_context(ids: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]))


def test_causal_tower_gives_what_open_clip_gives(tmp_path):
    model, (ids, mask) = saved(tmp_path, TEXT), batch(9)
    encoder = OpenClipTextEncoder(tmp_path).eval()
    expected = model.encode_text(whole_context(ids, 16))
    torch.testing.assert_close(encoder(ids, mask), expected, atol=1e-5, rtol=1e-5)
    assert (encoder.width, encoder.vocab_size, encoder.max_length, encoder.projected) == (24, 60, 16, True)


def test_class_token_behind_the_padding_sees_the_whole_context(tmp_path):
    model, (ids, mask) = saved(tmp_path, {**TEXT, "embed_cls": True}), batch(9)
    expected = model.encode_text(whole_context(ids, 16))
    torch.testing.assert_close(OpenClipTextEncoder(tmp_path).eval()(ids, mask), expected, atol=1e-5, rtol=1e-5)


def test_siglip_tower_reads_its_padding_and_refuses_less(tmp_path):
    model, (ids, _) = saved(tmp_path, {**TEXT, **SIGLIP}), batch(16)
    encoder = OpenClipTextEncoder(tmp_path).eval()
    torch.testing.assert_close(encoder(ids, torch.ones_like(ids)), model.encode_text(ids))
    with pytest.raises(ValueError, match="reads all 16 positions"):
        encoder(ids[:, :9], torch.ones(3, 9))


def test_bert_tower_runs_packed_from_a_folder_without_the_hub(tmp_path):
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertConfig(**sizes, intermediate_size=64, max_position_embeddings=40).save_pretrained(tmp_path)
    model = saved(tmp_path, {**BERT, "hf_model_name": str(tmp_path)})
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "owner/biomedical-bert"  # as published: the hub's name
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    ids, mask = batch(9)
    encoder = OpenClipTextEncoder(tmp_path).eval()
    assert encoder.packed
    torch.testing.assert_close(encoder(ids, mask), model.encode_text(ids), atol=1e-5, rtol=1e-5)
    encoder.packed = False
    torch.testing.assert_close(encoder(ids, mask), model.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_a_model_in_memory_shares_its_tower():
    model = open_clip.CustomTextCLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT)
    assert OpenClipTextEncoder(model).tower is model.text
    with pytest.raises(ValueError, match="force_custom_text=True"):
        OpenClipTextEncoder(open_clip.CLIP(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT))


def test_folder_without_config_or_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"open_clip_config\.json"):
        OpenClipTextEncoder(tmp_path)
    saved(tmp_path, TEXT)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="complete checkpoint"):
        OpenClipTextEncoder(tmp_path)
