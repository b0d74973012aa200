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
from monai_medclip.metrics.clip_score import CLIPScore, InBatchTop1, clip_score, in_batch_top1
from monai_medclip.metrics.comparison import AUCDifference, delong, holm
from monai_medclip.metrics.epoch import ClassificationMetric, EpochMetric, RetrievalMetric
from monai_medclip.metrics.lesion_heat import LesionHeat, lesion_heat, lesion_numbers, peak_mm
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
from monai_medclip.metrics.multiclass import ClassReport, MulticlassReport, multiclass
from monai_medclip.metrics.ranks import ProtocolRanks, QueryRanks, RetrievalRanks, retrieval_ranks
from monai_medclip.metrics.retrieval import DirectionReport, ProtocolReport, RetrievalReport, retrieval
from monai_medclip.metrics.retrieval_breakdown import BreakdownRow, retrieval_breakdown
from monai_medclip.metrics.subgroups import Subgroup, subgroups

__all__ = [
    "AUCDifference",
    "BreakdownRow",
    "CLIPScore",
    "CalibrationReport",
    "ClassReport",
    "ClassificationMetric",
    "ClassificationReport",
    "DirectionReport",
    "EpochMetric",
    "FindingReport",
    "InBatchTop1",
    "Interval",
    "LesionHeat",
    "Localization",
    "LocalizationFigure",
    "MulticlassReport",
    "Overlap",
    "ProtocolRanks",
    "ProtocolReport",
    "QueryRanks",
    "ReliabilityBin",
    "RetrievalMetric",
    "RetrievalRanks",
    "RetrievalReport",
    "Subgroup",
    "Tercile",
    "TercileReport",
    "auc_by_tercile",
    "binarize",
    "calibration",
    "classification",
    "clip_score",
    "contrast_to_noise",
    "delong",
    "energy_in_mask",
    "fit_temperature",
    "grid_ceiling",
    "holm",
    "in_batch_top1",
    "lesion_heat",
    "lesion_numbers",
    "localization_figure",
    "localize",
    "multiclass",
    "overlap",
    "peak_mm",
    "pointing_chance",
    "pointing_game",
    "retrieval",
    "retrieval_breakdown",
    "retrieval_ranks",
    "subgroups",
    "youden_threshold",
]
