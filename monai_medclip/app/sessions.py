"""Sessions: a client's own image for an hour, unpacked nowhere else, and cleaned up whatever happened."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import SessionInfo, Sessions

from monai_medclip.app.ids import check_archive, check_id
from monai_medclip.app.limits import Refused

__all__ = ["CheckedSessions"]

logger = logging.getLogger(__name__)

_BROKEN_AFTER_S = 3600


class CheckedSessions(Sessions):
    """MONAI Label's sessions, whose archives cannot write outside of themselves, and whose ids name no other folder."""

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """A new session.

        Raises:
            Refused: an archive that leads out of itself, or is too large once unpacked; what was received is removed.
        """
        try:
            if uncompress and Path(data_file).is_file():
                check_archive(_members(Path(data_file)))
            return super().add_session(data_file, expiry, uncompress, session_id)
        except Exception:
            received = Path(data_file).parent
            if received.parent == Path(tempfile.gettempdir()):
                shutil.rmtree(received, ignore_errors=True)
            raise

    def get_session(self, session_id: str, *rest: Any, **named: Any) -> Any:
        """A session by its id."""
        return super().get_session(check_id(session_id, "session id"), *rest, **named)

    def holds(self, path: str) -> bool:
        """Whether a path is the image of a session, and not only somewhere among them."""
        real, store = Path(os.path.realpath(path)), Path(os.path.realpath(self.store_path))
        if not real.is_relative_to(store) or real == store:
            return False
        session = self.get_session(real.relative_to(store).parts[0], update_ts=False)
        return session is not None and Path(os.path.realpath(session.image)) == real

    def remove_expired(self) -> int:
        """Remove what has expired; a folder that a kill or a full disk left without its record goes after an hour."""
        store = Path(self.store_path)
        for folder in store.iterdir() if store.is_dir() else ():
            old = folder.is_dir() and time.time() - folder.stat().st_mtime > _BROKEN_AFTER_S
            if old and not (folder / "meta.info").is_file():
                shutil.rmtree(folder, ignore_errors=True)
        try:
            return super().remove_expired()
        except (AttributeError, OSError, ValueError) as error:  # one that is being written now
            logger.warning("sessions are cleaned up later: one cannot be read (%s)", type(error).__name__)
            return 0


def _members(archive: Path) -> list[tuple[str, int]]:
    """Names and unpacked sizes in an archive; links count as ways out of it.

    Raises:
        Refused: no archive, or one that is read as another kind than its name says: MONAI Label unpacks by the name.
    """
    packed, taped = zipfile.is_zipfile(archive), tarfile.is_tarfile(archive)
    if packed == taped or packed != archive.name.lower().endswith(".zip"):
        raise Refused("the file is no zip archive named .zip, nor a tar archive named .tar: pack it again.", 400)
    if packed:
        with zipfile.ZipFile(archive) as opened:
            return [(member.filename, member.file_size) for member in opened.infolist()]
    with tarfile.open(archive) as opened:
        return [(one.name if one.isfile() or one.isdir() else "/link", one.size) for one in opened]
