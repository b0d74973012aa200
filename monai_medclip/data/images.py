"""Images without reports: what inference is given on the command line becomes items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["image_items"]

IMAGE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".nii", ".nii.gz", "")
"""What counts as an image in a folder; DICOM files often have no suffix."""


def image_items(images: str | Path | Sequence[str | Path]) -> list[dict[str, Any]]:
    """One item per image file.

    Args:
        images: a file, a folder (searched with its subfolders), or a list of files.

    Returns:
        Items with ``image`` (path) and ``id``: the file's name, or its whole path where two names are equal.

    Raises:
        FileNotFoundError: a file is not there, or a folder holds no image.
    """
    files = [images] if isinstance(images, (str, Path)) else list(images)
    paths = [path for file in files for path in _expand(Path(file))]
    names = [path.name for path in paths]
    return [{"image": str(path), "id": path.name if names.count(path.name) == 1 else str(path)} for path in paths]


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and _is_image(p))
    if not found:
        raise FileNotFoundError(f"{path}: neither an image file nor a folder that holds one. Correct the path.")
    return found


def _is_image(path: Path) -> bool:
    suffix = "".join(path.suffixes[-2:]).lower() if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
    return suffix in IMAGE_SUFFIXES
