"""From CT studies and the nodules in them to one item per nodule, on the patient's side of the split."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from monai_medclip.data.labels import look_up
from monai_medclip.data.manifest import text_key
from monai_medclip.data.nodule_points import NodulePoint
from monai_medclip.data.rejected import Rejected, write_rejected

__all__ = ["nodule_items"]

logger = logging.getLogger(__name__)

Item = dict[str, Any]

_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".dcm", ".npy")  # a series UID has dots too
_REMEDY = "Name the point's image as the item's id, series UID or file."


def nodule_items(
    items: Sequence[Item], points: Sequence[NodulePoint], *, rejected: str | PurePath | None = None
) -> list[Item]:
    """One item per nodule: a copy of its study's item that says where the nodule is.

    A point belongs to the item whose ``id``, ``image`` (path), ``series_uid``, ``meta.series_uid``, ``meta.seriesuid``,
    or file name its ``image`` names; the first of these that fits anything decides. Copies keep ``patient_id`` and
    ``split``, so all nodules of a patient stay on that patient's side.

    Args:
        items: one per CT, as `read_manifest` makes them.
        points: of `read_nodule_csv`, `read_nodule_json` or `read_nodule_masks`.
        rejected: where to list points of unknown images and items without a point (`write_rejected`); without it,
            points of unknown images raise. Both are counted in the log.

    Returns:
        Items in the order of `items`, and of the points in each, with ``id`` (the image's, ``_`` and the nodule's
        number from 1), ``nodule_id`` (the source's own, else that number), ``center_mm`` = [x, y, z] in RAS and
        ``diameter_mm`` (None if unknown); in ``meta``, as `read_lidc` has them, ``diameter_mm`` and ``box_mm``, and
        ``score`` and ``nodule_label``, where known. A point's own text replaces the study's and its sections; labels
        stay the study's.

    Raises:
        ValueError: a point of no item, or of several; or no item is left.
    """
    study_of, unknown = _studies(items, points)
    if unknown and rejected is None:
        more = f"\n... and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        hint = "\nGive rejected='rejected.csv' to leave such points out and list them there."
        raise ValueError("\n".join(map(str, unknown[:5])) + more + hint)
    bare = [
        Rejected(str(item.get("image", "")), 0, "no nodule in this image.", str(item.get("id", "")))
        for place, item in enumerate(items)
        if place not in study_of
    ]
    if rejected is not None:
        write_rejected([*unknown, *bare], str(rejected))
    made = [
        _nodule_item(items[place], number, point)
        for place in sorted(study_of)
        for number, point in enumerate(study_of[place], start=1)
    ]
    told = (len(made), len(study_of), len(bare), len(unknown))
    logger.info("%d nodules in %d images; images without a nodule: %d; nodules of unknown images: %d", *told)
    if not made:
        raise ValueError(f"None of {len(points)} points lies in one of {len(items)} images. {_REMEDY}")
    return made


def _studies(
    items: Sequence[Item], points: Sequence[NodulePoint]
) -> tuple[dict[int, list[NodulePoint]], list[Rejected]]:
    """Points by the position of their item, and those of no item."""
    named: dict[tuple[int, str], set[int]] = defaultdict(set)
    for place, item in enumerate(items):
        for rank, name in _names_of(item):
            named[rank, name].add(place)
    ranks = sorted({rank for rank, _ in named})
    study_of: dict[int, list[NodulePoint]] = defaultdict(list)
    unknown: list[Rejected] = []
    for point in points:
        asked = [(rank, name) for rank in ranks for name in dict.fromkeys((point.image, _stem(point.image)))]
        found = next((named[key] for key in asked if key in named), set())
        if len(found) > 1:
            ids = [items[place].get("id") for place in sorted(found)][:5]
            raise ValueError(f"{point.image!r} names {len(found)} items ({ids} ...). Give one item per CT, or its id.")
        if found:
            study_of[next(iter(found))].append(point)
        else:
            unknown.append(Rejected(point.image, 0, f"nodule of an unknown image. {_REMEDY}", point.id))
    return study_of, unknown


def _names_of(item: Item) -> Iterator[tuple[int, str]]:
    """What an item's CT is called, the surest first."""
    image = str(item.get("image") or "")
    names = [str(item.get("id") or ""), image]
    names += [str(look_up(item, column) or "") for column in ("series_uid", "meta.series_uid", "meta.seriesuid")]
    return ((rank, name) for rank, name in enumerate([*names, _stem(image)]) if name)


def _stem(path: str) -> str:
    name = PurePath(path).name
    return next((name[: -len(end)] for end in _SUFFIXES if name.lower().endswith(end)), name)


def _nodule_item(item: Item, number: int, point: NodulePoint) -> Item:
    known: dict[str, Any] = {"diameter_mm": point.diameter_mm, "score": point.score}
    known["box_mm"] = None if point.box_mm is None else list(point.box_mm)
    known["nodule_label"] = point.label or None
    made = {
        **item,
        "id": f"{item['id']}_{number}",
        "nodule_id": point.id or str(number),
        "center_mm": list(point.center_mm),
        "diameter_mm": point.diameter_mm,
        "meta": {**(item.get("meta") or {}), **{key: value for key, value in known.items() if value is not None}},
    }
    if point.text:
        made.pop("sections", None)
        made |= {"text": point.text, "positives": text_key(point.text)}
    return made
