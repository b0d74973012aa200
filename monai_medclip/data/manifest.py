"""Bring your own data: a CSV or JSON manifest, one row per image, becomes a list of items."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.data.labels import as_findings, label_names, label_vector, look_up, matches_rule
from monai_medclip.data.rejected import Rejected, write_rejected

__all__ = ["ManifestError", "positives_by", "read_manifest", "text_key"]

logger = logging.getLogger(__name__)

Item = dict[str, Any]
_IMAGE_COLUMNS = ("image", "file")
_COUNTERFACTUAL = "counterfactual"  # a patient without the finding, beside the same patient with it on a real split
_JSON_SPLITS = {"training": "train", "validation": "val", "testing": "test"}  # MONAI's datalist names


class ManifestError(ValueError):
    """A manifest that breaks a rule; the message names file, row, rule and remedy."""


class _Row(NamedTuple):
    number: int  # line of the CSV or entry of the JSON, from 1
    cells: dict[str, Any]


def read_manifest(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    findings: Sequence[str] | Mapping[str, str] | None = None,
    split: str | None = None,
    source: str | None = None,
    where: Mapping[str, Any] | str | None = None,
    text_column: str = "text",
    empty_labels: str = "unknown",
    on_error: str | None = None,
    rejected: str | Path | None = None,
) -> list[Item]:
    """Read a manifest into plain items with paths; nothing is decoded.

    Columns: ``file`` or ``image`` (path), ``text``, ``patient_id`` are required; ``id``, ``study_id``, ``labels``
    (``;``-separated names), ``view``, ``split``, ``meta`` (a JSON object) and ``pixels`` (path of the image behind a
    row of precomputed features) are read if there; any other column is kept under its own name. ``masks.csv`` (id,
    label, file) and ``boxes.csv`` (id, label, x0, y0, x1, y1) beside the manifest are joined as ``item["masks"] =
    {label: path}`` and ``item["boxes"] = [{"label", "box", ...}]``; a row's own ``masks`` cell may hold the same
    mapping as JSON.

    Args:
        path: CSV, or JSON: a list of rows, or MONAI's ``{"training": [...], "validation": [...]}``.
        image_root: folder that relative paths start from; the manifest's own folder if None.
        findings: label names, or ``{finding: label name or rule}`` (`label_vector`, `LIDC_FINDINGS`), that become
            ``item["label"]``, a list of F floats 1, 0 or NaN (unknown).
        split: keep this split only.
        source: keep the rows of this ``source`` only.
        where: ``{column: value or list of values}``, or a rule such as ``"modality == CT and meta.diameter_mm >= 4"``.
        text_column: the column that becomes ``item["text"]``, such as ``text_alt``.
        empty_labels: whether a row without labels is ``"unknown"`` (NaN) or ``"negative"`` (0).
        on_error: ``"raise"`` on bad rows, or ``"skip"`` and list them; None skips if `rejected` is given.
        rejected: where skipped rows are listed (`write_rejected`).

    Returns:
        Items in the manifest's order. ``item["positives"]`` is `text_key` of the text.

    Raises:
        ManifestError: a missing file or column, a duplicate id, an empty text or patient, a patient on two splits,
            unreadable JSON, or no row left.
    """
    path = Path(path)
    if empty_labels not in ("unknown", "negative"):
        raise ValueError(f"empty_labels={empty_labels!r}: use 'unknown' (NaN) or 'negative' (0).")
    listing = _listing(on_error, rejected)
    rows = list(_rows(path))
    _require_columns(path, rows, text_column)
    root = path.parent if image_root is None else Path(image_root)
    wanted = _selector(split, source, where)
    problems = _conflicts(path, rows)
    refused = {problem.row for problem in problems}
    items: list[Item] = []
    for row in (row for row in rows if row.number not in refused):
        try:
            item = _item(row, root, text_column)
            if not wanted(item):
                continue
            _check(item)
        except ValueError as error:
            problems.append(Rejected(str(path), row.number, str(error)))
        else:
            items.append(item)
    _refuse(sorted(problems, key=lambda problem: problem.row), listing)
    if not items:
        raise ManifestError(f"{path}: no row is left (split={split!r}, source={source!r}, where={where!r}). Widen it.")
    _join_masks_and_boxes(path.parent, items)
    if findings is not None:
        _add_labels(items, as_findings(findings), empty_labels)
    return items


def text_key(text: str) -> int:
    """A stable 63-bit integer that equal texts share (whitespace and case apart), for ``positives`` and retrieval."""
    digest = hashlib.sha256(" ".join(text.lower().split()).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def positives_by(items: Iterable[Item], key: str = "text") -> list[Item]:
    """Copies of items whose ``positives`` say that equal ``item[key]`` (text, study_id, ...) are the same."""
    return [{**item, "positives": text_key(str(item[key]))} for item in items]


def _rows(path: Path) -> Iterator[_Row]:
    if not path.is_file():
        raise ManifestError(f"{path}: there is no such manifest. Give the path of a CSV or JSON file.")
    if path.suffix.lower() == ".json":
        yield from _json_rows(path)
        return
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        for cells in reader:
            if None in cells:
                raise ManifestError(f"{path}, row {reader.line_num}: more cells than columns. Quote texts with commas.")
            yield _Row(reader.line_num, {key: value or "" for key, value in cells.items()})


def _json_rows(path: Path) -> Iterator[_Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ManifestError(f"{path}, row {error.lineno}: not valid JSON ({error.msg}). Write it anew.") from error
    parts: Mapping[str, Any] = content if isinstance(content, dict) else {"": content}
    lists = {name: rows for name, rows in parts.items() if isinstance(rows, list)}
    number = 0
    for name, rows in lists.items():
        for cells in rows:
            number += 1
            if not isinstance(cells, dict):
                raise ManifestError(f"{path}, row {number}: not an object. Write a list of objects, one per image.")
            yield _Row(number, ({"split": _JSON_SPLITS.get(name, name)} if name else {}) | cells)


def _require_columns(path: Path, rows: Sequence[_Row], text_column: str) -> None:
    if not rows:
        raise ManifestError(f"{path}: the manifest is empty. Give it one row per image.")
    columns = set().union(*(row.cells for row in rows))
    missing = [column for column in (text_column, "patient_id") if column not in columns]
    if not columns.intersection(_IMAGE_COLUMNS):
        missing.insert(0, "file")
    if missing:
        raise ManifestError(
            f"{path}, row 1: missing column(s) {missing}; it has {sorted(columns)}. Add or rename them."
        )


def _conflicts(path: Path, rows: Sequence[_Row]) -> list[Rejected]:
    """Rules that hold between rows: ids are unique, a patient is on one split (that of its first row)."""
    lines: dict[str, int] = {}
    sides: dict[str, tuple[str, int]] = {}
    problems = []
    for number, cells in rows:
        identity, patient, side = (str(cells.get(key) or "") for key in ("id", "patient_id", "split"))
        if identity and lines.setdefault(identity, number) != number:
            reason = f"id {identity!r} is also in row {lines[identity]}. Ids must be unique: rename one."
            problems.append(Rejected(str(path), number, reason))
        elif patient and side not in ("", _COUNTERFACTUAL):
            first_side, first = sides.setdefault(patient, (side, number))
            if first_side != side:
                reason = f"patient {patient!r} is in {side!r} here and in {first_side!r} in row {first}. "
                problems.append(Rejected(str(path), number, reason + "Put all images of a patient on one split."))
    return problems


def _selector(split: str | None, source: str | None, where: Mapping[str, Any] | str | None) -> Any:
    equal: dict[str, Any] = {key: value for key, value in (("split", split), ("source", source)) if value is not None}
    rule = where if isinstance(where, str) else None
    if where is not None and not isinstance(where, str):
        equal |= where
    allowed = {column: _as_texts(value) for column, value in equal.items()}

    def wanted(item: Item) -> bool:
        found = all(str(look_up(item, column)) in values for column, values in allowed.items())
        return found and (rule is None or matches_rule(item, rule) == 1.0)

    return wanted


def _as_texts(value: Any) -> set[str]:
    return {str(one) for one in value} if isinstance(value, (list, tuple, set)) else {str(value)}


def _item(row: _Row, root: Path, text_column: str) -> Item:
    cells = dict(row.cells)
    image = next((str(cells[column]) for column in _IMAGE_COLUMNS if cells.get(column)), "")
    item = {key: value for key, value in cells.items() if key not in _IMAGE_COLUMNS}
    labels = cells.get("labels") or ""
    item["id"] = str(cells.get("id") or image)
    item["patient_id"] = str(cells.get("patient_id") or "").strip()
    item["study_id"] = str(cells.get("study_id") or item["id"])
    item["view"], item["split"] = str(cells.get("view") or ""), str(cells.get("split") or "")
    item["labels"] = label_names(labels) if isinstance(labels, str) else [str(name) for name in labels]
    item["text"] = str(cells.get(text_column) or "").strip()
    item["meta"] = _mapping(cells.get("meta"), "meta")
    item["masks"] = {label: str(root / file) for label, file in _mapping(cells.get("masks"), "masks").items()}
    item["image"] = str(root / image) if image else ""
    if item.get("pixels"):
        item["pixels"] = str(root / item["pixels"])
    item["positives"] = text_key(item["text"])
    return item


def _mapping(cell: Any, column: str) -> dict[str, Any]:
    if isinstance(cell, dict) or not cell:
        return dict(cell or {})
    try:
        content = json.loads(cell)
    except json.JSONDecodeError as error:
        raise ValueError(f"column {column!r} is not JSON ({error.msg}). Write an object such as {{}}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"column {column!r} holds {type(content).__name__}, not an object. Write {{...}}.")
    return content


def _check(item: Item) -> None:
    if not item["patient_id"]:
        raise ValueError("patient_id is empty, so a patient could be on two splits. Give every image its patient.")
    if not item["text"]:
        raise ValueError("the text is empty. Give the report or drop the row.")
    if not item["image"]:
        raise ValueError("the image path is empty. Give the path or drop the row.")
    if not Path(item["image"]).exists():  # a DICOM series is a folder
        raise ValueError(f"the image {item['image']} does not exist. Correct the path or give image_root.")
    if item.get("pixels") and not Path(item["pixels"]).exists():
        raise ValueError(f"the pixels {item['pixels']} do not exist. Correct the path, or leave the cell empty.")


def _listing(on_error: str | None, rejected: str | Path | None) -> str | Path | None:
    """Where to list bad rows; None raises."""
    if on_error not in (None, "raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: use 'raise' or 'skip'.")
    if on_error == "skip" and rejected is None:
        raise ValueError("on_error='skip' needs rejected, a file that lists the rows, so that none is lost silently.")
    return None if on_error == "raise" else rejected


def _refuse(problems: list[Rejected], rejected: str | Path | None) -> None:
    if rejected is not None:
        write_rejected(problems, rejected)
        if problems:
            logger.warning("%d rows were refused and are listed in %s", len(problems), rejected)
    elif problems:
        more = f"\n... and {len(problems) - 5} more" if len(problems) > 5 else ""
        hint = "\nGive rejected='rejected.csv' to skip such rows and list them there."
        raise ManifestError("\n".join(map(str, problems[:5])) + more + hint)


def _join_masks_and_boxes(folder: Path, items: Sequence[Item]) -> None:
    by_id = {item["id"]: item for item in items}
    for item in items:
        item["boxes"] = []
    for row in _side_table(folder / "masks.csv", "id", "label", "file"):
        if row["id"] in by_id:
            by_id[row["id"]]["masks"][row["label"]] = str(folder / row["file"])
    for row in _side_table(folder / "boxes.csv", "id", "label", "x0", "y0", "x1", "y1"):
        if row["id"] in by_id:
            corners = [float(row.pop(corner)) for corner in ("x0", "y0", "x1", "y1")]
            by_id[row.pop("id")]["boxes"].append({**row, "box": corners})


def _side_table(path: Path, *columns: str) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle)
        missing = set(columns).difference(reader.fieldnames or ())
        if missing:
            raise ManifestError(f"{path}, row 1: missing column(s) {sorted(missing)}. Add them or rename the file.")
        return list(reader)


def _add_labels(items: Sequence[Item], findings: Mapping[str, str], empty_labels: str) -> None:
    for item in items:
        item["label"] = label_vector(item, findings, empty_labels=empty_labels)
    for position, finding in enumerate(findings):
        values = [item["label"][position] for item in items]
        if not any(value == 1.0 for value in values):
            known = sorted({name for item in items for name in item["labels"]})
            logger.warning("finding %r is present in no row; labels in use: %s", finding, known[:30])
        if all(math.isnan(value) for value in values):
            raise ManifestError(f"finding {finding!r} ({findings[finding]}) is unknown in every row. Check its name.")
