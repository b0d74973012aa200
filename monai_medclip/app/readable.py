"""Files as clients send them become files that the bundles' loaders read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_medclip.transforms import BadInputError

__all__ = ["dicom_beside", "readable"]

_ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


@contextmanager
def readable(path: str | Path) -> Iterator[Path]:
    """The file itself, or what stands for it while the context lasts.

    Volumes that 3D Slicer sends may come as NRRD, which becomes NIfTI; see `dicom_beside` too.

    Raises:
        BadInputError: a file of another format is damaged.
    """
    path = dicom_beside(Path(path))
    if path.suffix.lower() in _ITK_SUFFIXES:
        with tempfile.TemporaryDirectory(prefix="medclip_") as scratch:
            yield _as_nifti(path, Path(scratch))
    else:
        yield path


def dicom_beside(path: Path) -> Path:
    """The folder of DICOM files that a datastore made a NIfTI from, if it did; else the path.

    A DICOMweb datastore hands out that NIfTI. The files beside it know more: MONOCHROME1, VOI LUT, padding, the kernel.
    """
    name = path.name.removesuffix(".gz")
    folder = path.with_name(name.removesuffix(".nii"))
    made = name.endswith(".nii") and folder.is_dir() and any(folder.iterdir())
    return folder if made else path


def _as_nifti(path: Path, folder: Path) -> Path:
    import SimpleITK as sitk  # noqa: N813 - its usual name

    made = folder / "volume.nii.gz"
    try:
        sitk.WriteImage(sitk.ReadImage(str(path)), str(made), useCompression=False)
    except RuntimeError as error:
        reason = "the volume cannot be read"
        raise BadInputError(path, reason, "Save it again as NRRD or NIfTI.") from error
    return made
