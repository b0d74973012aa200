"""Freezing and learning rates: every weight in one group, none forgotten, frozen ones still."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from transformers import BertConfig, BertModel

from monai_medclip.networks import CLIP, MonaiImageEncoder, TimmImageEncoder, freeze_parts, parameter_groups
from monai_medclip.networks.freezing import layer_depths

from .toys import BagOfWords, tiny_clip, tokenize


def test_every_trained_weight_is_in_exactly_one_group() -> None:
    clip = tiny_clip()
    weights = [id(weight) for group in parameter_groups(clip, 1e-3, 0.1, layer_decay=0.5) for weight in group["params"]]
    assert sorted(weights) == sorted(id(weight) for weight in clip.parameters())


def test_learning_rate_falls_by_the_decay_per_layer() -> None:
    clip = tiny_clip()  # stem, 2 blocks, norm: 3, 2, 1 and 0 layers below the top
    rates = {id(w): g["lr"] for g in parameter_groups(clip, 1.0, layer_decay=0.5) for w in g["params"]}
    trunk = clip.image_encoder.trunk
    assert rates[id(trunk.cls_token)] == 0.125
    assert rates[id(trunk.patch_embed.stem[0].weight)] == 0.125
    assert rates[id(trunk.blocks[0].attn.qkv.weight)] == 0.25
    assert rates[id(trunk.blocks[1].attn.qkv.weight)] == 0.5
    assert rates[id(trunk.norm.weight)] == 1.0
    assert rates[id(clip.image_projection.weight)] == 1.0
    assert rates[id(clip.log_scale)] == 1.0


def test_norms_biases_positions_and_scale_are_not_decayed() -> None:
    clip = tiny_clip()
    decay = {id(w): g["weight_decay"] for g in parameter_groups(clip, 1.0, 0.1) for w in g["params"]}
    trunk = clip.image_encoder.trunk
    for weight in (trunk.norm.weight, trunk.blocks[0].mlp.fc1.bias, trunk.pos_embed, trunk.cls_token, clip.log_scale):
        assert decay[id(weight)] == 0
    assert decay[id(trunk.blocks[0].mlp.fc1.weight)] == decay[id(clip.text_projection.weight)] == 0.1


def test_frozen_encoder_does_not_move_and_has_no_dropout() -> None:
    clip = tiny_clip()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(clip, 0.1, freeze=["text_encoder", "log_scale"]))
    clip.train()
    tokens = tokenize(["There is a nodule.", "The lungs are clear."])
    assert torch.equal(clip.encode_text(*tokens), clip.encode_text(*tokens))
    output = clip(torch.rand(2, 1, 32, 32), *tokens)
    (output.logit_scale * output.image @ output.text.T).trace().backward()
    optimizer.step()
    moved = {
        name.partition(".")[0] for name, value in clip.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"image_encoder", "image_projection", "text_projection"}


def test_frozen_running_statistics_stay() -> None:
    clip = CLIP(TimmImageEncoder("resnet10t"), BagOfWords())
    freeze_parts(clip, ["image_encoder"])
    clip.train()
    before = clip.image_encoder.trunk.bn1.running_mean.clone()
    clip.encode_image(torch.rand(2, 3, 64, 64))
    assert torch.equal(clip.image_encoder.trunk.bn1.running_mean, before)


def test_part_of_an_encoder_may_be_frozen_and_a_typing_error_is_found() -> None:
    clip = tiny_clip()
    freeze_parts(clip, ["image_encoder.trunk.blocks.0"])
    frozen = [name for name, weight in clip.named_parameters() if not weight.requires_grad]
    assert frozen
    assert all(name.startswith("image_encoder.trunk.blocks.0.") for name in frozen)
    with pytest.raises(ValueError, match="'image_encode': parts of CLIP are image_encoder, text_encoder"):
        freeze_parts(clip, ["image_encode"])
    with pytest.raises(ValueError, match="nothing is left"):
        parameter_groups(clip, 1.0, freeze=[name for name, _ in clip.named_parameters()])
    with pytest.raises(ValueError, match="layer_decay 0"):
        parameter_groups(clip, 1.0, layer_decay=0)


def bert() -> nn.Module:
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=20)
    return BertModel(config, add_pooling_layer=False)


def open_clip_text() -> nn.Module:
    from open_clip.transformer import TextTransformer

    return TextTransformer(context_length=8, vocab_size=20, width=16, heads=2, layers=2, output_dim=8)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (bert, {"embeddings.word_embeddings.weight": 0, "encoder.layer.1.attention.self.query.weight": 2}),
        (open_clip_text, {"token_embedding.weight": 0, "transformer.resblocks.0.ln_1.weight": 1, "text_projection": 3}),
        (lambda: timm.create_model("resnet10t"), {"conv1.0.weight": 0, "layer4.0.conv1.weight": 4, "fc.weight": 5}),
        (
            lambda: MonaiImageEncoder("densenet121").trunk,
            {"features.conv0.weight": 0, "features.denseblock4.denselayer1.layers.conv1.weight": 4},
        ),
    ],
)
def test_depths_follow_each_librarys_names(build, names: dict[str, int]) -> None:
    depths = layer_depths(build())
    assert {name: depths[name] for name in names} == names
