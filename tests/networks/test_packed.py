"""Packed text is padded text: same outputs, same gradients, no padding computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from monai_medclip.networks import packed
from monai_medclip.networks.packed import is_packable, packed_tokens

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
LENGTHS = [5, 12, 1, 9, 20]


def bert(**options: object) -> BertModel:
    return BertModel(BertConfig(**SIZES, **options), add_pooling_layer=False)


def roberta() -> RobertaModel:
    return RobertaModel(RobertaConfig(**SIZES, pad_token_id=1), add_pooling_layer=False)


def batch(pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return torch.where(mask.bool(), torch.randint(5, 60, mask.shape), pad_id), mask


def padded_pool(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden[:, 0] if pooling == "cls" else (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def gradients(model: nn.Module, pooled: torch.Tensor, direction: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (pooled * direction).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attend", ["_attend_each", "_attend_padded"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("make, pad_id", [(bert, 0), (roberta, 1)], ids=["bert", "roberta"])
def test_outputs_and_gradients_equal_padded_text(make, pad_id, pooling, attend, monkeypatch):
    monkeypatch.setattr(packed, "_attend_each", getattr(packed, attend))
    model, (ids, mask) = make().eval(), batch(pad_id)
    direction = torch.randn(len(LENGTHS), 32)
    whole = padded_pool(model, ids, mask, pooling)
    expected = gradients(model, whole, direction)
    short = packed_tokens(model, ids, mask, pooling=pooling)
    found = gradients(model, short, direction)
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_equal_to_padded_text_in_double_precision():
    model, (ids, mask) = bert().eval().double(), batch()
    difference = packed_tokens(model, ids, mask) - padded_pool(model, ids, mask, "cls")
    assert difference.abs().max() < 1e-12


def test_masked_tokens_anywhere_keep_their_columns_positions():
    model, (ids, _) = bert().eval(), batch()
    mask = torch.ones_like(ids)
    mask[:, 3:6] = 0
    torch.testing.assert_close(packed_tokens(model, ids, mask), padded_pool(model, ids, mask, "cls"))


def test_a_report_does_not_depend_on_its_neighbors_or_its_padding():
    model, (ids, mask) = bert().eval(), batch()
    together = packed_tokens(model, ids, mask)
    torch.testing.assert_close(packed_tokens(model, ids.flip(0), mask.flip(0)), together.flip(0))
    torch.testing.assert_close(packed_tokens(model, ids[1:2, :12], mask[1:2, :12]), together[1:2])
    torch.testing.assert_close(packed_tokens(model, ids + (1 - mask) * 7, mask), together)


def test_linear_layers_see_real_tokens_only():
    model, (ids, mask) = bert().eval(), batch()
    rows = []
    handles = [
        layer.intermediate.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
        for layer in model.encoder.layer
    ]
    packed_tokens(model, ids, mask, pooling="cls")
    assert rows == [sum(LENGTHS), sum(LENGTHS), len(LENGTHS)]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("attend", ["_attend_each", "_attend_padded"])
def test_dropout_acts_in_training_only(attend, monkeypatch):
    monkeypatch.setattr(packed, "_attend_each", getattr(packed, attend))
    model, (ids, mask) = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5), batch()
    model.train()
    assert not torch.equal(packed_tokens(model, ids, mask), packed_tokens(model, ids, mask))
    model.eval()
    assert torch.equal(packed_tokens(model, ids, mask), packed_tokens(model, ids, mask))


def test_a_report_without_tokens_is_refused():
    ids, mask = batch()
    mask[2] = 0
    with pytest.raises(ValueError, match="Report 2 of the batch has no token"):
        packed_tokens(bert(), ids, mask)


def test_other_architectures_are_not_packable():
    assert is_packable(bert())
    assert not is_packable(bert(is_decoder=True))
    assert not is_packable(
        DistilBertModel(DistilBertConfig(vocab_size=60, dim=32, n_heads=4, n_layers=1, hidden_dim=32))
    )


@pytest.mark.parametrize("attend", ["_attend_each", "_attend_padded"])
def test_bfloat16_autocast_stays_close(attend, monkeypatch):
    monkeypatch.setattr(packed, "_attend_each", getattr(packed, attend))
    model, (ids, mask) = bert().eval(), batch()
    exact = packed_tokens(model, ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = packed_tokens(model, ids, mask)
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.05)
