"""CT-RATE: 25,692 chest CT studies with reports, in the published folders and tables, become a list of items."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.data.derm_items import finished_items
from monai_medclip.data.labels import as_findings
from monai_medclip.data.manifest import text_key
from monai_medclip.data.rejected import Rejected
from monai_medclip.data.splits import split_by_patient

__all__ = ["CT_RATE_FINDINGS", "read_ct_rate"]

CT_RATE_FINDINGS: tuple[str, ...] = (
    "medical material",
    "arterial wall calcification",
    "cardiomegaly",
    "pericardial effusion",
    "coronary artery wall calcification",
    "hiatal hernia",
    "lymphadenopathy",
    "emphysema",
    "atelectasis",
    "lung nodule",
    "lung opacity",
    "pulmonary fibrotic sequela",
    "pleural effusion",
    "mosaic attenuation pattern",
    "peribronchial thickening",
    "consolidation",
    "bronchiectasis",
    "interlobular septal thickening",
)

_SECTIONS = {  # section -> column
    "indication": "ClinicalInformation_EN",
    "technique": "Technique_EN",
    "findings": "Findings_EN",
    "impression": "Impressions_EN",
}
_NUMBERS = {"rescale_slope": "RescaleSlope", "rescale_intercept": "RescaleIntercept", "slices": "NumberofSlices"}
_WORDS = {  # key of ``meta`` -> column
    "kernel": "ConvolutionKernel",
    "manufacturer": "Manufacturer",
    "sex": "PatientSex",
    "age": "PatientAge",
    "study_date": "StudyDate",
}
_REPORTS = "radiology_text_reports/{}_reports.csv"
_SIDES = {"train": "train", "valid": "validation"}  # in volume names -> in the names of two of the tables
_FOLDERS = {"fixed": "{}_fixed", "original": "{}"}
_NAME = re.compile(r"(?P<patient>(train|valid)_\d+)_[a-z]+_\d+", re.ASCII)  # split, patient, scan, reconstruction
_NOT_GIVEN = ("", "not given.", "not given", "nan")


class _Tables(NamedTuple):
    """The four tables of one side, by volume name without suffix."""

    path: Path  # of the reports
    reports: dict[str, tuple[int, dict[str, str]]]  # with the row's number
    metadata: dict[str, dict[str, Any]]  # as `_metadata` reads a row
    labels: dict[str, dict[str, int]]  # as `_labels` reads a row
    no_chest: frozenset[str]


def read_ct_rate(
    root: str | Path,
    *,
    volumes: str = "fixed",
    text: Sequence[str] = ("findings", "impression"),
    findings: Sequence[str] | Mapping[str, str] = CT_RATE_FINDINGS,
    val: float = 0.05,
    seed: int = 0,
    rejected: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Read the published folders: reports, labels and metadata of both sides, and the volumes where they are there.

    One item per volume: a study has one or more reconstructions (``train_1_a_1``, ``train_1_a_2``) with one report,
    which are told apart by ``meta.kernel`` and share ``study_id``, text and split. The patient is in the name
    (``train_1``). The published ``valid`` side is the test split here; validation patients are drawn from ``train``.

    The labels are the authors' text classifier's, made from the reports: a text baseline reads the answer, and an image
    model that does well on them agrees with that classifier.

    The first release (folders ``train`` and ``valid``) holds stored values and an empty header. Slope, intercept and
    spacing stand in ``meta`` alone, from where `LoadCTd` applies them. In the second release (``train_fixed``,
    ``valid_fixed``) they are in the file: applying the table's slope once more, as code written for the first release
    does, is wrong by the intercept. ``meta.in_hounsfield`` says which one an item is of.

    Args:
        root: the repository's copy, or its folder ``dataset``.
        volumes: ``"fixed"`` (the second release), ``"original"`` (the first), or ``"none"``: items without image.
        text: sections joined to ``item["text"]``, in this order: indication, technique, findings, impression; empty
            ones ("Not given.") are left out. All are in ``item["sections"]``.
        findings: what becomes ``item["label"]``: names of `CT_RATE_FINDINGS`, or rules on ``meta``.
        val: share of the patients of ``train`` that is validation, 0 to below 1.
        seed: of that choice.
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.

    Returns:
        Items with ``labels`` (findings present), ``label``, ``sections``, ``split``, ``meta`` and the usual keys.
        ``meta`` has the 18 findings (1 or 0, absent if unknown), ``rescale_slope``, ``rescale_intercept``,
        ``spacing_mm`` = [x, y, z], ``slices``, ``kernel``, ``manufacturer``, ``sex``, ``age``, ``study_date``.

    Raises:
        ValueError: an unknown option, section or finding; a table without a column; a volume twice in a table, of
            another side, or with a name that does not follow the rule; a label or spacing that cannot be read; no item.
        FileNotFoundError: no table of reports under `root`.

    References:
        Hamamci et al., Developing generalist foundation models from a multimodal dataset for 3D computed tomography,
        arXiv:2403.17834; issues 28 and 50 of ibrahimethemhamamci/CT-CLIP (stored values; slope applied twice).
    """
    if volumes not in (*_FOLDERS, "none"):
        raise ValueError(f"volumes={volumes!r}: use 'fixed', 'original' or 'none'.")
    if unknown := [name for name in text if name not in _SECTIONS]:
        raise ValueError(f"text={tuple(text)!r}: unknown section(s) {unknown}. Use some of {list(_SECTIONS)}.")
    if not 0 <= val < 1:
        raise ValueError(f"val={val} must be a share of the training patients, 0 to below 1.")
    folder = Path(root) / "dataset" if (Path(root) / "dataset").is_dir() else Path(root)
    if not any((folder / _REPORTS.format(side)).is_file() for side in _SIDES.values()):
        wanted = folder / _REPORTS.format("train")
        raise FileNotFoundError(f"{wanted} is missing: give the folder that holds radiology_text_reports.")
    items: list[dict[str, Any]] = []
    left_out: list[Rejected] = []
    for side in _SIDES:
        for item, refused in _items_of(folder, side, volumes, tuple(text)):
            if refused is None:
                items.append(item)
            else:
                left_out.append(refused)
    items = finished_items(items, left_out, collection="CT-RATE", findings=_rules(findings), rejected=rejected)
    train = split_by_patient([item for item in items if not item["split"]], {"train": 1 - val, "val": val}, seed=seed)
    return [*train, *(item for item in items if item["split"])]


