"""Forms with files, as HTTP sends them (RFC 7578): written for a request, read from an answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from typing import NamedTuple

__all__ = ["Body", "Part", "decode", "encode"]


class Part(NamedTuple):
    """One field of a form."""

    filename: str  # "" for a plain field
    content: bytes


class Body(NamedTuple):
    """A form ready to be sent."""

    content_type: str
    content: bytes


def encode(parts: Mapping[str, Part]) -> Body:
    """Write a form.

    Args:
        parts: fields by name; names and file names are our own, plain ASCII.
    """
    boundary = uuid.uuid4().hex
    lines = []
    for name, part in parts.items():
        filename = f'; filename="{part.filename}"' if part.filename else ""
        kind = "Content-Type: application/octet-stream\r\n" if part.filename else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n{kind}\r\n'
        lines += [head.encode("ascii"), part.content, b"\r\n"]
    lines.append(f"--{boundary}--\r\n".encode("ascii"))
    return Body(f"multipart/form-data; boundary={boundary}", b"".join(lines))


def decode(content_type: str, content: bytes) -> dict[str, Part]:
    """Read a form. The email package would do it too, but takes minutes for the floats of a CT.

    Args:
        content_type: the answer's header, with the boundary.
        content: the answer's body.

    Returns:
        fields by name.

    Raises:
        ValueError: there is no boundary, or a field has no name.
    """
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if not found:
        raise ValueError(f"the header {content_type!r} names no boundary.")
    mark = b"\r\n--" + found[1].encode("ascii")
    parts = {}
    for chunk in (b"\r\n" + content).split(mark)[1:]:
        if chunk.startswith(b"--"):
            return parts
        head, gap, body = chunk.partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name = headers.get_param("name", header="content-disposition")
        if not gap or not name:
            raise ValueError("a field of the form has no name.")
        parts[str(name)] = Part(headers.get_filename(""), body)
    raise ValueError("the form does not end: the answer was cut off.")
