"""What goes wrong between us and a DICOM archive."""

from __future__ import annotations

__all__ = ["ArchiveError"]


class ArchiveError(RuntimeError):
    """An archive that does not answer, or does not do what it is asked.

    Attributes:
        reason: the rule that is broken, without address or patient.
        remedy: what the user can do, as a sentence.
        status: of its HTTP answer; 0 where none came, or none but "later".
    """

    def __init__(self, reason: str, remedy: str, *, status: int = 0) -> None:
        """See the class."""
        self.reason, self.remedy, self.status = reason, remedy, status
        super().__init__(f"{reason}. {remedy}")
