"""Names in requests: ids, members of archives and received files, and no other path of the server."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from monai_medclip.app.limits import Refused, limits

__all__ = ["check_archive", "check_id", "is_received"]

_RECEIVED = re.compile(r"tmp[a-z0-9_]{8}(\.[^/\\]{0,240})?")  # a random name, and all suffixes of the client's file
_LONGEST = 256


def check_id(identity: str, what: str = "image id") -> str:
    """An id that names a file and no way out of its folder.

    Raises:
        Refused: separators, ``..``, control characters, nothing, or more than 256 characters.
    """
    bad = identity in ("", ".", "..") or len(identity) > _LONGEST or not identity.isprintable()
    if bad or any(mark in identity for mark in ("/", "\\", "\0")):
        raise Refused(f"this {what} is refused: give one that GET /datastore lists, without separators.", 400)
    return identity


def is_received(path: str) -> bool:
    """Whether a path is a temporary file as MONAI Label's endpoints name what they receive with a request."""
    real = Path(os.path.realpath(path))
    in_temporary = real.parent == Path(os.path.realpath(tempfile.gettempdir()))
    return in_temporary and _RECEIVED.fullmatch(real.name) is not None and not Path(path).is_symlink()


def check_archive(members: Sequence[tuple[str, int]]) -> None:
    """Refuse members of an archive that would be unpacked elsewhere, or fill the disk.

    Args:
        members: names and sizes once unpacked.

    Raises:
        Refused: an absolute name, a drive, one with ``..``; too many files, or too large together.
    """
    bounds = limits()
    if len(members) > bounds.upload_files or sum(size for _, size in members) > bounds.expanded_bytes:
        megabytes = bounds.expanded_bytes >> 20
        raise Refused(f"more than {bounds.upload_files} files, or {megabytes} MB unpacked: send less at a time.", 413)
    for name, _ in members:
        parts = re.split(r"[\\/]", name)
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise Refused("the archive holds a name that leads out of it: pack the files again.", 400)
