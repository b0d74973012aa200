"""Which image a request means: ids of the datastore, sessions and uploads, and no other path of the server."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_medclip.app.limits import Refused

__all__ = ["check_archive", "check_id", "guarded", "is_upload"]

_UPLOADED = re.compile(r"tmp[a-z0-9_]{8}(\.[\w.]{1,20})?")  # as MONAI Label's endpoints name what they receive
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


def is_upload(path: str, sessions: Path) -> bool:
    """Whether a path is what the server itself received: a session's image, or a temporary file of a request."""
    real = Path(os.path.realpath(path))
    if real.is_relative_to(os.path.realpath(sessions)):
        return True
    in_temporary = real.parent == Path(os.path.realpath(tempfile.gettempdir()))
    return in_temporary and _UPLOADED.fullmatch(real.name) is not None and not Path(path).is_symlink()


def check_archive(names: Iterable[str]) -> None:
    """Refuse members of an archive that would be unpacked elsewhere.

    Raises:
        Refused: an absolute name, a drive, or one with ``..``.
    """
    for name in names:
        parts = re.split(r"[\\/]", name)
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise Refused("the archive holds a name that leads out of it: pack the files again.", 400)


class _CheckedIds:
    """Before a datastore of MONAI Label, which joins any id to its folders: what is no plain name is refused."""

    def get_image_uri(self, image_id: str) -> str:
        return super().get_image_uri(check_id(image_id))  # type: ignore[misc]  # a mixin

    def add_image(self, image_id: str, image_filename: str, image_info: Any) -> str:
        if image_id:
            check_id(image_id)
        return super().add_image(image_id, image_filename, image_info)  # type: ignore[misc]

    def remove_image(self, image_id: str) -> None:
        super().remove_image(check_id(image_id))  # type: ignore[misc]

    def get_label_uri(self, label_id: str, label_tag: str, *rest: Any, **named: Any) -> str:
        check_id(label_tag, "label tag")
        return super().get_label_uri(check_id(label_id, "label id"), label_tag, *rest, **named)  # type: ignore[misc]

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Any, *rest: Any, **named: Any
    ) -> str:
        check_id(label_tag, "label tag")
        check_id(image_id)
        return super().save_label(image_id, label_filename, label_tag, label_info, *rest, **named)  # type: ignore[misc]

    def remove_label(self, label_id: str, label_tag: str) -> None:
        check_id(label_tag, "label tag")
        super().remove_label(check_id(label_id, "label id"), label_tag)  # type: ignore[misc]


def guarded(datastore: Any, *mixins: type) -> Any:
    """The same datastore, whichever MONAI Label has built, with every id checked first.

    Args:
        datastore: as MONAI Label's app makes it, from the settings that only it knows.
        mixins: what else comes before its own methods.
    """
    kind = type(datastore)
    datastore.__class__ = type(f"Checked{kind.__name__}", (_CheckedIds, *mixins, kind), {})
    return datastore
