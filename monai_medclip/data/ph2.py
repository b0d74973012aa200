"""PH2: 200 dermoscopic images of melanocytic lesions with criteria, diagnosis and the lesion's outline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medclip.data.derm_captions import LESION_COLORS
from monai_medclip.data.derm_items import SkinLesion, finished_items, lesion_item
from monai_medclip.data.rejected import Rejected

__all__ = ["PH2_DIAGNOSES", "read_ph2"]

PH2_DIAGNOSES = ("common nevus", "atypical nevus", "melanoma")  # the table's codes 0, 1, 2

TABLE = "PH2_dataset.txt"
IMAGES = "PH2 Dataset images"
_ASYMMETRY = {"0": "fully symmetric", "1": "symmetric in one axis", "2": "fully asymmetric"}
_GRADES = {"A": "absent", "P": "present", "T": "typical", "AT": "atypical"}  # one legend for the five structures
# Column of the table -> criterion's name.
_STRUCTURES = {
    "Pigment Network": "pigment_network",
    "Dots/Globules": "dots_and_globules",
    "Streaks": "streaks",
    "Regression Areas": "regression_structures",
    "Blue-Whitish Veil": "blue_whitish_veil",
}
_COLUMNS = ("Name", "Clinical Diagnosis", "Asymmetry", *_STRUCTURES, "Colors")


def read_ph2(
    root: str | Path,
    *,
    findings: Sequence[str] | Mapping[str, str] = ("malignant",),
    with_diagnosis: bool = True,
    rejected: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Read the published folder: ``PH2_dataset.txt`` and ``PH2 Dataset images/IMD003/...``.

    One item per image, 200 as published: 80 common nevi, 80 atypical nevi, 40 melanomas. The collection names neither
    patients nor a split: each image stands for its patient, and ``split`` is empty, for `partition` to fill.

    Args:
        root: folder that holds the table anywhere under it; the images lie beside the table.
        findings: what becomes ``item["label"]``: label names, or rules on the criteria such as
            ``{"veil": "meta.blue_whitish_veil == present"}``.
        with_diagnosis: whether the caption names the diagnosis; a text-only baseline then reads the answer.
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.

    Returns:
        Items with ``labels`` = [malignant or benign, nevus or melanoma, diagnosis], ``meta`` with the criteria, a
        caption as ``text``, ``masks`` = {"lesion": path} where the outline is there, ``label`` and the usual keys.

    Raises:
        ValueError: a table without a column, a code that its legend does not have, or no image at all.
        FileNotFoundError: the table is missing.

    References:
        Mendonca et al., PH2 - A dermoscopic image database for research and benchmarking, EMBC 2013.
    """
    path = _table_of(Path(root))
    images = path.parent / IMAGES
    items: list[dict[str, Any]] = []
    left_out: list[Rejected] = []
    for number, row in _rows(path):
        try:
            item = lesion_item(_lesion(images, row), with_diagnosis=with_diagnosis)
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error} Unpack the table again.") from error
        if Path(item["image"]).is_file():
            items.append(item | {"masks": _masks(images, row["Name"])})
        else:
            left_out.append(Rejected(str(path), number, f"image file absent: {item['image']}", item["id"]))
    return finished_items(items, left_out, collection="PH2", findings=findings, rejected=rejected)


def _table_of(root: Path) -> Path:
    found = sorted(root.rglob(TABLE))
    if found:
        return found[0]
    if sheets := sorted(root.rglob("PH2_dataset.xlsx")):
        raise FileNotFoundError(
            f"{root} holds {sheets[0].name} but not {TABLE}, the same table as text, which is read here. Unpack that "
            f"too, or write the sheet as lines of '|| {' || '.join(_COLUMNS)} ||' with the codes of its legend."
        )
    raise FileNotFoundError(f"{root} holds no {TABLE}: give the unpacked folder PH2Dataset.")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every image; the legend below the table is left out."""
    lines = [(number, _cells(line)) for number, line in enumerate(_lines(path), 1) if line.lstrip().startswith("|")]
    header = lines[0][1] if lines else []
    if missing := [column for column in _COLUMNS if column not in header]:
        raise ValueError(f"{path}, row 1: missing column(s) {missing}; it has {header}. Unpack the table again.")
    cases = [(number, cells) for number, cells in lines[1:] if cells[0]]
    for number, cells in cases:
        if len(cells) != len(header):
            raise ValueError(f"{path}, row {number}: {len(cells)} cells for {len(header)} columns. Unpack it again.")
    return [(number, dict(zip(header, cells))) for number, cells in cases]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()


def _cells(line: str) -> list[str]:
    """Cells between single and double bars; empty ones stay, since most images have no histology."""
    inner = re.sub(r"^\|+|\|+$", "", line.strip())
    return [cell.strip() for cell in re.split(r"\|\|?", inner)]


def _lesion(images: Path, row: Mapping[str, str]) -> SkinLesion:
    name = row["Name"]
    codes = {str(code): diagnosis for code, diagnosis in enumerate(PH2_DIAGNOSES)}
    diagnosis = _decoded("Clinical Diagnosis", row["Clinical Diagnosis"], codes)
    criteria = {"asymmetry": _decoded("Asymmetry", row["Asymmetry"], _ASYMMETRY)}
    criteria |= {criterion: _decoded(column, row[column], _GRADES) for column, criterion in _STRUCTURES.items()}
    colors = {str(code): color for code, color in enumerate(LESION_COLORS, 1)}
    criteria["colors"] = " and ".join(_decoded("Colors", code, colors) for code in row["Colors"].split())
    histology = " ".join(row.get("Histological Diagnosis", "").lower().split())
    return SkinLesion(
        id=f"ph2_{name}",
        image=images / name / f"{name}_Dermoscopic_Image" / f"{name}.bmp",
        kind="Dermoscopic image",
        split="",
        diagnosis=diagnosis,
        group="melanoma" if diagnosis == "melanoma" else "nevus",
        malignant=diagnosis == "melanoma",
        criteria=criteria,
        visible=True,
        meta={"histological_diagnosis": histology} if histology else {},
    )


def _decoded(column: str, code: str, legend: Mapping[str, str]) -> str:
    if code not in legend:
        raise ValueError(f"{column} is {code!r}: the legend has {legend}.")
    return legend[code]


def _masks(images: Path, name: str) -> dict[str, str]:
    outline = images / name / f"{name}_lesion" / f"{name}_lesion.bmp"
    return {"lesion": str(outline)} if outline.is_file() else {}
