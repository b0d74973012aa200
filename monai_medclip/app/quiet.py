"""What the server's log may hold at the default level: no prompts, paths, identifiers or names."""

from __future__ import annotations

import logging

__all__ = ["TALKATIVE", "hush"]

# At INFO these modules of MONAI Label print whole requests, results, file names and series UIDs.
TALKATIVE = (
    "__main__",  # MONAI Label's processes for training and scoring
    "monailabel.datastore",
    "monailabel.endpoints",
    "monailabel.interfaces",
    "monailabel.tasks",
    "monailabel.transform",
    "monailabel.utils",
    "dicomweb_client",
    "pydicom",
    "nrrd",
    # What the processes for training, scoring and batches print, the folders and ids that they were started with first.
    "task_train",
    "task_scoring",
    "task_batch_infer",
)


def hush() -> None:
    """Let MONAI Label's talkative modules say errors only, unless the server was started with ``--verbose DEBUG``."""
    if logging.getLogger().level <= logging.DEBUG:
        return
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
