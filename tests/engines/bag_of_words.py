"""A CLIP whose embeddings are known: an image is a bag of words, as a text is, so cosines can be counted by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_medclip.networks import CLIP
from monai_medclip.outputs import TokenBatch

WORDS = ("<pad>", "nodule", "mass", "no", "spot", "lump", "clear", "heart", "lungs", "normal")
WIDTH = len(WORDS)


def tokenizer(texts: list[str]) -> TokenBatch:
    """Words of the list, others dropped."""
    kept = [[WORDS.index(word) for word in text.lower().strip(".").split() if word in WORDS] for text in texts]
    ids = torch.zeros(len(kept), max(1, *map(len, kept)), dtype=torch.long)
    for row, words in zip(ids, kept, strict=True):
        row[: len(words)] = torch.tensor(words)
    return TokenBatch(ids, (ids > 0).long())


class WordCounts(nn.Module):
    width = WIDTH

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (nn.functional.one_hot(input_ids, WIDTH) * attention_mask[..., None]).sum(1).float() + 1e-6


class Pixels(nn.Module):
    width = WIDTH

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def counting_clip(logit_bias: float | None = None) -> CLIP:
    clip = CLIP(Pixels(), WordCounts(), embed_dim=WIDTH, logit_bias=logit_bias)
    for projection in (clip.image_projection, clip.text_projection):
        nn.init.eye_(projection.weight)
    return clip


def item(number: int, seen: str, text: str, label: list[float]) -> dict:
    """An item whose image shows some words and whose report says others."""
    image = sum(nn.functional.one_hot(torch.tensor(WORDS.index(word)), WIDTH) for word in seen.split()).float()
    tokens = tokenizer([text])
    ids = torch.zeros(6, dtype=torch.long)
    ids[: tokens.input_ids.shape[1]] = tokens.input_ids[0]
    return {
        "id": f"i{number}",
        "patient_id": f"p{number // 2}",
        "image": image.reshape(1, 2, WIDTH // 2),
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "positives": torch.tensor(sum(ord(letter) for letter in text)),
        "label": torch.tensor(label),
    }
