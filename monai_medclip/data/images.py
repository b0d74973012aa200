"""Images without reports: what inference is given, on the command line or by a split, becomes items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["image_items"]

IMAGE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".nii", ".nii.gz", ".npy", "")
"""What counts as an image in a folder; DICOM files often have no suffix."""
DICOM_SUFFIXES = (".dcm", ".dicom", "")


def image_items(
    images: str | Path | Sequence[str | Path | Mapping[str, Any]],
    *,
    key: str = "image",
    text: str | None = None,
    volumes: bool = False,
) -> list[dict[str, Any]]:
    """One item per image file, or per folder of DICOM slices; what is an item already stays one.

    Args:
        images: a file, a folder (searched with its subfolders), or a list of files and items.
        key: entry of the items that holds the path.
        text: a report for items that bring none.
        volumes: a folder with DICOM files in it is one volume; without, each of them is an image of its own. For a
            folder that holds several series see `read_ct_folder`, whose items may be given here.

    Returns:
        Items with `key` (path) and ``id``: the name of the file or folder, or the path where two names are equal.

    Raises:
        FileNotFoundError: a file is not there, or a folder holds no image.
    """
    entries = [images] if isinstance(images, (str, Path)) else list(images)
    items = [dict(entry) for entry in entries if isinstance(entry, Mapping)]
    paths = [path for entry in entries if not isinstance(entry, Mapping) for path in _expand(Path(entry), volumes)]
    names = Counter(path.name for path in paths)
    items += [{key: str(path), "id": path.name if names[path.name] == 1 else str(path)} for path in paths]
    return items if text is None else [{"text": text, **item} for item in items]


def _expand(path: Path, volumes: bool) -> list[Path]:
    if path.is_file():
        return [path]
    files = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".") and _is_image(p))
    found = sorted({p.parent if volumes and p.suffix.lower() in DICOM_SUFFIXES else p for p in files})
    if not found:
        raise FileNotFoundError(f"{path}: neither an image file nor a folder that holds one. Correct the path.")
    return found


def _is_image(path: Path) -> bool:
    suffix = "".join(path.suffixes[-2:]).lower() if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
    return suffix in IMAGE_SUFFIXES
