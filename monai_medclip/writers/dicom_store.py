"""Where DICOM results go: into a folder, or by STOW-RS into an archive; each object once, and refusals are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_medclip.data import Archive, ArchiveError
from monai_medclip.writers.dicom import dicom_bytes
from monai_medclip.writers.saving import write_whole

__all__ = ["ArchiveStore", "DicomStore", "FolderStore", "RefusedError"]

_REASONS = {  # Failure Reason (0008,1197), PS3.18 table 10.5.3-2 and PS3.7 annex C
    0x0110: "processing failure",
    0x0122: "it does not take this kind of object",
    0x0124: "not authorized",
    0x0111: "it has another object with this UID",
    0xA700: "out of resources",
    0xC122: "it does not take this transfer syntax",
}


class RefusedError(RuntimeError):
    """An object that was not stored.

    Attributes:
        reason: what was refused and why, without address or patient.
        remedy: what the user can do, as a sentence.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        """See the class."""
        self.reason, self.remedy = reason, remedy
        super().__init__(f"{reason}. {remedy}")


class DicomStore(Protocol):
    """A place for DICOM objects."""

    @property
    def name(self) -> str:
        """What tells it from other places."""

    def store(self, objects: Sequence[Dataset], *, again: bool = False) -> list[str]:
        """Store objects one after the other; the first that is refused ends it.

        Args:
            objects: in the order in which they refer to one another, a report last.
            again: some may be there from a former attempt; those stay as they are.

        Returns:
            Where each is now.

        Raises:
            RefusedError: an object was not taken.
            ArchiveError: the archive does not answer.
        """


class FolderStore:
    """A folder: ``STUDY/OBJECT.dcm`` by UIDs, each file there only when whole.

    Args:
        folder: made when the first object comes.
    """

    def __init__(self, folder: str | Path) -> None:
        """See the class."""
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        """Any folder is as good as another: it may be moved between two runs."""
        return "folder"

    def store(self, objects: Sequence[Dataset], *, again: bool = False) -> list[str]:
        """See `DicomStore.store`; places are relative to the folder."""
        return list(self._stored(objects, again))

    def _stored(self, objects: Sequence[Dataset], again: bool) -> Iterator[str]:
        for one in objects:
            study_uid, sop_uid = UID(str(one.StudyInstanceUID)), UID(str(one.SOPInstanceUID))
            if not (study_uid.is_valid and sop_uid.is_valid):  # they become a path
                reason = "its Study Instance UID is not made of digits and dots"
                raise RefusedError(f"{_kind(one)} cannot be filed: {reason}", "Export the study from the archive.")
            file = self.folder / study_uid / f"{sop_uid}.dcm"
            if not (again and file.exists()):
                write_whole(file, dicom_bytes(one))
            yield file.relative_to(self.folder).as_posix()


class ArchiveStore:
    """A DICOMweb archive; one object a request, so that memory holds one at a time and a refusal has a name.

    Args:
        archive: to store in.
    """

    def __init__(self, archive: Archive) -> None:
        """See the class."""
        self.archive = archive

    @property
    def name(self) -> str:
        """Its address."""
        return self.archive.url

    def store(self, objects: Sequence[Dataset], *, again: bool = False) -> list[str]:
        """See `DicomStore.store`; places are SOP Instance UIDs."""
        for one in objects:
            if not (again and self.archive.holds(one)):
                self._send(one)
        return [str(one.SOPInstanceUID) for one in objects]

    def _send(self, one: Dataset) -> None:
        try:
            answer = self.archive.store(one)
        except ArchiveError as error:
            if error.status:
                raise RefusedError(f"{_kind(one)} was not stored: {error.reason}", error.remedy) from error
            raise
        if failed := answer.get("FailedSOPSequence"):
            code = int(failed[0].get("FailureReason", 0) or 0)
            reason = f"the archive refused it, {_REASONS.get(code, 'for a reason of its own')} (0x{code:04X})"
            remedy = f"Let the archive take {UID(one.SOPClassUID).name}, or leave this kind out of --kinds."
            raise RefusedError(f"{_kind(one)} was not stored: {reason}", remedy)
        if not answer.get("ReferencedSOPSequence") and not self.archive.holds(one):  # it said nothing of it
            raise RefusedError(f"{_kind(one)} was not stored: the archive does not list it", "See the archive's log.")


def _kind(one: Dataset) -> str:
    return f"the {UID(str(one.SOPClassUID)).name.removesuffix(' Storage')}"
