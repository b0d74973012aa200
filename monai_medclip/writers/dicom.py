"""DICOM results for the archive: heatmaps as Parametric Map, Segmentation and Secondary Capture, and a report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from monai_medclip.writers.dicom_bands import segmentation
from monai_medclip.writers.dicom_capture import capture, source_picture
from monai_medclip.writers.dicom_grid import values_on_slices
from monai_medclip.writers.dicom_map import parametric_map
from monai_medclip.writers.dicom_parts import instance_header
from monai_medclip.writers.dicom_report import report
from monai_medclip.writers.dicom_source import DicomSource, dicom_source
from monai_medclip.writers.dicom_statements import DicomStatements, Statement
from monai_medclip.writers.maps import slug
from monai_medclip.writers.saving import write_whole

__all__ = ["DICOM_KINDS", "dicom_bytes", "dicom_results", "write_dicom_results"]

DICOM_KINDS = ("parametric_map", "segmentation", "capture", "report")
"""What `dicom_results` makes. MONAI Label takes a Segmentation for a reader's work, so it has to be asked for."""

_USUAL = ("parametric_map", "capture", "report")


def dicom_results(
    source: DicomSource | str | os.PathLike[str],
    maps: MetaTensor | None,
    statements: DicomStatements,
    *,
    kinds: Sequence[str] = _USUAL,
) -> list[Dataset]:
    """Maps and scores as DICOM objects of the source's patient and study, each in a series of its own.

    The same source, model, method and prompt give the same UIDs, so that a repeated store replaces the former objects
    where the archive overwrites, and doubles none where it does not.

    Args:
        source: a radiograph's file, a CT's file or folder, or what `dicom_source` made of it.
        maps: (F, x, y[, z]), raw, on the scanner's grid, as `scanner_maps` gives them; ``None`` for a report alone.
        statements: one answer per map, and what to say beside them.
        kinds: which of `DICOM_KINDS`.

    Returns:
        the objects, prompt by prompt, and the report, which refers to them, last.

    Raises:
        ValueError: another grid, not one answer per map, or nothing to write; `BadInputError` for a bad source.
        TypeError: maps are a plain tensor.
        ImportError: highdicom is missing.
    """
    return [one for _, one in _named(source, maps, statements, kinds)]


def write_dicom_results(
    folder: str | os.PathLike[str],
    source: DicomSource | str | os.PathLike[str],
    maps: MetaTensor | None,
    statements: DicomStatements,
    *,
    kinds: Sequence[str] = _USUAL,
) -> list[Path]:
    """The same as files, each there only when whole: ``parametric_map_01_nodule.dcm``, ..., ``report.dcm``.

    Args:
        folder: made if missing; files of the same names are replaced.
        source, maps, statements, kinds: see `dicom_results`.

    Raises:
        ValueError, TypeError, ImportError: as there.
    """
    named = _named(source, maps, statements, kinds)
    return [write_whole(Path(folder) / f"{name}.dcm", dicom_bytes(one)) for name, one in named]


def dicom_bytes(dataset: Dataset) -> bytes:
    """An object as a DICOM file (PS3.10), for a file or a STOW-RS request."""
    stream = BytesIO()
    dcmwrite(stream, dataset)  # whole, as highdicom gives every object a preamble and its meta information
    return stream.getvalue()


def _named(
    source: DicomSource | str | os.PathLike[str],
    maps: MetaTensor | None,
    statements: DicomStatements,
    kinds: Sequence[str],
) -> Iterator[tuple[str, Dataset]]:
    """The objects with their files' names, without suffix, one after the other: a CT's map is large."""
    says, wanted = statements.checked(), _checked_kinds(kinds, statements)
    if not isinstance(source, DicomSource):
        source = dicom_source(Path(source))
    drawn = [kind for kind in wanted if kind != "report"]
    if maps is None and drawn:
        raise ValueError(f"{', '.join(drawn)} need maps: give them, or ask for kinds=('report',) alone.")
    if maps is not None and len(maps) != len(says.answers):
        raise ValueError(f"{len(maps)} maps for {len(says.answers)} answers: give one of each.")
    values = [] if maps is None or not drawn else values_on_slices(source, maps)
    picture = source_picture(source) if "capture" in drawn else None
    written: list[list[Dataset]] = [[] for _ in says.answers]
    for number, (answer, one) in enumerate(zip(says.answers, values), start=1):
        for kind, dataset in _drawn(source, picture, one, answer, says, number=number, kinds=drawn):
            yield f"{kind}_{number:02d}_{slug(answer.text)}", dataset
            written[number - 1].append(instance_header(dataset))
    if "report" in wanted:
        yield "report", report(source, says, written)


def _drawn(
    source: DicomSource,
    picture: MetaTensor | None,
    values: NDArray[np.float32],
    answer: Statement,
    says: DicomStatements,
    *,
    number: int,
    kinds: Sequence[str],
) -> Iterator[tuple[str, Dataset]]:
    """The objects of one map, by kind."""
    if "parametric_map" in kinds:
        yield "parametric_map", parametric_map(source, values, answer, says, number=number)
    if "segmentation" in kinds:
        yield "segmentation", segmentation(source, values, answer, says, number=number)
    if picture is not None:
        yield "capture", capture(source, picture, values, answer, says, number=number)


def _checked_kinds(kinds: Sequence[str], statements: DicomStatements) -> tuple[str, ...]:
    unknown = [kind for kind in kinds if kind not in DICOM_KINDS]
    if isinstance(kinds, str) or unknown or not kinds:
        raise ValueError(f"kinds={kinds!r}: name one or more of {', '.join(DICOM_KINDS)}.")
    if not (statements.answers or statements.findings):
        raise ValueError("there is no answer and no finding to write: give at least one.")
    return tuple(kinds)
