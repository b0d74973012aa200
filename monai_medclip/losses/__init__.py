"""Losses: on pairs of embeddings, called with (CLIPOutput, positives (B,)), and on labels, with (logits, labels)."""

from __future__ import annotations

from monai_medclip.losses.contrastive import ContrastiveLoss
from monai_medclip.losses.labels import LabelLoss
from monai_medclip.losses.siglip import SigLIPLoss

__all__ = ["ContrastiveLoss", "LabelLoss", "SigLIPLoss"]
