"""Which of a folder's CT stacks is meant, and what is not one gapless CT volume."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from monai_medclip.ct_stacks import CTStack, scan_ct
from monai_medclip.transforms.rejects import BadInputError

__all__ = ["SERIES_RULES", "check_ct_series", "choose_ct_stack", "find_ct_stacks", "kernel_kind"]

logger = logging.getLogger(__name__)

_UID = re.compile(r"\d+(\.\d+)+(_\d+)?", re.ASCII)
_SIEMENS = re.compile(r"[BDIJQ][A-Z]?(\d\d)[A-Z]*", re.ASCII)  # B30f, D30f, I50f, Br40d, Bl57, Qr36
_CANON = re.compile(r"FC(\d\d)", re.ASCII)
_SOFT = ("STANDARD", "SOFT", "A", "B", "C")  # GE, GE, Philips
_LUNG = ("LUNG", "BONE", "BONEPLUS", "EDGE", "L")  # GE four times, Philips
_GAP_TOLERANCE = 0.1  # of the distance between slices
_ROUNDING_MM = 0.01


def kernel_kind(kernel: str) -> str:
    """Whether a ConvolutionKernel is made for soft tissue or for lung; the names are each vendor's own.

    Siemens counts sharpness: 10 to 41 for body tissue, 50 and more for thorax and bone. Canon and Toshiba count organs:
    FC01 to FC19 body, FC50 to FC59 lung, FC30 and FC31 bone. GE and Philips have names: STANDARD, SOFT, A, B, C; and
    LUNG, BONE, BONEPLUS, EDGE, L. What lies between (B45f, DETAIL, CHEST, D) or is not listed is neither.

    Args:
        kernel: the attribute; of several values joined by a backslash the first one counts.

    Returns:
        "soft", "lung" or "".

    References:
        Siemens SOMATOM Sensation, operating instructions, "Body kernels"; BRIDG model 5.3, class CT reconstruction
        protocol (B30, STANDARD and FC03 for soft tissue); Choe et al., Radiology 2019;292:365 (B30f, B70f).
    """
    name = kernel.split("\\")[0].strip().upper()
    siemens, canon = _SIEMENS.fullmatch(name), _CANON.fullmatch(name)
    if siemens:
        sharpness = int(siemens[1])
        return "soft" if 10 <= sharpness <= 41 else "lung" if sharpness >= 50 else ""
    if canon:
        number = int(canon[1])
        return "soft" if 1 <= number <= 19 else "lung" if 50 <= number <= 59 or number in (30, 31) else ""
    return "soft" if name in _SOFT else "lung" if name in _LUNG else ""


def _most_slices(stacks: Sequence[CTStack]) -> list[CTStack]:
    most = max(stack.slices for stack in stacks)
    return [stack for stack in stacks if stack.slices == most]


def _thinnest(stacks: Sequence[CTStack]) -> list[CTStack]:
    known = [stack for stack in stacks if stack.thickness_mm > 0]
    thinnest = min((stack.thickness_mm for stack in known), default=0.0)
    return [stack for stack in known if stack.thickness_mm <= thinnest + _ROUNDING_MM]


def _soft(stacks: Sequence[CTStack]) -> list[CTStack]:
    return [stack for stack in stacks if kernel_kind(stack.kernel) == "soft"]


def _lung(stacks: Sequence[CTStack]) -> list[CTStack]:
    return [stack for stack in stacks if kernel_kind(stack.kernel) == "lung"]


SERIES_RULES: dict[str, Callable[[Sequence[CTStack]], list[CTStack]]] = {
    "most slices": _most_slices,
    "thinnest": _thinnest,
    "soft": _soft,
    "lung": _lung,
}
"""What ``series`` of `LoadCTd` may name beside UIDs and keys: stacks in, those that are meant out."""


def find_ct_stacks(path: str | Path) -> list[CTStack]:
    """The CT stacks of a file or folder, subfolders too; what else is there is counted in the log.

    Raises:
        BadInputError: for a damaged file, a part of a concatenation, or no CT slice at all.
    """
    scan = scan_ct(path)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(scan.left_out.items()))
    if scan.refused:
        file, reason = next(iter(scan.refused.items()))
        raise BadInputError(file, reason, "Export it again from the archive, or take it out of the folder.")
    if not scan.stacks:
        if Path(path).is_file() and len(kinds := list(scan.left_out)) == 1:
            reason = f"it is no CT slice ({kinds[0]})"
        else:
            reason = f"it holds no CT slice (found: {told or 'no DICOM file'})"
        raise BadInputError(path, reason, "Name the folder of a CT series; read radiographs with LoadRadiographd.")
    if told:
        logger.warning("a folder holds more than CT slices, left out: %s", told)
        logger.debug("the folder is %s", path)
    return list(scan.stacks)


def choose_ct_stack(stacks: Sequence[CTStack], series: Sequence[str], path: str | Path) -> CTStack:
    """The one stack that is meant.

    Args:
        stacks: of `find_ct_stacks`, one or more.
        series: rules of `SERIES_RULES` and UIDs, applied one after the other; each leaves some of the stacks.
        path: where they are, for the message.

    Returns:
        the one that is left.

    Raises:
        BadInputError: none or several are left; the message lists all stacks.
    """
    left = list(stacks)
    for rule in series:
        if left:
            left = SERIES_RULES[rule](left) if rule in SERIES_RULES else [one for one in left if _is(one, rule)]
    if len(left) == 1:
        return left[0]
    asked = f"{' and '.join(repr(rule) for rule in series)} fits {len(left)} of them" if series else "one must be named"
    reason = f"there are {len(stacks)} CT stacks, and {asked}: {'; '.join(_line(stack) for stack in stacks)}"
    remedy = (
        f"Give LoadCTd series=, one or more of: a UID of these, an item's key that holds one, {', '.join(SERIES_RULES)}"
    )
    raise BadInputError(path, reason, f"{remedy}.")


def is_series_uid(name: str) -> bool:
    """Whether a string is a UID of a series or stack, rather than a rule or a key."""
    return _UID.fullmatch(name) is not None


def _is(stack: CTStack, uid: str) -> bool:
    return uid in (stack.uid, stack.series_uid)


def _line(stack: CTStack) -> str:
    thickness = f"{stack.thickness_mm:g} mm thick" if stack.thickness_mm else "of unknown thickness"
    kernel = stack.kernel or "unknown"
    slices = "1 slice" if stack.slices == 1 else f"{stack.slices} slices"
    return (
        f"{stack.uid or 'without UID'} ({stack.description or 'no description'}, kernel {kernel}, {slices} {thickness})"
    )


def check_ct_series(stack: CTStack, path: str | Path) -> None:
    """Refuse a stack that is not one gapless CT volume.

    Raises:
        BadInputError: a slice is missing, doubled, or out of line with the others.
    """
    if stack.slices < 2 or not stack.placed:
        return
    places = np.array([frame.position_mm for frame in stack.frames])
    gaps_mm = np.diff([frame.along_normal_mm for frame in stack.frames])
    typical_mm = float(np.median(gaps_mm))
    tolerance_mm = _GAP_TOLERANCE * typical_mm + _ROUNDING_MM
    off = np.abs(gaps_mm - typical_mm)
    if off.max() > tolerance_mm or typical_mm < _ROUNDING_MM:
        reason = f"slices lie {typical_mm:.2f} mm apart, but once {gaps_mm[off.argmax()]:.2f} mm"
        raise BadInputError(path, reason, "A slice is missing or doubled: export the series again.")
    line = np.linspace(places[0], places[-1], stack.slices)
    off_mm = np.linalg.norm(places - line, axis=1)
    if off_mm.max() > max(tolerance_mm, *stack.frames[0].pixel_mm):
        reason = f"slice {int(off_mm.argmax()) + 1} lies {off_mm.max():.2f} mm beside the line of the others"
        raise BadInputError(path, reason, "The patient or the field of view was moved: export one scan per series.")


def check_rescale_type(stack: CTStack, path: str | Path) -> None:
    """Refuse values that the header says are no Hounsfield units (electron densities, effective atomic numbers...).

    Raises:
        BadInputError: with the Rescale Type (0028,1054).
    """
    others = sorted({frame.rescale_type for frame in stack.frames} - {"", "HU"})
    if others:
        reason = f"Rescale Type is {', '.join(others)}, not HU"
        raise BadInputError(path, reason, "Choose or export the series that is in Hounsfield units.")
