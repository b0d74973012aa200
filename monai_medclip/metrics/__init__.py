"""How good is it: retrieval and classification with chance, ceilings and intervals beside every figure."""

from __future__ import annotations

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
from monai_medclip.metrics.epoch import ClassificationMetric, EpochMetric, RetrievalMetric
from monai_medclip.metrics.retrieval import DirectionReport, ProtocolReport, RetrievalReport, retrieval

__all__ = [
    "ClassificationMetric",
    "ClassificationReport",
    "DirectionReport",
    "EpochMetric",
    "FindingReport",
    "Interval",
    "ProtocolReport",
    "RetrievalMetric",
    "RetrievalReport",
    "Tercile",
    "TercileReport",
    "auc_by_tercile",
    "classification",
    "retrieval",
    "youden_threshold",
]
