"""MONAI inferers around explainers: maps that carry the geometry of their image."""

from monai_medclip.inferers.heatmap import HeatmapInferer
from monai_medclip.inferers.nodule_scan import NoduleScan

__all__ = ["HeatmapInferer", "NoduleScan"]
