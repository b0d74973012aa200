"""Pictures, pages and files that people and archives read."""

from monai_medclip.writers.colors import COLOR_MAPS
from monai_medclip.writers.figure import overlay_figure
from monai_medclip.writers.grid import grid_figure
from monai_medclip.writers.heat import Heat, heats_of, min_max_scaled
from monai_medclip.writers.maps import MapFiles, scanner_maps, write_maps
from monai_medclip.writers.overlay import OverlayStyle, overlay, tint, unit_image
from monai_medclip.writers.page import Panel, explanation_page, figure_panel, overlay_panel
from monai_medclip.writers.reliability import reliability_figure
from monai_medclip.writers.report_text import TintedReport, report_figure, report_html
from monai_medclip.writers.saving import save_figure, write_whole
from monai_medclip.writers.truth import Truth
from monai_medclip.writers.volume import montage_figure, orthogonal_figure

__all__ = [
    "COLOR_MAPS",
    "Heat",
    "MapFiles",
    "OverlayStyle",
    "Panel",
    "TintedReport",
    "Truth",
    "explanation_page",
    "figure_panel",
    "grid_figure",
    "heats_of",
    "min_max_scaled",
    "montage_figure",
    "orthogonal_figure",
    "overlay",
    "overlay_figure",
    "overlay_panel",
    "reliability_figure",
    "report_figure",
    "report_html",
    "save_figure",
    "scanner_maps",
    "tint",
    "unit_image",
    "write_maps",
    "write_whole",
]
