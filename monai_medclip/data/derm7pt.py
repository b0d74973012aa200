"""Derm7pt: 1,011 skin lesions scored by the seven-point checklist, with a dermoscopic and a clinical image each."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medclip.data.derm_items import SkinLesion, finished_items, lesion_item
from monai_medclip.data.rejected import Rejected

__all__ = ["DERM7PT_DIAGNOSES", "DERM7PT_GROUPS", "diagnosis_group", "read_derm7pt"]

# Fine diagnosis -> one of the five groups of the collection's authors, whose "MISC" is "other lesion" here, because
# one of the fine diagnoses is called miscellaneous.
_GROUP = {
    "basal cell carcinoma": "basal cell carcinoma",
    "blue nevus": "nevus",
    "clark nevus": "nevus",
    "combined nevus": "nevus",
    "congenital nevus": "nevus",
    "dermal nevus": "nevus",
    "recurrent nevus": "nevus",
    "reed or spitz nevus": "nevus",
    "melanoma": "melanoma",
    "melanoma (in situ)": "melanoma",
    "melanoma (less than 0.76 mm)": "melanoma",
    "melanoma (0.76 to 1.5 mm)": "melanoma",
    "melanoma (more than 1.5 mm)": "melanoma",
    "melanoma metastasis": "melanoma",
    "dermatofibroma": "other lesion",
    "lentigo": "other lesion",
    "melanosis": "other lesion",
    "miscellaneous": "other lesion",
    "vascular lesion": "other lesion",
    "seborrheic keratosis": "seborrheic keratosis",
}
DERM7PT_DIAGNOSES: tuple[str, ...] = tuple(sorted(_GROUP))  # 20
DERM7PT_GROUPS: tuple[str, ...] = tuple(dict.fromkeys(_GROUP.values()))  # 5

_MALIGNANT = ("basal cell carcinoma", "melanoma")  # groups
_CRITERIA = (
    "pigment_network",
    "streaks",
    "pigmentation",
    "regression_structures",
    "dots_and_globules",
    "blue_whitish_veil",
    "vascular_structures",
)
_META = ("level_of_diagnostic_difficulty", "elevation", "location", "sex", "management", "case_id", "notes")
_KINDS = {"derm": "Dermoscopic image", "clinic": "Clinical photograph"}
_SPLITS = {"train": "train", "valid": "val", "test": "test"}  # file name -> split


def diagnosis_group(diagnosis: str) -> str:
    """One of `DERM7PT_GROUPS` for one of `DERM7PT_DIAGNOSES`.

    Raises:
        ValueError: another diagnosis.

    References:
        Kawahara et al., Seven-point checklist and skin lesion classification using multitask multimodal neural nets,
        IEEE JBHI 2019, Table I; the authors' package ``derm7pt``, ``Derm7PtDatasetGroupInfrequent``.
    """
    if diagnosis not in _GROUP:
        raise ValueError(f"diagnosis {diagnosis!r} is none of Derm7pt's: use one of {list(DERM7PT_DIAGNOSES)}.")
    return _GROUP[diagnosis]


def read_derm7pt(
    root: str | Path,
    *,
    image: str = "derm",
    findings: Sequence[str] | Mapping[str, str] = ("malignant",),
    with_diagnosis: bool = True,
    rejected: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Read the published folder ``release_v0``: ``meta/meta.csv``, the authors' split, and ``images/``.

    One item per lesion, 1,011 as published. A lesion stands for its patient: the collection does not say which ones
    share one, so look for near-duplicates across the authors' split (`partition`). Melanomas and basal cell carcinomas
    are malignant, ``miscellaneous`` lesions are unknown, all others are benign.

    Args:
        root: ``release_v0`` itself, or the folder that holds it.
        image: ``"derm"``, the dermoscopic image, or ``"clinic"``, the photograph; the criteria were scored on the
            first, so the caption of a photograph tells the diagnosis alone. Where the authors put the dermoscopic image
            in place of a photograph that was missing, there is none, and the case is left out.
        findings: what becomes ``item["label"]``: label names, or rules on the criteria such as
            ``{"atypical network": "meta.pigment_network == atypical"}``.
        with_diagnosis: whether the caption names the diagnosis; a text-only baseline then reads the answer.
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.

    Returns:
        Items with ``labels`` = [malignant or benign, group, diagnosis], ``meta`` with the criteria,
        ``seven_point_score`` (0 to 10), ``sex``, ``location`` and more, a caption as ``text``, ``label`` and the usual
        keys.

    Raises:
        ValueError: a table without a column, an unknown diagnosis or criterion's value, a case on two sides of the
            split, an unknown `image`, or no image at all.
        FileNotFoundError: a table is missing.
    """
    if image not in _KINDS:
        raise ValueError(f"image={image!r}: use 'derm' (dermoscopic) or 'clinic' (photograph).")
    folder = Path(root) / "release_v0" if (Path(root) / "release_v0").is_dir() else Path(root)
    path = folder / "meta" / "meta.csv"
    rows = _table(path, "case_num", "diagnosis", "derm", "clinic", *_CRITERIA)
    splits = _splits(folder / "meta", len(rows))
    items: list[dict[str, Any]] = []
    left_out: list[Rejected] = []
    for number, row in enumerate(rows):
        try:
            item = lesion_item(_lesion(folder, row, image, splits.get(number, "")), with_diagnosis=with_diagnosis)
        except ValueError as error:
            raise ValueError(f"{path}, row {number + 2}: {error} Correct the cell or the table's version.") from error
        reason = _unusable(row, item, image)
        if reason is None:
            items.append(item)
        else:
            left_out.append(Rejected(str(path), number + 2, reason, item["id"]))
    return finished_items(items, left_out, collection="Derm7pt", findings=findings, rejected=rejected)


