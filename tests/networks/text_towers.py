"""Tiny real text towers of every library and pooling, and reports for them as ids, mask and character spans."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from transformers import BertConfig, RobertaConfig, XLMRobertaConfig

from monai_medclip.networks import CLIP, OpenClipTextEncoder, SmallViT, TransformersTextEncoder

START, END, CONTEXT = 1, 59, 24
SIZES = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
DEEP = {"num_hidden_layers": 3, "max_position_embeddings": 40, "initializer_range": 0.2, "pad_token_id": 0}
BERT = BertConfig(**SIZES, **DEEP)


def open_clip_tower(**options: Any) -> OpenClipTextEncoder:
    sizes = {"context_length": CONTEXT, "vocab_size": 60, "width": 32, "heads": 4, "layers": 3, "output_dim": 24}
    tower = TextTransformer(**{**sizes, **options})
    for embedding in (tower.token_embedding.weight, tower.positional_embedding, tower.cls_emb):
        if embedding is not None:
            nn.init.normal_(embedding, std=0.5)
    return OpenClipTextEncoder(tower)


def bert_tower(pooler: str, *, packed: bool = True, proj: str | None = "mlp") -> OpenClipTextEncoder:
    tower = HFTextEncoder("", 24, config=BERT, pooler_type=pooler, proj_type=proj)
    if pooler != "cls_pooler":
        tower.transformer.pooler = None
    return OpenClipTextEncoder(tower, packed=packed)


TOWERS: dict[str, Callable[[], Any]] = {
    "bert-cls": lambda: TransformersTextEncoder(BERT),
    "bert-mean": lambda: TransformersTextEncoder(BERT, pooling="mean"),
    "bert-cls-padded": lambda: TransformersTextEncoder(BERT, packed=False),
    "roberta-cls": lambda: TransformersTextEncoder(RobertaConfig(**SIZES, **{**DEEP, "pad_token_id": 3})),
    "roberta-mean-padded": lambda: TransformersTextEncoder(
        RobertaConfig(**SIZES, **DEEP), packed=False, pooling="mean"
    ),
    "xlm-roberta-mean": lambda: TransformersTextEncoder(XLMRobertaConfig(**SIZES, **DEEP), pooling="mean"),
    "clip": open_clip_tower,
    "clip-eos": lambda: open_clip_tower(pool_type="eos", eos_id=END, proj_bias=True),
    "clip-first-unmasked": lambda: open_clip_tower(pool_type="first", no_causal_mask=True, use_pad_mask=True),
    "clip-scaled": lambda: open_clip_tower(ls_init_value=0.5, proj_type="none", output_dim=None),
    "coca": lambda: open_clip_tower(embed_cls=True),
    "siglip": lambda: open_clip_tower(no_causal_mask=True, pool_type="last", proj_bias=True),
    "open-clip-bert-cls": lambda: bert_tower("cls_last_hidden_state_pooler"),
    "open-clip-bert-mean-padded": lambda: bert_tower("mean_pooler", packed=False),
    "open-clip-bert-tanh": lambda: bert_tower("cls_pooler", proj="linear"),
}
MEAN_POOLED = {name for name in TOWERS if "mean" in name}


def tiny_pair(name: str) -> CLIP:
    """A CLIP of a tiny ViT and one of the towers, in evaluation mode."""
    return CLIP(SmallViT(32, width=32, depth=1, num_heads=2, patch_drop=0.0), TOWERS[name](), embed_dim=24).eval()


def encode(text: str, *, padded_to: int = 0) -> tuple[Tensor, Tensor]:
    """Ids (N,) and spans (N, 2): a start, pieces of at most four letters, marks, an end, and padding."""
    ids, spans = [START], [(-1, -1)]
    for match in re.finditer(r"\w{1,4}|[^\w\s]", text):
        ids.append(5 + zlib.crc32(match.group().lower().encode()) % 50)
        spans.append(match.span())
    missing = max(padded_to - len(ids) - 1, 0)
    return torch.tensor([*ids, END, *[0] * missing]), torch.tensor([*spans, *[(-1, -1)] * (missing + 1)])


def report_for(name: str, text: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, spans and mask of a report as that tower's own tokenizer gives them: SigLIP reads its padding."""
    ids, spans = encode(text, padded_to=CONTEXT if name == "siglip" else 0)
    return ids, spans, torch.ones_like(ids)
