"""Losses on pairs of embeddings: every one is called with (CLIPOutput, positives (B,)) and returns a scalar."""

from __future__ import annotations

from monai_medclip.losses.contrastive import ContrastiveLoss
from monai_medclip.losses.siglip import SigLIPLoss

__all__ = ["ContrastiveLoss", "SigLIPLoss"]