def _table(path: Path, *columns: str) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder release_v0 of the unpacked collection.")
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
            raise ValueError(
                f"{path}, row 1: missing column(s) {missing}; it has {reader.fieldnames}. Unpack it again."
            )
        return [{name: (cell or "").strip() for name, cell in row.items() if name} for row in reader]


def _splits(folder: Path, count: int) -> dict[int, str]:
    """Row of meta.csv, from 0 -> split."""
    sides: dict[int, str] = {}
    for stem, split in _SPLITS.items():
        path = folder / f"{stem}_indexes.csv"
        for line, cells in enumerate(_table(path, "indexes"), start=2):
            cell = cells["indexes"]
            if not cell.isdigit() or int(cell) >= count:
                raise ValueError(f"{path}, row {line}: index {cell!r} is no row of meta.csv (0 to {count - 1}).")
            if sides.setdefault(int(cell), split) != split:
                raise ValueError(f"{path}, row {line}: case {cell} is on {sides[int(cell)]!r} too. Unpack it again.")
    return sides


def _lesion(folder: Path, row: Mapping[str, str], image: str, split: str) -> SkinLesion:
    diagnosis = " ".join(row["diagnosis"].lower().split())
    group = diagnosis_group(diagnosis)
    criteria = {name: row[name].lower() for name in _CRITERIA}
    meta: dict[str, Any] = {name: row[name] for name in _META if row.get(name)}
    if row.get("seven_point_score", "").isdigit():
        meta["seven_point_score"] = int(row["seven_point_score"])
    return SkinLesion(
        id=f"derm7pt_{row['case_num'].zfill(4)}",
        image=folder / "images" / row[image],
        kind=_KINDS[image],
        split=split,
        diagnosis=diagnosis,
        group=group,
        malignant=None if diagnosis == "miscellaneous" else group in _MALIGNANT,
        criteria=criteria,
        visible=image == "derm",
        meta=meta,
    )


def _unusable(row: Mapping[str, str], item: Mapping[str, Any], image: str) -> str | None:
    if not item["split"]:
        return "case on no side of the published split: add its row to an _indexes.csv"
    if image == "clinic" and row["clinic"].lower() == row["derm"].lower():
        return "no clinical photograph: the dermoscopic image stands in its place"
    if not row[image] or not Path(item["image"]).is_file():
        return f"image file absent: {item['image']}"
    return None
