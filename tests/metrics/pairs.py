"""Embeddings of images and texts that know nothing of each other."""

from __future__ import annotations

import torch


def random_pairs(n: int, width: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator), torch.randn(n, width, generator=generator)
