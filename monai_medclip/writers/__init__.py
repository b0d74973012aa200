"""Pictures, pages and files that people and archives read."""

from monai_medclip.writers.breakdown import breakdown_figure
from monai_medclip.writers.colors import COLOR_MAPS
from monai_medclip.writers.confusion import confusion_figure
from monai_medclip.writers.dicom import DICOM_KINDS, dicom_bytes, dicom_results, write_dicom_results
from monai_medclip.writers.dicom_bands import heat_band_names, heat_bands
from monai_medclip.writers.dicom_source import DicomSource, dicom_source
from monai_medclip.writers.dicom_statements import DicomStatements, Statement
from monai_medclip.writers.dicom_store import ArchiveStore, DicomStore, FolderStore, RefusedError
from monai_medclip.writers.figure import overlay_figure
from monai_medclip.writers.figures_page import Picture, Section, figures_page
from monai_medclip.writers.glossary import glossary, terms_in
from monai_medclip.writers.grid import grid_figure
from monai_medclip.writers.heat import Heat, heats_of, min_max_scaled
from monai_medclip.writers.intervals import IntervalRow, interval_figure, subgroup_figure
from monai_medclip.writers.learning_curve import FewShot, few_shot_figure
from monai_medclip.writers.maps import MapFiles, scanner_maps, write_maps, write_scanner_maps
from monai_medclip.writers.mip import mip_figure
from monai_medclip.writers.overlay import OverlayStyle, overlay, tint, unit_image
from monai_medclip.writers.page import Panel, explanation_page, figure_panel, overlay_panel
from monai_medclip.writers.recall import recall_figure
from monai_medclip.writers.reliability import reliability_figure
from monai_medclip.writers.report_text import TintedReport, report_figure, report_html
from monai_medclip.writers.roc import roc_figure
from monai_medclip.writers.saving import save_figure, write_whole
from monai_medclip.writers.similar_cases import similar_cases_figure
from monai_medclip.writers.sweep import SweepRun, sweep_figure, varied_settings
from monai_medclip.writers.tables import Table, figure_text, table_of
from monai_medclip.writers.thumbnails import thumbnail
from monai_medclip.writers.truth import Truth
from monai_medclip.writers.volume import montage_figure, orthogonal_figure
from monai_medclip.writers.wrong_answers import (
    IMAGE_QUERY,
    TEXT_QUERY,
    WrongAnswer,
    wrong_answers_figure,
    wrong_answers_section,
)

__all__ = [
    "COLOR_MAPS",
    "DICOM_KINDS",
    "IMAGE_QUERY",
    "TEXT_QUERY",
    "ArchiveStore",
    "DicomSource",
    "DicomStatements",
    "DicomStore",
    "FewShot",
    "FolderStore",
    "Heat",
    "IntervalRow",
    "MapFiles",
    "OverlayStyle",
    "Panel",
    "Picture",
    "RefusedError",
    "Section",
    "Statement",
    "SweepRun",
    "Table",
    "TintedReport",
    "Truth",
    "WrongAnswer",
    "breakdown_figure",
    "confusion_figure",
    "dicom_bytes",
    "dicom_results",
    "dicom_source",
    "explanation_page",
    "few_shot_figure",
    "figure_panel",
    "figure_text",
    "figures_page",
    "glossary",
    "grid_figure",
    "heat_band_names",
    "heat_bands",
    "heats_of",
    "interval_figure",
    "min_max_scaled",
    "mip_figure",
    "montage_figure",
    "orthogonal_figure",
    "overlay",
    "overlay_figure",
    "overlay_panel",
    "recall_figure",
    "reliability_figure",
    "report_figure",
    "report_html",
    "roc_figure",
    "save_figure",
    "scanner_maps",
    "similar_cases_figure",
    "subgroup_figure",
    "sweep_figure",
    "table_of",
    "terms_in",
    "thumbnail",
    "tint",
    "unit_image",
    "varied_settings",
    "write_dicom_results",
    "write_maps",
    "write_scanner_maps",
    "write_whole",
    "wrong_answers_figure",
    "wrong_answers_section",
]