def _rules(findings: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Names as rules on ``meta``, where a blank cell stays unknown."""
    asked = {name: rule.strip() for name, rule in as_findings(findings).items()}
    plain = [rule for rule in asked.values() if not re.search("[<>=]", rule)]
    if unknown := [rule for rule in plain if rule.lower() not in CT_RATE_FINDINGS]:
        raise ValueError(f"findings {unknown} are not labeled in CT-RATE: use some of {list(CT_RATE_FINDINGS)}.")
    return {name: f"meta.{rule.lower()} == 1" if rule in plain else rule for name, rule in asked.items()}


def _items_of(
    folder: Path, side: str, volumes: str, text: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], Rejected | None]]:
    """Items of one side, each with what speaks against it."""
    tables = _tables(folder, side)
    for name, (number, report) in tables.reports.items():
        item = _item(name, report, tables, text)
        reason = None
        if name in tables.no_chest:
            reason = "not a chest CT: listed in the authors' no_chest file"
        elif not item["text"]:
            reason = f"no text: sections {', '.join(text)} are empty"
        elif volumes != "none":
            patient, study = item["patient_id"], item["study_id"]
            path = folder / _FOLDERS[volumes].format(side) / patient / study / f"{name}.nii.gz"
            item = {"image": str(path), **item}
            item["meta"]["in_hounsfield"] = int(volumes == "fixed")
            if not path.is_file():
                reason = f"volume file absent: {path}"
            elif volumes == "original" and not {"rescale_slope", "rescale_intercept", "spacing_mm"} <= set(
                item["meta"]
            ):
                reason = "no rescale or spacing in the metadata: HU cannot be computed from the first release"
        yield item, None if reason is None else Rejected(str(tables.path), number, reason, name)


def _tables(folder: Path, side: str) -> _Tables:
    path = folder / _REPORTS.format(_SIDES[side])
    metadata = folder / "metadata" / f"{_SIDES[side]}_metadata.csv"
    labels = folder / "multi_abnormality_labels" / f"{side}_predicted_labels.csv"
    listed = folder / "metadata" / f"no_chest_{side}.txt"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    return _Tables(
        path=path,
        reports=dict(_rows(path, side, *_SECTIONS.values())),
        metadata={name: _metadata(f"{metadata}, row {number}", row) for name, (number, row) in _rows(metadata, side)},
        labels={name: _labels(f"{labels}, row {number}", row) for name, (number, row) in _rows(labels, side)},
        no_chest=frozenset(_stem(Path(line.strip()).name) for line in lines if line.strip()),
    )


def _rows(path: Path, side: str, *columns: str) -> Iterator[tuple[str, tuple[int, dict[str, str]]]]:
    """Volume name without suffix -> line and cells; nothing where there is no such table."""
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if missing := [name for name in ("VolumeName", *columns) if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}, row 1: missing column(s) {missing}; it has {reader.fieldnames}. Get it again.")
        seen: dict[str, int] = {}
        for cells in reader:
            name = _stem((cells["VolumeName"] or "").strip())
            match = _NAME.fullmatch(name)
            where = f"{path}, row {reader.line_num}: volume {name!r}"
            if match is None or match[2] != side:
                raise ValueError(
                    f"{where} is not named {side}_PATIENT_SCAN_RECONSTRUCTION. Correct the name or the table."
                )
            if seen.setdefault(name, reader.line_num) != reader.line_num:
                raise ValueError(f"{where} is also in row {seen[name]}. Keep one of the two.")
            yield name, (reader.line_num, {key: (cell or "").strip() for key, cell in cells.items() if key})


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")


def _item(name: str, report: Mapping[str, str], tables: _Tables, text: tuple[str, ...]) -> dict[str, Any]:
    cells = {section: " ".join(report[column].split()) for section, column in _SECTIONS.items()}
    sections = {section: words for section, words in cells.items() if words.lower() not in _NOT_GIVEN}
    words = "\n".join(sections[section] for section in text if section in sections)
    found = tables.labels.get(name, {})
    match = _NAME.fullmatch(name)
    assert match is not None  # _rows has checked it
    return {
        "id": name,
        "study_id": name.rpartition("_")[0],
        "patient_id": match["patient"],
        "view": "",
        "split": "test" if match[2] == "valid" else "",  # training patients are drawn for validation later
        "labels": [finding for finding, value in found.items() if value],
        "text": words,
        "sections": sections,
        "meta": {**found, **tables.metadata.get(name, {})},
        "positives": text_key(words),
    }


def _labels(where: str, row: Mapping[str, str]) -> dict[str, int]:
    """Findings that a row tells, 1 or 0; an empty cell does not."""
    cells = {column.lower(): cell for column, cell in row.items() if column != "VolumeName" and cell}
    if wrong := {column: cell for column, cell in cells.items() if cell not in ("0", "1", "0.0", "1.0")}:
        raise ValueError(f"{where}: labels must be 0, 1 or empty, not {wrong}. Get the table again.")
    return {finding: int(float(cells[finding])) for finding in CT_RATE_FINDINGS if finding in cells}


def _metadata(where: str, row: Mapping[str, str]) -> dict[str, Any]:
    """What becomes ``meta``; an empty cell is left out."""
    meta: dict[str, Any] = {key: row[column] for key, column in _WORDS.items() if row.get(column)}
    try:
        meta |= {key: float(row[column]) for key, column in _NUMBERS.items() if row.get(column)}
        if row.get("XYSpacing") and row.get("ZSpacing"):
            rows_mm, columns_mm = (float(step) for step in json.loads(row["XYSpacing"]))  # as DICOM's PixelSpacing
            meta["spacing_mm"] = [columns_mm, rows_mm, abs(float(row["ZSpacing"]))]
    except (ValueError, TypeError) as error:
        columns = [*_NUMBERS.values(), "ZSpacing"]
        raise ValueError(
            f"{where}: {columns} must be numbers and XYSpacing two in brackets ({error}). Get the table again."
        ) from error
    return meta
