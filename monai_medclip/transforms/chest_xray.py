"""Chest radiographs: any file becomes one gray channel from 0 to 1, bone bright, then the network's size and scale."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, NibabelReader, PILReader
from monai.transforms import Compose, MapTransform
from monai.utils import MetaKeys
from PIL import Image

from monai_medclip.transforms.dicom import RADIOGRAPH_MODALITIES, ITKRadiographReader, RadiographReader, is_dicom
from monai_medclip.transforms.display_order import DisplayOrderd
from monai_medclip.transforms.geometry import FitImaged
from monai_medclip.transforms.intensity import NormalizeForEncoderd, check_finite, robust_unit_range
from monai_medclip.transforms.rejects import BadInputError

_DICOM_READERS: dict[str, type[RadiographReader] | type[ITKRadiographReader]] = {
    "pydicom": RadiographReader,
    "itk": ITKRadiographReader,
}
_META = (MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPATIAL_SHAPE, MetaKeys.SPACE)
_DICOM_META = ("PatientOrientation", "Modality", "ViewPosition", "SOPInstanceUID", "StudyInstanceUID", "spacing_source")


def gray_image(image: Image.Image) -> Image.Image:
    """One channel of a PNG or JPEG: 16-bit stays 16-bit, color becomes luminance, transparency is dropped."""
    if image.mode in ("L", "F", "1") or image.mode.startswith("I"):
        return image
    return image.convert("RGB").convert("L")


class LoadRadiographd(MapTransform):
    """Load radiographs from DICOM, PNG, JPEG or 2D NIfTI as (1, x, y), float32, 0 to 1, bone bright.

    Stock `LoadImaged` leaves MONOCHROME1, VOI LUT and pixel padding to the user, gives ITK's films a third axis, tries
    one reader after the other on a bad file, and keeps metadata of every kind, which do not collate.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        reader: str = "pydicom",
        percentiles: tuple[float, float] = (0.5, 99.5),
        voi: bool = True,
        modalities: Sequence[str] = RADIOGRAPH_MODALITIES,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the loader.

        Args:
            keys: paths.
            reader: "pydicom" or "itk", for DICOM; both give the same picture.
            percentiles: pixel percentiles that become 0 and 1, see `robust_unit_range`.
            voi: apply the VOI LUT or window of a DICOM header first.
            modalities: accepted DICOM modalities.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a file that is missing, damaged, no radiograph, NaN, or constant.
        """
        super().__init__(keys, allow_missing_keys)
        if reader not in _DICOM_READERS:
            raise ValueError(f"reader is {reader!r}; choose one of {sorted(_DICOM_READERS)}.")
        self.dicom_reader = _DICOM_READERS[reader](voi=voi, background=float("nan"), modalities=modalities)
        self.percentiles = (float(percentiles[0]), float(percentiles[1]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its paths replaced by images."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._load(str(item[key]))
        return item

    def _load(self, path: str) -> MetaTensor:
        if Path(path).is_dir():
            raise BadInputError(path, "this is a folder, a radiograph is one file", "Name the file.")
        if not Path(path).is_file():
            raise BadInputError(path, "there is no such file", "Correct the path or the image root.")
        if is_dicom(path):
            values, meta = self.dicom_reader.get_data(self.dicom_reader.read(path))
        else:
            values, meta = read_picture(path)
            check_finite(values, path)
        pixels = robust_unit_range(values, path, percentiles=self.percentiles)
        slim = {name: meta[name] for name in (*_META, *_DICOM_META) if name in meta}
        slim[MetaKeys.SPATIAL_SHAPE] = np.asarray(pixels.shape)
        return MetaTensor(torch.from_numpy(pixels)[None], meta={**slim, "filename_or_obj": path})


def read_picture(path: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a PNG, JPEG, BMP, TIFF or 2D NIfTI.

    Args:
        path: the file.

    Returns:
        one gray channel (x, y) in the file's own units, and the reader's metadata.

    Raises:
        BadInputError: when it cannot be read, or is a volume.
    """
    nifti = path.lower().endswith((".nii", ".nii.gz"))
    reader = NibabelReader() if nifti else PILReader(converter=gray_image)
    try:
        values, meta = reader.get_data(reader.read(path))
    except Exception as error:  # what Pillow and nibabel raise depends on where the file is damaged
        reason = f"the image cannot be read ({type(error).__name__}: {error})"
        raise BadInputError(path, reason, "Export it again as DICOM, PNG, JPEG or NIfTI.") from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2:
        raise BadInputError(
            path, f"the image has shape {values.shape}, a radiograph has two axes", "Read CT with LoadCTd."
        )
    return np.asarray(values, np.float32), meta


class ChestXrayTransform(Compose):
    """From the path of a radiograph to what an encoder sees, as one line of a config.

    `LoadRadiographd`, `FitImaged`, the report's transforms, the random ones, `DisplayOrderd`, `NormalizeForEncoderd`.
    It must be the whole pipeline: inside another `Compose`, MONAI's `CacheDataset` takes it for a random transform.
    """

    def __init__(
        self,
        *,
        image_size: Sequence[int] = (224, 224),
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        keys: KeysCollection = "image",
        random: Sequence[Callable[..., Any]] = (),
        report: Sequence[Callable[..., Any]] = (),
    ) -> None:
        """Compose the pipeline.

        Args:
            image_size: (rows, columns) that the encoder wants.
            mean: the encoder's normalisation, see `NormalizeForEncoderd`.
            std: likewise.
            keys: the images.
            random: random transforms on images (1, columns, rows) from 0 to 1; for training.
            report: transforms of the text, ending in token ids; random ones last, so that the rest is cached.
        """
        rows, columns = image_size
        super().__init__(
            [
                LoadRadiographd(keys),
                FitImaged(keys, (columns, rows)),
                *report,
                *random,
                DisplayOrderd(keys),
                NormalizeForEncoderd(keys, mean, std),
            ]
        )
