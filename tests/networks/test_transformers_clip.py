"""Whole CLIPs and SigLIPs of transformers, loaded offline: each gives what transformers itself gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig

from monai_medclip.networks import (
    CLIP,
    TransformersClipImageEncoder,
    TransformersClipTextEncoder,
    attend,
    has_attention,
    has_text_attention,
    load_transformers_clip,
)
from monai_medclip.transforms import ReportTokenizer

from .transformers_models import CONTEXT, SENTENCES, save_clip, save_siglip

MODELS: dict[str, Callable[[Path], Any]] = {
    "CLIP": save_clip,
    "early CLIP": lambda folder: save_clip(folder, eos_token_id=2),
    "SigLIP": save_siglip,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MODELS[request.param](tmp_path)


def own_tokens(model: Any, folder: Path) -> dict[str, Tensor]:
    """As the library's pages say: CLIP's padding is masked, SigLIP's fills the context and is not."""
    if model.config.model_type == "clip":
        return dict(AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt"))
    return {"input_ids": ReportTokenizer.load(folder)(SENTENCES).input_ids}


@torch.no_grad()
def test_embeddings_and_logits_are_those_of_transformers(model: Any, tmp_path: Path) -> None:
    clip, images, tokens = (
        CLIP.from_transformers(tmp_path).eval(),
        torch.rand(2, 3, 32, 32),
        own_tokens(model, tmp_path),
    )
    found = clip(images, *ReportTokenizer.load(tmp_path)(SENTENCES))
    expected = model(pixel_values=images, **tokens)
    for features, ours in (
        (model.get_image_features(images), found.image),
        (model.get_text_features(**tokens), found.text),
    ):
        theirs = torch.nn.functional.normalize(features.pooler_output, dim=-1)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    logits = found.logit_scale * found.image @ found.text.T + found.logit_bias
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-5, rtol=1e-5)
    assert logits.std(dim=1).min() > 0.01  # texts differ: a wrong pooled token would show


@torch.no_grad()
def test_padding_of_a_collated_batch_changes_nothing_in_clip(tmp_path: Path) -> None:
    save_clip(tmp_path)
    encoder, tokenizer = TransformersClipTextEncoder(tmp_path).eval(), ReportTokenizer.load(tmp_path)
    ids = tokenizer.encode("No mass").input_ids
    padded = torch.nn.functional.pad(ids, (0, 9))  # with 0, not with the tokenizer's padding
    mask = (torch.arange(len(padded)) < len(ids)).long()
    torch.testing.assert_close(encoder(padded[None], mask[None]), encoder(ids[None], torch.ones(1, len(ids))))


