"""Report encoders from transformers: pooling, loading from folders, custom code without running it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, DistilBertConfig

from monai_medclip.networks import TransformersTextEncoder

CONFIG = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(9) < torch.tensor([9, 4, 6])[:, None]).long()
    return torch.randint(5, 60, mask.shape) * mask, mask


@pytest.fixture
def folder(tmp_path):
    BertModel(BertConfig(**CONFIG)).save_pretrained(tmp_path)
    return tmp_path


def test_small_encoder_from_words_starts_with_reports_apart():
    torch.manual_seed(0)
    ids = torch.randint(5, 60, (8, 12))

    def similarity(**options):
        encoder = TransformersTextEncoder.small(60, width=64, pooling="mean", dropout=0.0, max_length=16, **options)
        with torch.no_grad():
            made = torch.nn.functional.normalize(encoder(ids, torch.ones_like(ids)), dim=1)
        return float((made @ made.T).mean())

    assert similarity(from_words=True) < 0.7 < 0.8 < similarity()


def test_small_encoder_says_what_it_takes_and_gives(batch):
    encoder = TransformersTextEncoder.small(60, width=32, layers=2, heads=4, max_length=40)
    assert (encoder.width, encoder.vocab_size, encoder.max_length) == (32, 60, 40)
    assert encoder(*batch).shape == (3, 32)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_folder_gives_the_model_that_was_saved(folder, batch, pooling):
    encoder = TransformersTextEncoder(folder, pooling=pooling).eval()
    hidden = BertModel.from_pretrained(folder).eval()(*batch).last_hidden_state
    mask = batch[1][..., None]
    expected = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(encoder(*batch), expected, atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient(folder, batch):
    encoder = TransformersTextEncoder(folder)
    encoder(*batch)[:, 0].sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_packed_and_padded_agree_through_the_encoder(folder, batch):
    packed, padded = (TransformersTextEncoder(folder, packed=packed).eval() for packed in (True, False))
    assert packed.packed
    assert not padded.packed
    torch.testing.assert_close(packed(*batch), padded(*batch), atol=1e-5, rtol=1e-5)


def test_custom_code_model_loads_as_the_bert_inside_without_its_code(folder, batch):
    """CXR-BERT's layout: unknown model type, `bert.` prefix, extra heads, and code that must not run."""
    expected = TransformersTextEncoder(folder).eval()(*batch)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    weights["cls_projection_head.dense_to_hidden.weight"] = torch.zeros(16, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "cxr-bert", "auto_map": {"AutoModel": "evil.Model"}, "projection_size": 16}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    torch.testing.assert_close(TransformersTextEncoder(folder).eval()(*batch), expected)


def test_weights_file_of_torch_loads_and_pickled_code_does_not(folder, batch):
    expected = TransformersTextEncoder(folder).eval()(*batch)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    torch.testing.assert_close(TransformersTextEncoder(folder).eval()(*batch), expected)
    torch.save({**weights, "extra": Unsafe()}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"weights_only|Weights only|Unsupported"):
        TransformersTextEncoder(folder)


class Unsafe:
    def __reduce__(self):
        return (print, ("code ran while loading",))


def test_missing_weights_are_refused_by_name(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        TransformersTextEncoder(folder)


def test_config_only_ignores_the_weights(folder):
    torch.manual_seed(1)
    saved = BertModel.from_pretrained(folder).embeddings.word_embeddings.weight
    fresh = TransformersTextEncoder(folder, pretrained=False).model.embeddings.word_embeddings.weight
    assert not torch.allclose(saved, fresh)


def test_other_architectures_fall_back_to_padded_text(batch):
    config = DistilBertConfig(vocab_size=60, dim=32, n_heads=4, n_layers=1, hidden_dim=32, max_position_embeddings=40)
    encoder = TransformersTextEncoder(config, pooling="mean").eval()
    assert not encoder.packed
    alone = encoder(batch[0][1:2, :4], batch[1][1:2, :4])
    torch.testing.assert_close(encoder(*batch)[1:2], alone, atol=1e-5, rtol=1e-5)


def test_bad_input_names_the_remedy(folder):
    encoder = TransformersTextEncoder(folder)
    with pytest.raises(ValueError, match="Set max_length=40"):
        encoder(torch.ones(1, 41, dtype=torch.long), torch.ones(1, 41))
    with pytest.raises(ValueError, match="pooling='max'"):
        TransformersTextEncoder(folder, pooling="max")
