"""On which side of the patient a finding lies: from what the items mark, draw or, failing that, report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from monai_medclip.transforms import sentence_spans

__all__ = ["KnownSides", "known_sides"]

Item = Mapping[str, Any]

ONE_SIDED = 0.9  # of a mask's area, for a finding that lies on one side
_SIDE = re.compile(r"\b(left|right)(?=\b|sided)", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:no|not|without|free of|negative for|absent|resolved)\b", re.IGNORECASE)
_LATERAL_VIEWS = ("L", "LL", "RL", "LATERAL")  # the two sides lie behind one another


class KnownSides(NamedTuple):
    """On which side of the patient findings lie."""

    source: str  # "marked findings", "masks or boxes", "reports", or "the caller"
    by_id: dict[str, dict[str, str]]  # item id -> finding -> "left" or "right"


def known_sides(items: Sequence[Item], findings: Sequence[str]) -> KnownSides:
    """Sides of findings, from the best source that any item has.

    First ``meta.findings`` ([{"name", "side"}], as the phantom's), then masks and boxes, whose images are read as
    radiographs are displayed, the patient's left on the right, else the sentences of the reports, which say where a
    reader saw it and are not ground truth. A finding on both sides has none.

    Args:
        items: items with ``id``.
        findings: names.

    Returns:
        Items without any known side are not in it.
    """
    readers: dict[str, Callable[[Item, Sequence[str]], dict[str, str]]] = {
        "marked findings": _marked,
        "masks or boxes": _drawn,
        "reports": _reported,
    }
    for source, read in readers.items():
        found = {str(item["id"]): sides for item in items if (sides := read(item, findings))}
        if found:
            return KnownSides(source, found)
    return KnownSides("reports", {})


def _marked(item: Item, findings: Sequence[str]) -> dict[str, str]:
    marks = [mark for mark in (item.get("meta") or {}).get("findings") or [] if isinstance(mark, Mapping)]
    found: dict[str, set[str]] = {}
    for mark in marks:
        if mark.get("name") in findings and mark.get("side"):
            found.setdefault(mark["name"], set()).add(mark["side"])
    return {name: sides.pop() for name, sides in found.items() if len(sides) == 1}


def _drawn(item: Item, findings: Sequence[str]) -> dict[str, str]:
    sides: dict[str, str] = {}
    if str(item.get("view", "")).upper() in _LATERAL_VIEWS:
        return sides
    for name in findings:
        paths = [path for label, path in (item.get("masks") or {}).items() if label == name]
        boxes = [box["box"] for box in item.get("boxes") or [] if box.get("label") == name]
        shares = [_mask_share(path) for path in paths if Path(path).suffix.lower() in (".png", ".bmp")]
        if not shares and item.get("width"):
            shares = [_box_share(box, float(item["width"])) for box in boxes]
        found = {"left" if share >= ONE_SIDED else "right" if share <= 1 - ONE_SIDED else "" for share in shares}
        if found in ({"left"}, {"right"}):
            sides[name] = found.pop()
    return sides


def _mask_share(path: str) -> float:
    """Share of a mask's area on the right of the picture, the patient's left; 0.5 for an empty one."""
    with Image.open(path) as picture:
        columns = (np.asarray(picture.convert("L")) > 0).sum(axis=0)
    half = len(columns) / 2
    weights = np.clip(np.arange(1, len(columns) + 1) - half, 0, 1)
    return float((columns * weights).sum() / columns.sum()) if columns.any() else 0.5


def _box_share(box: Sequence[float], width: float) -> float:
    x0, x1 = float(box[0]), float(box[2])
    return float(np.clip((x1 - width / 2) / max(x1 - x0, 1e-9), 0, 1))


def _reported(item: Item, findings: Sequence[str]) -> dict[str, str]:
    text = str(item.get("text") or "")
    sentences = [text[start:end] for start, end in sentence_spans(text)]
    told = [sentence for sentence in sentences if not _DENIED.search(sentence)]
    sides = {}
    for name in findings:
        about = [one for one in told if re.search(rf"\b{re.escape(name)}\b", one, re.IGNORECASE)]
        found = {side.lower() for one in about for side in _SIDE.findall(one)}
        if len(found) == 1 and not any(re.search(r"\bbilateral|\bboth\b", one, re.IGNORECASE) for one in about):
            sides[name] = found.pop()
    return sides
