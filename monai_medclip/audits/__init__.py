"""Audits: what else could explain a figure, from raw pixels to wording."""

from __future__ import annotations

from monai_medclip.audits.covariate import CovariateBaseline, covariate_baseline, item_values
from monai_medclip.audits.pixels import PixelBaselines, dataset_baselines, pixel_baselines

__all__ = [
    "CovariateBaseline",
    "PixelBaselines",
    "covariate_baseline",
    "dataset_baselines",
    "item_values",
    "pixel_baselines",
]