def test_towers_say_what_they_are(model: Any, tmp_path: Path) -> None:
    clip = CLIP.from_transformers(tmp_path, learn_temperature=False)
    image, text = clip.image_encoder, clip.text_encoder
    assert image.projected
    assert text.projected
    assert clip.embed_dim == image.width == text.width == (24 if "siglip" in model.config.model_type else 12)
    assert image.image_size == (32, 32)
    assert (image.mean, image.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert text.max_length == CONTEXT[model.config.model_type]
    assert text.vocab_size == ReportTokenizer.load(tmp_path).vocab_size
    assert float(clip.logit_scale) == pytest.approx(float(torch.tensor(3.0).exp()))
    assert "log_scale" not in dict(clip.named_parameters())


@torch.no_grad()
def test_vision_attention_can_be_read_up_to_the_projection(model: Any, tmp_path: Path) -> None:
    encoder, image = TransformersClipImageEncoder(tmp_path).eval(), torch.rand(2, 3, 32, 32)
    assert has_attention(encoder)
    assert encoder.num_blocks == (3 if "siglip" in model.config.model_type else 2)
    for block in range(encoder.num_blocks):
        tokens = encoder.tokens_entering(image, block)
        finished = encoder.finish(tokens, attend(encoder.qkv(tokens, block))[1], block)
        torch.testing.assert_close(finished, encoder(image), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_walk_through_the_text_tower_gives_what_the_tower_gives(model: Any, tmp_path: Path) -> None:
    encoder = TransformersClipTextEncoder(tmp_path).eval()
    ids, mask = ReportTokenizer.load(tmp_path)(SENTENCES[:1])
    if model.config.model_type == "clip":
        ids, mask = (torch.nn.functional.pad(entry, (0, 3)) for entry in (ids, mask))
    assert has_text_attention(encoder)
    report = encoder.read(ids, mask)
    tokens = report.entering
    for block in range(encoder.num_blocks):
        tokens = encoder.leave(tokens, attend(encoder.qkv(tokens, block), report.mask)[1], block)
    torch.testing.assert_close(encoder.pool(tokens, report.pooled), encoder(ids, mask), atol=1e-5, rtol=1e-5)
    assert report.positions[report.positions >= 0].tolist() == list(range(int(mask.sum())))


def test_another_image_size_interpolates_the_positions(tmp_path: Path) -> None:
    model = save_clip(tmp_path)
    clip = CLIP.from_transformers(tmp_path, image_size=(48, 64)).eval()
    assert clip.image_encoder.grid_size == (6, 8)
    image = torch.rand(1, 3, 48, 64)
    expected = model.get_image_features(image, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(clip.image_encoder(image), expected)


def test_siglip_refuses_less_than_its_context(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    encoder, ids = TransformersClipTextEncoder(tmp_path), torch.ones(1, 21, dtype=torch.long)
    with pytest.raises(ValueError, match="reads all 20 positions, but the batch has 9"):
        encoder(ids[:, :9], ids[:, :9])
    with pytest.raises(ValueError, match="21 tokens do not fit this tower's 20"):
        encoder(ids, ids)


def test_weights_are_shared_by_a_model_in_memory_and_fit_a_checkpoint_of_the_same_clip(tmp_path: Path) -> None:
    save_clip(tmp_path)
    model: Any = load_transformers_clip(tmp_path)
    assert TransformersClipTextEncoder(model).model is model.text_model
    clip, other = CLIP.from_transformers(tmp_path), CLIP.from_transformers(tmp_path)
    with torch.no_grad():
        clip.image_encoder.projection.weight.mul_(2)
    torch.save(clip.state_dict(), tmp_path / "model.pt")
    other.load(tmp_path / "model.pt")
    assert torch.equal(other.image_encoder.projection.weight, clip.image_encoder.projection.weight)


def test_what_is_no_complete_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_transformers_clip(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'bert', not one of clip, siglip"):
        load_transformers_clip(tmp_path)
    save_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of CLIPModel: text_projection\.weight"):
        load_transformers_clip(tmp_path)


def test_a_pretrained_clip_is_never_random(tmp_path: Path) -> None:
    save_clip(tmp_path)
    loaded = CLIP.from_pretrained(tmp_path, library="transformers", image_size=48)
    assert loaded.image_encoder.image_size == (48, 48)
    with pytest.raises(ValueError, match="ViT-B-32 names an architecture, which is random without weights"):
        CLIP.from_pretrained("ViT-B-32", library="open_clip")
    for library in ("transformers", "open_clip"):
        with pytest.raises(ValueError, match="brings its own weights: leave out weights='openai'"):
            CLIP.from_pretrained(tmp_path, library=library, weights="openai")
    with pytest.raises(ValueError, match="'timm' is not one of open_clip, transformers"):
        CLIP.from_pretrained(tmp_path, library="timm")


@pytest.mark.parametrize(
    ("tokenizer_class", "cleaned"),
    [
        ("SiglipTokenizer", "no pleural effusion the heart isnt enlarged normal size"),
        ("GemmaTokenizer", "no pleural effusion; the heart isn't enlarged (normal size)."),
        ("PreTrainedTokenizerFast", "No pleural effusion; the heart isn't enlarged (normal size)."),
    ],
)
def test_siglip_text_is_cleaned_as_its_tokenizer_class_would(
    tmp_path: Path, tokenizer_class: str, cleaned: str
) -> None:
    save_siglip(tmp_path, tokenizer_class=tokenizer_class)
    tokenizer = ReportTokenizer.load(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": "TokenizersBackend"}
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "plain" / "tokenizer_config.json").write_text(json.dumps(config))
    plain = ReportTokenizer.load(tmp_path / "plain")
    assert len(plain.encode("a").input_ids) < 20  # no SigLIP is known there
    expected = AutoTokenizer.from_pretrained(tmp_path / "plain")(
        cleaned, padding="max_length", truncation=True, max_length=20
    )
    text = "No pleural effusion; the heart isn't enlarged (normal size)."
    assert tokenizer.encode(text).input_ids.tolist() == expected["input_ids"]
    tokenizer.save(tmp_path / "saved")
    assert torch.equal(ReportTokenizer.load(tmp_path / "saved")([text]).input_ids, tokenizer([text]).input_ids)


def test_siglip_spans_point_into_the_report_and_padding_nowhere(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    tokenizer = ReportTokenizer.load(tmp_path)
    text = "No, MASS;\n\nnone."
    ids, spans = tokenizer.encode(text)
    assert len(ids) == 20
    assert tokenizer([text]).attention_mask.all()
    pieces = list(zip(tokenizer.tokens(ids), spans.tolist(), strict=True))
    letters = "".join(text[start:end] for _, (start, end) in pieces if end > start)
    assert "".join(letter for letter in letters if letter.isalpha()) == "NoMASSnone"
    for piece, (start, end) in pieces:
        if piece.isalpha():
            assert text[start:end].lower() == piece
    assert (spans[ids == tokenizer.pad_id] == -1).all()
    assert len(tokenizer.encode(text, max_length=4).input_ids) == 20
    assert tokenizer.count(text) < 20


def test_siglip_without_a_tokenizer_file_says_what_is_missing(tmp_path: Path) -> None:
    save_siglip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer\.json that can be read"):
        ReportTokenizer.load(tmp_path)
