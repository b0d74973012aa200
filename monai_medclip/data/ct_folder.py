"""A folder of CT studies in DICOM, as an archive exports them, becomes one item per volume."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from monai_medclip.ct_stacks import CTStack, scan_ct
from monai_medclip.data.rejected import Rejected, write_rejected

__all__ = ["read_ct_folder"]

logger = logging.getLogger(__name__)


def read_ct_folder(
    root: str | Path, *, min_slices: int = 1, rejected: str | Path | None = None, progress: bool = True
) -> list[dict[str, Any]]:
    """Read the headers of all DICOM files under a folder: one item per stack of CT slices, see `scan_ct`.

    A patient has one or more studies, a study one or more stacks (kernels, phases): split by ``patient_id``. Give
    `LoadCTd` ``series="series_uid"``, the key that tells the stacks of one folder apart.

    Args:
        root: searched with its subfolders.
        min_slices: stacks with fewer are left out (bolus tracking, single slices beside a scan).
        rejected: where to list what was left out (`write_rejected`); counts are logged either way.
        progress: whether to show a progress bar.

    Returns:
        Items with ``id`` and ``series_uid`` (the stack's uid), ``patient_id`` (PatientID, else the study's),
        ``study_id``, ``view`` and ``split`` (empty), ``image`` (the folder that holds the slices, or their only file)
        and ``meta``: ``kernel``, ``thickness_mm`` (0 if unknown), ``spacing_mm`` = [x, y, z], ``slices``,
        ``description``, ``manufacturer``.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: `min_slices` is below 1, or no stack is left.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is no folder: name the one that holds the CT studies.")
    if min_slices < 1:
        raise ValueError(f"min_slices={min_slices} must be 1 or more.")
    scan = scan_ct(root, progress=progress)
    left_out = [Rejected(file, 0, reason) for file, reason in scan.refused.items()]
    items = []
    for stack in scan.stacks:
        item = _item(stack)
        if stack.slices >= min_slices:
            items.append(item)
        else:
            reason = f"too few slices: {stack.slices}, less than {min_slices}"
            left_out.append(Rejected(item["image"], 0, reason, item["id"]))
    if rejected is not None:
        write_rejected(left_out, rejected)
    counts = Counter(scan.left_out) + Counter(one.reason.split(":")[0] for one in left_out)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
    if not items:
        raise ValueError(f"{root}: no CT stack of {min_slices} slices or more (left out: {told}). Name another folder.")
    logger.log(logging.WARNING if counts else logging.INFO, "%s: %d CT stacks; left out: %s", root, len(items), told)
    return items


def _item(stack: CTStack) -> dict[str, Any]:
    image = os.path.commonpath(stack.files)
    name = stack.uid or Path(image).name
    study = stack.study_uid or name
    return {
        "id": name,
        "patient_id": stack.patient_id or study,
        "study_id": study,
        "view": "",
        "split": "",
        "image": image,
        "series_uid": stack.uid,
        "meta": {
            "kernel": stack.kernel,
            "thickness_mm": stack.thickness_mm,
            "spacing_mm": list(stack.spacing_mm),
            "slices": stack.slices,
            "description": stack.description,
            "manufacturer": stack.manufacturer,
        },
    }
