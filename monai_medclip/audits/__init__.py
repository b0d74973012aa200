"""Audits: what else could explain a figure, from raw pixels to wording."""

from __future__ import annotations

from monai_medclip.audits.covariate import CovariateBaseline, covariate_baseline, item_values
from monai_medclip.audits.localization import (
    CounterfactualHeat,
    LesionCases,
    counterfactual_heat,
    heatmaps_of,
    localization_rows,
)
from monai_medclip.audits.pixels import PixelBaselines, dataset_baselines, pixel_baselines

__all__ = [
    "CounterfactualHeat",
    "CovariateBaseline",
    "LesionCases",
    "PixelBaselines",
    "counterfactual_heat",
    "covariate_baseline",
    "dataset_baselines",
    "heatmaps_of",
    "item_values",
    "localization_rows",
    "pixel_baselines",
]
