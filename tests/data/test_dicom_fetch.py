"""One case's files in a folder of its own, numbered, and gone afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from monai_medclip.data import ArchiveError, DicomCase, DicomInstance, case_folder, folder_cases

from ..transforms.make_ct import write_series
from ..transforms.make_dicom import ramp, write_dicom


class Shelf:
    """An archive that holds one file under every name."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked: list[tuple[str, ...]] = []

    def fetch(self, *uids: str) -> Any:
        self.asked.append(uids)
        return pydicom.dcmread(self.file)


def test_files_are_linked_under_numbers_and_go(tmp_path: Path) -> None:
    write_series(tmp_path / "Doe^Jane", name="Doe")
    (case,) = folder_cases(tmp_path / "Doe^Jane", volumes=True, progress=False).cases
    with case_folder(case, tmp_path / "work" / "1") as files:
        assert [file.name for file in files] == [f"{number:06d}.dcm" for number in range(1, 5)]
        assert [file.read_bytes() for file in files] == [Path(one.file).read_bytes() for one in case.instances]
        assert (tmp_path / "work" / "1").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "work" / "1").exists()
    assert len(list((tmp_path / "Doe^Jane").iterdir())) == 4


def test_objects_of_an_archive_are_read_back_equal(tmp_path: Path) -> None:
    shelf = Shelf(Path(write_dicom(tmp_path / "film.dcm", ramp(4, 6))))
    case = DicomCase("1.1", "1.1.1", (DicomInstance("../../up", ""),))
    with case_folder(case, tmp_path / "work", shelf) as (file,):  # a UID never becomes a path
        assert pydicom.dcmread(file) == pydicom.dcmread(shelf.file)
        assert file.parent == tmp_path / "work"
    assert shelf.asked == [("1.1", "1.1.1", "../../up")]


def test_a_case_that_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(Path(write_dicom(tmp_path / "film.dcm", ramp(40, 60))))
    case = DicomCase("1.1", "1.1.1", tuple(DicomInstance(f"1.{number}", "") for number in range(9)))
    with pytest.raises(ArchiveError, match="larger than"), case_folder(case, tmp_path / "w", shelf, max_bytes=10_000):
        pass
    assert len(shelf.asked) == 2
    assert not (tmp_path / "w").exists()


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    case = DicomCase("1.1", "1.1.1", (DicomInstance("1.2", str(tmp_path / "gone.dcm")),))
    with pytest.raises(FileNotFoundError, match=r"gone\.dcm"), case_folder(case, tmp_path / "work"):
        pass
