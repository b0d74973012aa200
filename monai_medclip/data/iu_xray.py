"""IU X-ray (Open-i): the published report XML and its PNG or DICOM images become a list of items."""

from __future__ import annotations

import logging
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.data.labels import as_findings, label_vector
from monai_medclip.data.manifest import text_key
from monai_medclip.data.rejected import Rejected, write_rejected
from monai_medclip.data.splits import split_by_patient

__all__ = ["IU_XRAY_SIZES", "IUReport", "parse_iu_report", "read_iu_xray"]

logger = logging.getLogger(__name__)

IU_XRAY_SIZES: dict[str, int] = {"train": 2725, "val": 584, "test": 585}  # reports, as published: 70 / 15 / 15 %
SECTIONS = ("comparison", "indication", "findings", "impression")
NO_INDEXING = "no indexing"

_SUFFIXES = {"png": (".png", ".jpg", ".jpeg"), "dicom": (".dcm", ".dicom")}
# CXR1_1_IM-0001-3001 (XML, PNG), 1_IM-0001-3001 (DICOM): report number, then the image's own name.
_IMAGE_NAME = re.compile(r"^(?:CXR)?(\d+)(?:_\d+)?_(IM-[\d-]+)", re.IGNORECASE)


class IUReport(NamedTuple):
    """One report of the collection."""

    uid: str  # such as CXR1; one report per patient in this collection
    sections: dict[str, str]  # the non-empty ones of comparison, indication, findings, impression
    problems: tuple[str, ...]  # MeSH major terms, such as ("Opacity/lung/base/left",) or ("normal",)
    images: tuple[str, ...]  # image names without suffix, such as CXR1_1_IM-0001-3001; 0 to 5

    @property
    def label(self) -> str | None:
        """``normal`` only if that is the one major term, None if nobody indexed the report, else ``diseased``."""
        terms = {term.strip().lower() for term in self.problems}
        if not terms or NO_INDEXING in terms:
            return None
        return "normal" if terms == {"normal"} else "diseased"


