"""How good is it: retrieval and classification with chance, ceilings and intervals beside every figure."""

from __future__ import annotations

from monai_medclip.metrics.calibration import CalibrationReport, ReliabilityBin, calibration, fit_temperature
from monai_medclip.metrics.classification import (
    ClassificationReport,
    FindingReport,
    Interval,
    Tercile,
    TercileReport,
    auc_by_tercile,
    classification,
    youden_threshold,
)
from monai_medclip.metrics.comparison import AUCDifference, delong, holm
from monai_medclip.metrics.epoch import ClassificationMetric, EpochMetric, RetrievalMetric
from monai_medclip.metrics.localization import (
    Localization,
    LocalizationFigure,
    Overlap,
    binarize,
    contrast_to_noise,
    energy_in_mask,
    grid_ceiling,
    localization_figure,
    localize,
    overlap,
    pointing_chance,
    pointing_game,
)
from monai_medclip.metrics.retrieval import DirectionReport, ProtocolReport, RetrievalReport, retrieval
from monai_medclip.metrics.subgroups import Subgroup, subgroups

__all__ = [
    "AUCDifference",
    "CalibrationReport",
    "ClassificationMetric",
    "ClassificationReport",
    "DirectionReport",
    "EpochMetric",
    "FindingReport",
    "Interval",
    "Localization",
    "LocalizationFigure",
    "Overlap",
    "ProtocolReport",
    "ReliabilityBin",
    "RetrievalMetric",
    "RetrievalReport",
    "Subgroup",
    "Tercile",
    "TercileReport",
    "auc_by_tercile",
    "binarize",
    "calibration",
    "classification",
    "contrast_to_noise",
    "delong",
    "energy_in_mask",
    "fit_temperature",
    "grid_ceiling",
    "holm",
    "localization_figure",
    "localize",
    "overlap",
    "pointing_chance",
    "pointing_game",
    "retrieval",
    "subgroups",
    "youden_threshold",
]
