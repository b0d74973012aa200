"""What the server's log may hold at the default level: no prompts, paths, identifiers or names."""

from __future__ import annotations

import logging

__all__ = ["TALKATIVE", "hush"]

# At INFO these modules of MONAI Label print whole requests, results, file names and series UIDs.
TALKATIVE = (
    "monailabel.datastore",
    "monailabel.endpoints",
    "monailabel.interfaces",
    "monailabel.tasks",
    "monailabel.transform",
    "monailabel.utils",
    "dicomweb_client",
    "pydicom",
    "nrrd",
)


def hush() -> None:
    """Let MONAI Label's talkative modules say warnings only, unless the server was started with ``--verbose DEBUG``."""
    if logging.getLogger().level <= logging.DEBUG:
        return
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
