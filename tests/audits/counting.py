"""A CLIP that counts words on both sides, so that cosines can be worked out by hand: an image is what it shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from monai_medclip.networks import CLIP
from monai_medclip.outputs import TokenBatch

HEARD = {"nodule": 1, "effusion": 2, "no": 3, "negative": 3, "left": 4, "right": 5, "spot": 6}
WIDTH = 7


class WordCounts(nn.Module):
    width = WIDTH

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (nn.functional.one_hot(input_ids, WIDTH) * attention_mask[..., None]).sum(1).float() + 1e-6


class Flatten(nn.Module):
    width = WIDTH

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


def counting_clip() -> CLIP:
    clip = CLIP(Flatten(), WordCounts(), embed_dim=WIDTH)
    for projection in (clip.image_projection, clip.text_projection):
        nn.init.eye_(projection.weight)
    return clip


def tokenizer(heard: Mapping[str, int] = HEARD) -> Callable[[list[str]], TokenBatch]:
    """Words that it hears, others dropped."""

    def tokenize(texts: list[str]) -> TokenBatch:
        words = [[heard[word] for word in re.findall(r"[a-z]+", text.lower()) if word in heard] for text in texts]
        ids = torch.zeros(len(texts), max(1, *map(len, words)), dtype=torch.long)
        for row, found in zip(ids, words, strict=True):
            row[: len(found)] = torch.tensor(found, dtype=torch.long)
        return TokenBatch(ids, (ids > 0).long())

    return tokenize


def seen(*texts: str) -> Tensor:
    """Unit embeddings of images that show these words."""
    batch = tokenizer()(list(texts))
    return counting_clip().encode_text(batch.input_ids, batch.attention_mask).detach()
