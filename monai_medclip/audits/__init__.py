"""Audits: what else could explain a figure, from raw pixels to wording."""

from __future__ import annotations

from monai_medclip.audits.covariate import CovariateBaseline, covariate_baseline, item_values
from monai_medclip.audits.duplicates import duplicates
from monai_medclip.audits.known_sides import KnownSides, known_sides
from monai_medclip.audits.laterality import LATERALITY_TEMPLATES, laterality_audit
from monai_medclip.audits.leakage import leakage
from monai_medclip.audits.localization import (
    CounterfactualHeat,
    LesionCases,
    counterfactual_heat,
    heatmaps_of,
    localization_rows,
)
from monai_medclip.audits.logistic import STRENGTHS, LogisticFit, fit_logistic
from monai_medclip.audits.negation import NEGATION_TEMPLATES, negation_audit
from monai_medclip.audits.pixels import PixelBaselines, dataset_baselines, pixel_baselines
from monai_medclip.audits.prompts import GENERIC_TEMPLATES, PromptFigures, prompt_audit, prompt_figures
from monai_medclip.audits.result import AuditResult
from monai_medclip.audits.shortcut import judge_shortcuts, shortcuts
from monai_medclip.audits.text_baseline import (
    TextBaseline,
    cross_validated_text_auc,
    holds_answer,
    report_text,
    text_only_auc,
)
from monai_medclip.audits.untrained import untrained

__all__ = [
    "GENERIC_TEMPLATES",
    "LATERALITY_TEMPLATES",
    "NEGATION_TEMPLATES",
    "STRENGTHS",
    "AuditResult",
    "CounterfactualHeat",
    "CovariateBaseline",
    "KnownSides",
    "LesionCases",
    "LogisticFit",
    "PixelBaselines",
    "PromptFigures",
    "TextBaseline",
    "counterfactual_heat",
    "covariate_baseline",
    "cross_validated_text_auc",
    "dataset_baselines",
    "duplicates",
    "fit_logistic",
    "heatmaps_of",
    "holds_answer",
    "item_values",
    "judge_shortcuts",
    "known_sides",
    "laterality_audit",
    "leakage",
    "localization_rows",
    "negation_audit",
    "pixel_baselines",
    "prompt_audit",
    "prompt_figures",
    "report_text",
    "shortcuts",
    "text_only_auc",
    "untrained",
]
