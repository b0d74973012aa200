"""How one case becomes tensors: reading, windowing, orienting, augmenting, and the report's way to token ids."""

from __future__ import annotations

from monai_medclip.transforms.display_order import CT_DISPLAY_AXES, DisplayOrderd, patient_orientation
from monai_medclip.transforms.tokenize import TokenizeReportd, TokenLengths, collate_reports, token_length_report
from monai_medclip.transforms.tokenizer import EncodedReport, ReportTokenizer

__all__ = [
    "CT_DISPLAY_AXES",
    "DisplayOrderd",
    "EncodedReport",
    "ReportTokenizer",
    "TokenLengths",
    "TokenizeReportd",
    "collate_reports",
    "patient_orientation",
    "token_length_report",
]
