"""One case's files in a folder of its own: linked from where they are, or fetched from an archive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from monai_medclip.data.dicom_archive import Archive
from monai_medclip.data.dicom_errors import ArchiveError
from monai_medclip.data.dicom_query import DicomCase

__all__ = ["case_folder", "link_file"]

_MAX_BYTES = 4 * 2**30


@contextmanager
def case_folder(
    case: DicomCase, folder: str | Path, archive: Archive | None = None, *, max_bytes: int = _MAX_BYTES
) -> Iterator[list[Path]]:
    """The files of a case, and no others, in a folder that goes when the block ends.

    Files are numbered: their names say nothing of a patient, and nothing that an archive says becomes a path.

    Args:
        case: of `folder_cases` or `archive_cases`.
        folder: must not exist; readable by this user alone.
        archive: where the case is; ``None`` for files.
        max_bytes: a case from an archive may hold.

    Yields:
        the files, in the case's order.

    Raises:
        ArchiveError: the archive does not hand out an object, or the case is larger than `max_bytes`.
        OSError: a file is gone, or the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True)
    try:
        files = [folder / f"{number:06d}.dcm" for number in range(1, len(case.instances) + 1)]
        if archive is None:
            for file, one in zip(files, case.instances, strict=True):
                link_file(Path(one.file), file)
        else:
            _fetch(case, files, archive, max_bytes)
        yield files
    finally:
        shutil.rmtree(folder)


def link_file(source: Path, link: Path) -> None:
    """Make a file appear in a second place; as a copy where the system gives no links (Windows, to most users).

    Raises:
        FileNotFoundError: the source is gone.
    """
    source = source.resolve(strict=True)
    try:
        link.symlink_to(source)
    except OSError:
        shutil.copyfile(source, link)


def _fetch(case: DicomCase, files: list[Path], archive: Archive, max_bytes: int) -> None:
    total = 0
    for file, one in zip(files, case.instances, strict=True):
        dataset = archive.fetch(case.study_uid, case.series_uid, one.sop_uid)
        dataset.save_as(file)
        total += os.path.getsize(file)
        if total > max_bytes:
            reason = f"the case is larger than {max_bytes / 2**30:g} GiB"
            raise ArchiveError(
                reason, "Export it to a folder and name that.", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
