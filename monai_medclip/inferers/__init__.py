"""MONAI inferers around explainers: maps that carry the geometry of their image."""

from monai_medclip.inferers.heatmap import HeatmapInferer

__all__ = ["HeatmapInferer"]
