"""How one case becomes tensors: reading, windowing, orienting, augmenting, and the report's way to token ids."""

from __future__ import annotations

from monai_medclip.transforms.body import PATIENT_AXES, BodyMaskd, body_mask, padding_mask
from monai_medclip.transforms.chest_ct import (
    BONE_WINDOW_HU,
    LUNG_WINDOW_HU,
    MEDIASTINUM_WINDOW_HU,
    LoadCTd,
    TakeSliced,
    WindowHUd,
    check_hounsfield,
)
from monai_medclip.transforms.chest_xray import ChestXrayTransform, LoadRadiographd
from monai_medclip.transforms.ct_series import check_ct_series, choose_ct_stack, find_ct_stacks, kernel_kind
from monai_medclip.transforms.dermoscopy import LoadDermoscopyd
from monai_medclip.transforms.dicom import ITKRadiographReader, RadiographReader
from monai_medclip.transforms.display_order import CT_DISPLAY_AXES, DisplayOrderd, patient_orientation
from monai_medclip.transforms.features import LoadFeaturesd
from monai_medclip.transforms.geometry import FitImaged
from monai_medclip.transforms.ground_truth import LoadTruthd
from monai_medclip.transforms.intensity import NormalizeForEncoderd, robust_unit_range
from monai_medclip.transforms.lungs import (
    LEFT_LUNG,
    RIGHT_LUNG,
    CropLungsd,
    LungMaskd,
    find_lung_sides,
    find_lungs,
)
from monai_medclip.transforms.mapped_text import MappedText
from monai_medclip.transforms.nodule import CropNoduled
from monai_medclip.transforms.nodule_center import NoduleCenterd
from monai_medclip.transforms.rejects import BadInputError, CheckedDataset, Rejection, bad_input_cause, write_rejected
from monai_medclip.transforms.report import (
    CleanReportd,
    PositivesFromTextd,
    Section,
    SelectSectionsd,
    identity_hash,
    split_sections,
)
from monai_medclip.transforms.sentences import SampleSentencesd, ShuffleSentencesd, clause_spans, sentence_spans
from monai_medclip.transforms.sides import RandSwapSidesd, swap_sides
from monai_medclip.transforms.tokenize import TokenizeReportd, TokenLengths, collate_reports, token_length_report
from monai_medclip.transforms.tokenizer import EncodedReport, ReportTokenizer

__all__ = [
    "BONE_WINDOW_HU",
    "CT_DISPLAY_AXES",
    "LEFT_LUNG",
    "LUNG_WINDOW_HU",
    "MEDIASTINUM_WINDOW_HU",
    "PATIENT_AXES",
    "RIGHT_LUNG",
    "BadInputError",
    "BodyMaskd",
    "CheckedDataset",
    "ChestXrayTransform",
    "CleanReportd",
    "CropLungsd",
    "CropNoduled",
    "DisplayOrderd",
    "EncodedReport",
    "FitImaged",
    "ITKRadiographReader",
    "LoadCTd",
    "LoadDermoscopyd",
    "LoadFeaturesd",
    "LoadRadiographd",
    "LoadTruthd",
    "LungMaskd",
    "MappedText",
    "NoduleCenterd",
    "NormalizeForEncoderd",
    "PositivesFromTextd",
    "RadiographReader",
    "RandSwapSidesd",
    "Rejection",
    "ReportTokenizer",
    "SampleSentencesd",
    "Section",
    "SelectSectionsd",
    "ShuffleSentencesd",
    "TakeSliced",
    "TokenLengths",
    "TokenizeReportd",
    "WindowHUd",
    "bad_input_cause",
    "body_mask",
    "check_ct_series",
    "check_hounsfield",
    "choose_ct_stack",
    "clause_spans",
    "collate_reports",
    "find_ct_stacks",
    "find_lung_sides",
    "find_lungs",
    "identity_hash",
    "kernel_kind",
    "padding_mask",
    "patient_orientation",
    "robust_unit_range",
    "sentence_spans",
    "split_sections",
    "swap_sides",
    "token_length_report",
    "write_rejected",
]
