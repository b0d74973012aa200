"""Items become training, validation and test sets, checked for what would leak from one to another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.data.rejected import Rejected, write_rejected
from monai_medclip.data.splits import Leak, LeakError, find_leaks, split_by_patient, write_split_manifest

__all__ = ["Partition", "partition"]

logger = logging.getLogger(__name__)

Item = dict[str, Any]


class Partition(NamedTuple):
    """The three sides of a data set; a side without items is an empty list."""

    train: list[Item]
    val: list[Item]
    test: list[Item]


def partition(
    items: Sequence[Item],
    *,
    folder: str | Path | None = None,
    parts: Mapping[str, float] | None = None,
    seed: int = 0,
    near_duplicate_bits: int | None = 40,
    on_leak: str = "raise",
    cache: str | Path | None = None,
    workers: int = 1,
) -> Partition:
    """Sort items by ``item["split"]`` and refuse what leaks between the sides.

    Args:
        items: items with ``id``, ``patient_id``, ``split`` (``train``, ``val``, ``test``) and, if any, ``image``.
        folder: run folder; ``splits.json`` (ids and hashes) is written there, and ``leaks.csv`` for dropped items.
        parts: fractions or numbers of patients for `split_by_patient`, used when no item names its split.
        seed: of that split.
        near_duplicate_bits: see `monai_medclip.data.check_splits`; None compares patients and identical files only.
        on_leak: ``"raise"`` names the leaking items in an error; ``"drop"`` leaves the item on the training side
            out (the validation item, where validation and test share one) and lists it in ``leaks.csv``.
        cache: see `monai_medclip.data.fingerprint_files`.
        workers: threads that read the images for it.

    Returns:
        The sides, in the order of the items.

    Raises:
        LeakError: a patient, image or near-duplicate on two sides, for ``"raise"``.
        ValueError: an item on no known side, an unknown `on_leak`, or ``"drop"`` without a folder to list it in.
    """
    if on_leak not in ("raise", "drop"):
        raise ValueError(f"on_leak={on_leak!r}: use 'raise', or 'drop' to leave leaking training items out.")
    if parts is not None and not any(item.get("split") for item in items):
        items = split_by_patient(items, parts, seed=seed)
    strangers = [item for item in items if item.get("split") not in Partition._fields]
    if strangers:
        raise ValueError(
            f"{strangers[0].get('id')}: its split is {strangers[0].get('split')!r} ({len(strangers)} items are like "
            "it). Name train, val or test in the manifest's split column, or give the parts of a split by patient."
        )
    leaks = find_leaks(items, near_duplicate_bits=near_duplicate_bits, cache=cache, workers=workers)
    if on_leak == "raise" or any(leak.rule == "patient" for leak in leaks):
        _refuse(leaks)
    dropped = {_lesser(leak.first, leak.first_split, leak.second, leak.second_split): str(leak) for leak in leaks}
    if dropped:
        _list_dropped(dropped, folder)
    kept = [item for item in items if str(item["id"]) not in dropped]
    if folder is not None:
        write_split_manifest(kept, Path(folder) / "splits.json")
    return Partition(*([item for item in kept if item["split"] == side] for side in Partition._fields))


def _refuse(leaks: Sequence[Leak]) -> None:
    if leaks:
        raise LeakError(leaks)


def _lesser(first: str, first_split: str, second: str, second_split: str) -> str:
    """The item whose loss costs least: training before validation before test."""
    order = Partition._fields.index
    return first if order(first_split) <= order(second_split) else second


def _list_dropped(dropped: dict[str, str], folder: str | Path | None) -> None:
    if folder is None:
        raise ValueError("on_leak='drop' needs a folder, so that no case is lost silently.")
    path = Path(folder) / "leaks.csv"
    write_rejected([Rejected("", 0, reason, id=item) for item, reason in dropped.items()], path)
    logger.warning("%d items leak to another split and were left out; %s lists them.", len(dropped), path)
