"""Phantom patients whose lesions are known, and where a map is hot in them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray
from PIL import Image

from monai_medclip.data import make_phantom

SEED = 11  # not the seed that models are trained on
PATIENTS = 8
SHAPES = {"DX": {"image_size": 256}, "CT": {"image_size": 128, "slices": 56}}
_WARM = 0.5  # share of a map's maximum: the upper two of the three bands begin here


class Case(NamedTuple):
    """One patient's image and one lesion in it."""

    patient: str
    finding: str
    image: Path  # a DICOM file, a folder of slices, or a NIfTI file
    mask: Path
    phantom: Path  # the folder with manifest.csv and masks.csv

    @property
    def header(self) -> pydicom.Dataset:
        """Of the image's first DICOM file."""
        return pydicom.dcmread(self.files[0], stop_before_pixels=True)

    @property
    def files(self) -> list[Path]:
        """The image's files."""
        return sorted(self.image.iterdir()) if self.image.is_dir() else [self.image]


class Seen(NamedTuple):
    """A case whose lesion a map finds."""

    case: Case
    lps: NDArray[np.float64]  # (3,) mm, of the hottest voxel, which lies in the lesion
    covered: float  # share of the lesion, in the hottest voxel's slice, that is warm


def make_cases(folder: Path, *, modality: str, file_format: str = "dicom") -> list[Case]:
    """Generate patients; one case for every lesion, patient by patient."""
    make_phantom(
        folder,
        patients=PATIENTS,
        seed=SEED,
        modality=modality,
        file_format=file_format,
        progress=False,
        **SHAPES[modality],
    )
    with (folder / "manifest.csv").open(newline="") as rows:
        images = {row["id"]: folder / row["file"] for row in csv.DictReader(rows)}
    with (folder / "masks.csv").open(newline="") as rows:
        return [
            Case(row["id"], row["label"], images[row["id"]], folder / row["file"], folder)
            for row in csv.DictReader(rows)
        ]


def lesion_on(case: Case, image: sitk.Image) -> NDArray[np.bool_]:
    """The lesion's mask on an image's grid, indices in ITK's array order (z, y, x)."""
    if case.mask.suffix == ".png":  # a film's mask is a picture of the same rows and columns
        mask = np.asarray(Image.open(case.mask)) > 0
        return mask.reshape(sitk.GetArrayViewFromImage(image).shape)
    mask = sitk.ReadImage(str(case.mask), sitk.sitkUInt8)
    nearest = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(nearest) > 0


def first_seen(cases: Sequence[Case], float_map: Callable[[Case], sitk.Image]) -> Seen:
    """The first case whose map is hottest inside the lesion and warm over most of it there.

    Raises:
        AssertionError: if the model finds none of the lesions: it is not good enough to test viewers with.
    """
    for case in cases:
        if (seen := _seen(case, float_map(case))) is not None:
            return seen
    raise AssertionError(f"the model's maps miss the lesions of all {len(cases)} cases: train it for longer")


def _seen(case: Case, image: sitk.Image) -> Seen | None:
    values = sitk.GetArrayFromImage(image)
    lesion = lesion_on(case, image)
    hottest = np.unravel_index(values.argmax(), values.shape)
    if not lesion[hottest] or values.max() <= 0:
        return None
    here = lesion[hottest[0]]
    covered = float((values[hottest[0]][here] >= _WARM * values.max()).mean())
    point = image.TransformIndexToPhysicalPoint([int(index) for index in hottest[::-1]])
    return Seen(case, np.array(point), covered) if covered > 0.5 else None


def mask_image(case: Case, image: sitk.Image) -> sitk.Image:
    """The lesion's mask as an image of the same grid."""
    mask = sitk.GetImageFromArray(lesion_on(case, image).astype(np.uint8))
    mask.CopyInformation(image)
    return mask


def at(image: sitk.Image, points: NDArray[np.float64], outside: float = 0) -> NDArray[Any]:
    """Values of a volume at LPS points (..., 3), nearest voxel; ``outside`` where there is none."""
    step = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    index = np.rint((points - np.array(image.GetOrigin())) @ np.linalg.inv(step).T).astype(int)
    size = np.array(image.GetSize())
    inside = ((index >= 0) & (index < size)).all(axis=-1)
    x, y, z = np.moveaxis(np.clip(index, 0, size - 1), -1, 0)
    return np.where(inside, sitk.GetArrayFromImage(image)[z, y, x], outside)
