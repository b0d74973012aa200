"""Which cases exist: readers that make lists of plain dicts, splits by patient, and what would leak across them."""

from __future__ import annotations

from monai_medclip.data.covariates import AGE_BANDS, age_band, subgroup_values
from monai_medclip.data.ct_folder import read_ct_folder
from monai_medclip.data.ct_rate import CT_RATE_FINDINGS, read_ct_rate
from monai_medclip.data.derm7pt import DERM7PT_DIAGNOSES, DERM7PT_GROUPS, diagnosis_group, read_derm7pt
from monai_medclip.data.derm_captions import CRITERIA, LESION_COLORS, criteria_caption
from monai_medclip.data.dicom_archive import Archive, is_archive
from monai_medclip.data.dicom_errors import ArchiveError
from monai_medclip.data.dicom_fetch import case_folder, link_file
from monai_medclip.data.dicom_query import (
    DicomCase,
    DicomCases,
    DicomInstance,
    LeftOut,
    archive_cases,
    folder_cases,
    parse_query,
)
from monai_medclip.data.features import feature_items
from monai_medclip.data.fingerprints import Fingerprint, NearDuplicate, fingerprint, fingerprint_files, near_duplicates
from monai_medclip.data.images import image_items
from monai_medclip.data.iu_xray import IU_XRAY_SIZES, IUReport, parse_iu_report, read_iu_xray
from monai_medclip.data.labels import LIDC_FINDINGS, label_vector, matches_rule
from monai_medclip.data.lidc import read_lidc
from monai_medclip.data.lidc_words import (
    NODULE_CHARACTERISTICS,
    ReaderConsensus,
    nodule_sentences,
    rating_words,
    reader_consensus,
)
from monai_medclip.data.lidc_xml import LIDCContour, LIDCReading, LIDCScan, parse_lidc_xml
from monai_medclip.data.manifest import ManifestError, positives_by, read_manifest, text_key
from monai_medclip.data.nodule_backgrounds import BACKGROUND_TEXT, nodule_backgrounds
from monai_medclip.data.nodule_items import nodule_items
from monai_medclip.data.nodule_masks import read_nodule_masks
from monai_medclip.data.nodule_points import NodulePoint, read_nodule_csv, read_nodule_json
from monai_medclip.data.partitions import Partition, partition
from monai_medclip.data.ph2 import PH2_DIAGNOSES, read_ph2
from monai_medclip.data.phantom import make_phantom
from monai_medclip.data.phantom_lesions import Lesion
from monai_medclip.data.phantom_patient import PhantomPatient
from monai_medclip.data.phantom_xray import XRay
from monai_medclip.data.rejected import Rejected, read_rejected, write_rejected
from monai_medclip.data.splits import (
    Leak,
    LeakError,
    SplitRow,
    check_splits,
    find_leaks,
    read_split_manifest,
    split_by_patient,
    write_split_manifest,
)

__all__ = [
    "AGE_BANDS",
    "BACKGROUND_TEXT",
    "CRITERIA",
    "CT_RATE_FINDINGS",
    "DERM7PT_DIAGNOSES",
    "DERM7PT_GROUPS",
    "IU_XRAY_SIZES",
    "LESION_COLORS",
    "LIDC_FINDINGS",
    "NODULE_CHARACTERISTICS",
    "PH2_DIAGNOSES",
    "Archive",
    "ArchiveError",
    "DicomCase",
    "DicomCases",
    "DicomInstance",
    "Fingerprint",
    "IUReport",
    "LIDCContour",
    "LIDCReading",
    "LIDCScan",
    "Leak",
    "LeakError",
    "LeftOut",
    "Lesion",
    "ManifestError",
    "NearDuplicate",
    "NodulePoint",
    "Partition",
    "PhantomPatient",
    "ReaderConsensus",
    "Rejected",
    "SplitRow",
    "XRay",
    "age_band",
    "archive_cases",
    "case_folder",
    "check_splits",
    "criteria_caption",
    "diagnosis_group",
    "feature_items",
    "find_leaks",
    "fingerprint",
    "fingerprint_files",
    "folder_cases",
    "image_items",
    "is_archive",
    "label_vector",
    "link_file",
    "make_phantom",
    "matches_rule",
    "near_duplicates",
    "nodule_backgrounds",
    "nodule_items",
    "nodule_sentences",
    "parse_iu_report",
    "parse_lidc_xml",
    "parse_query",
    "partition",
    "positives_by",
    "rating_words",
    "read_ct_folder",
    "read_ct_rate",
    "read_derm7pt",
    "read_iu_xray",
    "read_lidc",
    "read_manifest",
    "read_nodule_csv",
    "read_nodule_json",
    "read_nodule_masks",
    "read_ph2",
    "read_rejected",
    "read_split_manifest",
    "reader_consensus",
    "split_by_patient",
    "subgroup_values",
    "text_key",
    "write_rejected",
    "write_split_manifest",
]