def parse_iu_report(path: str | Path) -> IUReport:
    """Read one report XML.

    Raises:
        ValueError: not XML, or no ``uId`` in it.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise ValueError(f"{path} is not readable XML ({error}). Unpack NLMCXR_reports.tgz again.") from error
    uid = root.find("uId")
    if uid is None or not uid.get("id"):
        raise ValueError(f"{path} has no uId, so it is no Open-i report. Give the folder ecgen-radiology.")
    sections: dict[str, str] = {}
    for part in root.iter("AbstractText"):
        name, text = (part.get("Label") or "").lower(), " ".join((part.text or "").split())
        if name in SECTIONS and text:
            sections[name] = f"{sections[name]} {text}" if name in sections else text
    problems = tuple(term.text.strip() for term in root.iterfind("MeSH/major") if term.text and term.text.strip())
    images = tuple(image.get("id", "") for image in root.iterfind("parentImage"))
    return IUReport(str(uid.get("id")), sections, problems, images)


def read_iu_xray(
    root: str | Path,
    *,
    images: str = "png",
    text: Sequence[str] = ("findings", "impression"),
    findings: Sequence[str] | Mapping[str, str] = ("diseased",),
    sizes: Mapping[str, float] | None = None,
    seed: int = 0,
    rejected: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Read the published folders: report XML anywhere under `root`, images anywhere under it too.

    One item per image. Of the 3,955 reports 104 have no image, 92 of the rest (95 of all) are ``no indexing``, neither
    normal nor diseased, and 25 have neither findings nor impression: dropped and counted, as are images that are named
    but absent. 3,734 reports with 7,258 images remain. The collection has one report per patient (its DICOM headers say
    so too), so patient, study and report are one, and every image of a report lies on the same split.

    Args:
        root: folder with ``ecgen-radiology/*.xml`` and ``NLMCXR_png/`` or ``NLMCXR_dcm/``.
        images: ``"png"`` (or JPEG of the same names), ``"dicom"``, or ``"none"``: one item per report without image.
        text: sections joined to ``item["text"]``, in this order; empty ones are left out. All are in
            ``item["sections"]``. A probe on findings or impression reads the answer (`ALGORITHMS`: leaky).
        findings: what becomes ``item["label"]``: ``diseased``, ``normal`` or MeSH terms (first part, lower case).
        sizes: patients per split, or fractions; `IU_XRAY_SIZES` (published) if None. Their sum, 3,894, is more than the
            reports that remain under any choice of sections, so their proportions are kept: 2,613 / 560 / 561. Of more
            patients than the sum the surplus is left out and counted.
        seed: of the split.
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.

    Returns:
        Items with ``labels`` = [normal or diseased, *MeSH terms], ``label``, ``sections``, ``split``, the usual keys.

    Raises:
        ValueError: no report or no usable image under `root`; an unknown `images` or section.
    """
    root = Path(root)
    if images not in (*_SUFFIXES, "none"):
        raise ValueError(f"images={images!r}: use 'png', 'dicom' or 'none'.")
    if unknown := [name for name in text if name not in SECTIONS]:
        raise ValueError(f"text={tuple(text)!r}: unknown section(s) {unknown}. Use some of {SECTIONS}.")
    paths = sorted(_files(root, (".xml",)), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise ValueError(f"{root} holds no report XML. Unpack NLMCXR_reports.tgz (folder ecgen-radiology) there.")
    found = {} if images == "none" else _index_images(root, _SUFFIXES[images])
    items: list[dict[str, Any]] = []
    left_out: list[Rejected] = []
    for path in paths:
        kept, refused = _items_of(path, parse_iu_report(path), tuple(text), None if images == "none" else found)
        items += kept
        left_out += refused
    if not items:
        raise ValueError(
            f"{root}: {len(paths)} reports but no usable image ({_counts(left_out)}). Unpack NLMCXR_png.tgz."
        )
    items, surplus = _split(items, IU_XRAY_SIZES if sizes is None else sizes, seed)
    left_out += surplus
    asked = as_findings(findings)
    for item in items:
        item["label"] = label_vector(item, asked)
    logger.info("IU X-ray: %d reports read, %d items kept; left out: %s", len(paths), len(items), _counts(left_out))
    if rejected is not None:
        write_rejected(left_out, rejected)
    return items


def _index_images(root: Path, suffixes: tuple[str, ...]) -> dict[tuple[str, str], Path]:
    files = sorted(_files(root, suffixes))
    return {key: path for path in files if (key := _image_key(path.name)) is not None}


def _files(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for folder, _, names in os.walk(root, followlinks=True):  # Path.rglob stops at linked folders
        yield from (Path(folder, name) for name in names if name.lower().endswith(suffixes))


def _image_key(name: str) -> tuple[str, str] | None:
    match = _IMAGE_NAME.match(name)
    return (match[1], match[2].upper()) if match else None


def _items_of(
    path: Path, report: IUReport, text: tuple[str, ...], found: Mapping[tuple[str, str], Path] | None
) -> tuple[list[dict[str, Any]], list[Rejected]]:
    words = "\n".join(report.sections[name] for name in text if name in report.sections)
    reason = None
    if found is not None and not report.images:
        reason = "no image belongs to this report"
    elif report.label is None:
        reason = f"{NO_INDEXING}: neither normal nor diseased"
    elif not words:
        reason = f"no text: sections {', '.join(text)} are empty"
    if reason is not None:
        return [], [Rejected(str(path), 0, reason)]
    if found is None:
        return [_item(report, words, report.uid, None)], []
    files = {name: found.get(_image_key(name) or ("", "")) for name in report.images}
    absent = [Rejected(str(path), 0, f"image file absent: {name}") for name, file in files.items() if file is None]
    return [_item(report, words, name, file) for name, file in files.items() if file is not None], absent


def _item(report: IUReport, words: str, identity: str, image: Path | None) -> dict[str, Any]:
    terms = dict.fromkeys(term.split("/")[0].strip().lower() for term in report.problems)
    labels = [str(report.label), *(term for term in terms if term != report.label)]
    item = {
        "id": identity,
        "study_id": report.uid,
        "patient_id": report.uid,
        "view": "",  # neither XML nor PNG says which image is the frontal one
        "labels": labels,
        "text": words,
        "sections": dict(report.sections),
        "meta": {"problems": list(report.problems)},
        "positives": text_key(words),
    }
    return item if image is None else {"image": str(image), **item}


def _split(
    items: list[dict[str, Any]], sizes: Mapping[str, float], seed: int
) -> tuple[list[dict[str, Any]], list[Rejected]]:
    patients = len({item["patient_id"] for item in items})
    total = sum(sizes.values())
    if total <= 1 or patients < total:
        return split_by_patient(items, {name: size / total for name, size in sizes.items()}, seed=seed), []
    surplus = {"": patients - int(total)} if patients > total else {}
    named = split_by_patient(items, {**{name: int(size) for name, size in sizes.items()}, **surplus}, seed=seed)
    reason = f"left over by the split sizes {dict(sizes)}"
    over = dict.fromkeys(item["patient_id"] for item in named if not item["split"])
    return [item for item in named if item["split"]], [Rejected(patient, 0, reason) for patient in over]


def _counts(left_out: Sequence[Rejected]) -> str:
    return (
        ", ".join(f"{n} {reason}" for reason, n in Counter(r.reason.split(":")[0] for r in left_out).items()) or "none"
    )
