"""Audits: what else could explain a figure, from raw pixels to wording."""

from __future__ import annotations

from monai_medclip.audits.pixels import PixelBaselines, dataset_baselines, pixel_baselines

__all__ = ["PixelBaselines", "dataset_baselines", "pixel_baselines"]
