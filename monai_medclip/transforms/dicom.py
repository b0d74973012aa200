"""One radiograph DICOM file becomes pixels from 0 (black) to 1 (white), bone bright, whichever library read it.

The order is the standard's: Modality LUT or rescale, VOI LUT or window, then the photometric interpretation. Pixel
padding is kept out of all of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from monai.data import ITKReader, PydicomReader
from monai.utils import MetaKeys
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_medclip.transforms.rejects import BadInputError

logger = logging.getLogger(__name__)

Pixels = NDArray[Any]

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG")
CAPTURE_MODALITIES = ("OT", "SC")  # secondary captures: a radiograph only if the header speaks of a chest
_CHEST_WORDS = ("CHEST", "THORAX", "CXR", "LUNG")
_META_TAGS = ("Modality", "ViewPosition", "SOPInstanceUID", "StudyInstanceUID")


class PixelSpacing(NamedTuple):
    """Distance between pixel centers."""

    row_mm: float  # from one row to the next
    column_mm: float  # from one column to the next
    source: str  # the attribute it comes from; "" when the file does not say and 1 mm stands in


def is_dicom(path: str | Path) -> bool:
    """Whether a path is a DICOM file, by its suffix or by the DICM prefix."""
    path = Path(path)
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_dicom(path: str | Path, *, header_only: bool = False) -> Dataset:
    """Read one DICOM file.

    Args:
        path: the file.
        header_only: leave the pixels on disk.

    Raises:
        BadInputError: when it is missing, truncated or not DICOM.
    """
    if not Path(path).is_file():
        raise BadInputError(path, "there is no such file", "Correct the path or the image root.")
    try:
        return pydicom.dcmread(str(path), stop_before_pixels=header_only)
    except pydicom.errors.InvalidDicomError as error:
        remedy = "If it is an image under a wrong name, rename it; else export it again from the archive."
        raise BadInputError(path, "this is not a DICOM file (no DICM prefix)", remedy) from error
    except Exception as error:  # what pydicom raises depends on where the file was cut
        reason = f"the DICOM file is damaged or truncated ({type(error).__name__}: {error})"
        raise BadInputError(path, reason, "Export it again from the archive.") from error


def check_radiograph(dataset: Dataset, path: str | Path, modalities: Sequence[str] = RADIOGRAPH_MODALITIES) -> None:
    """Refuse what is not one radiograph.

    Args:
        dataset: the header.
        path: its file, for the message.
        modalities: accepted values of Modality (0008,0060). Secondary captures (OT, SC) pass too when body part or
            description names the chest.

    Raises:
        BadInputError: for another modality, several frames, or a color palette.
    """
    modality = str(dataset.get("Modality", "")).upper()
    words = " ".join(
        str(dataset.get(tag, "")) for tag in ("BodyPartExamined", "StudyDescription", "SeriesDescription")
    ).upper()
    capture = modality in CAPTURE_MODALITIES and any(word in words for word in _CHEST_WORDS)
    if modality not in modalities and not capture:
        remedy = (
            "Read CT with LoadCTd." if modality == "CT" else f"If it is a radiograph, add {modality!r} to modalities."
        )
        raise BadInputError(path, f"Modality is {modality!r}, not a radiograph ({', '.join(modalities)})", remedy)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise BadInputError(path, f"the file has {frames} frames; a radiograph has one", "Export one frame per file.")
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise BadInputError(path, "the pixels are a color palette", "Export it as MONOCHROME2 or RGB.")


def stored_pixels(dataset: Dataset, path: str | Path) -> Pixels:
    """Decode the stored pixel values of one frame.

    Returns:
        stored values (rows, columns); a color capture becomes its luminance.

    Raises:
        BadInputError: when there are no pixels, fewer than the header says, or no decoder for their compression.
    """
    if "PixelData" not in dataset:
        raise BadInputError(
            path, "the DICOM file has no pixel data", "Export the image object, not its report or state."
        )
    try:
        pixels = np.asarray(dataset.pixel_array)
    except Exception as error:  # what pydicom and its plugins raise differs by version and decoder
        first_line = str(error).splitlines()[0] if str(error) else ""
        reason = f"the pixels cannot be decoded ({type(error).__name__}: {first_line})"
        missing = any(word in str(error).lower() for word in ("missing", "plugin", "handler", "install"))
        remedy = 'Install the decoders: pip install "monai-medclip[dicom]".' if missing else "Export the image again."
        raise BadInputError(path, reason, remedy) from error
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        luminance = np.array([1.0, 0, 0] if "YBR" in dataset.PhotometricInterpretation else [0.299, 0.587, 0.114])
        pixels = np.rint(pixels @ luminance).astype(pixels.dtype)
    return pixels


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """Lowest and highest value that Bits Stored and Pixel Representation allow."""
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(dataset.get("PixelRepresentation", 0)) else (0, 2**bits - 1)


def pixel_spacing(dataset: Dataset) -> PixelSpacing:
    """Spacing of a radiograph: calibrated PixelSpacing, else ImagerPixelSpacing (at the detector), else 1 mm.

    Values that are not positive count as absent.

    References:
        DICOM PS3.3 10.7.1.3 (Pixel Spacing Calibration)
    """
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        value = dataset.get(tag)
        if value is not None and len(value) == 2 and min(float(v) for v in value) > 0:
            return PixelSpacing(float(value[0]), float(value[1]), tag)
    return PixelSpacing(1.0, 1.0, "")


def _lookup(values: Pixels, lut: Dataset) -> tuple[Pixels, float]:
    """One LUT item's entries, and the highest possible one; pydicom's own wraps at 256 for long tables of 8 bits."""
    entries, first, bits = (int(n) for n in lut.LUTDescriptor)
    raw = lut.LUTData
    table = np.frombuffer(raw, "<u2") if isinstance(raw, bytes) else np.asarray(raw)
    index = np.clip(values.astype(np.int64) - first, 0, min(entries or 2**16, len(table)) - 1)
    return table[index].astype(np.float32), float(2**bits - 1)


def _window(values: Pixels, dataset: Dataset) -> Pixels | None:
    """The first window, to 0..1 (PS3.3 C.11.2.1.2 and C.11.2.1.3); ``None`` without one or with an invalid width."""
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    center, width = (float(np.atleast_1d(dataset[tag].value)[0]) for tag in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR").upper()
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width <= 0:
        logger.warning("window width %s is not valid and is not applied", dataset.WindowWidth)
        return None
    scaled = (values - np.float32(center)) / np.float32(width)
    return 1 / (1 + np.exp(-4 * scaled)) if function == "SIGMOID" else np.clip(scaled + 0.5, 0, 1)


def presented_pixels(stored: Pixels, dataset: Dataset, *, voi: bool = True, background: float = 0.0) -> Pixels:
    """Stored values as they are to be shown.

    Args:
        stored: stored values (rows, columns).
        dataset: the header.
        voi: apply the VOI LUT, or else the first window.
        background: value given to pixel padding; ``nan`` marks it.

    Returns:
        float32 (rows, columns), 0 (black) to 1 (white), with bone bright.
    """
    low, high = (float(v) for v in stored_range(dataset))
    values = stored.astype(np.float32)
    if dataset.get("ModalityLUTSequence"):
        values, high = _lookup(stored, dataset.ModalityLUTSequence[0])
        low = 0.0
    elif "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        values, (low, high) = values * slope + intercept, sorted((low * slope + intercept, high * slope + intercept))
    shown = _window(values, dataset) if voi else None
    if voi and dataset.get("VOILUTSequence"):
        values, high = _lookup(np.rint(values), dataset.VOILUTSequence[0])
        low, shown = 0.0, None
    shown = (values - low) / (high - low) if shown is None else shown
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown  # MONOCHROME1 shows its lowest value white (PS3.3 C.7.6.3.1.2): bone is stored dark
    return np.where(padded_pixels(stored, dataset), background, shown).astype(np.float32)


def padded_pixels(stored: Pixels, dataset: Dataset) -> Pixels:
    """Where the image holds Pixel Padding Value, or lies between it and its Range Limit (PS3.3 C.7.5.1.1.2).

    Args:
        stored: stored values, any shape.
        dataset: the header.

    Returns:
        true for padding: of the shape of `stored`, or () where the header names none.
    """
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros((), bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(end, dataset) for end in (value, value if limit is None else limit)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(value: int, dataset: Dataset) -> int:
    """A header's value with the sign of the pixels: some writers give 63536 beside signed pixels that hold -2000."""
    bits = int(dataset.BitsAllocated)
    value = int(value) % 2**bits
    return value - 2**bits if int(dataset.get("PixelRepresentation", 0)) and value >= 2 ** (bits - 1) else value


def _meta(dataset: Dataset, spacing: PixelSpacing) -> dict[str, Any]:
    meta = {tag: str(dataset[tag].value or "") for tag in _META_TAGS if tag in dataset}
    orientation = dataset.get("PatientOrientation") or ()
    meta["PatientOrientation"] = "\\".join(str(part) for part in orientation)
    return {**meta, "spacing_source": spacing.source}


class RadiographReader(PydicomReader):
    """MONAI's PydicomReader for radiographs, which stock leaves as stored: no MONOCHROME1, VOI LUT, padding or spacing.

    Gives pixels (x, y), 0 to 1, an affine with the spacing in mm (as ITK gives a film: x toward the patient's left, y
    down), and PatientOrientation in the metadata for `DisplayOrderd`.
    """

    def __init__(
        self,
        *,
        voi: bool = True,
        background: float = 0.0,
        modalities: Sequence[str] = RADIOGRAPH_MODALITIES,
    ) -> None:
        """Set the reader.

        Args:
            voi: apply the VOI LUT or window of the header.
            background: value given to pixel padding; ``nan`` marks it for the next step.
            modalities: accepted modalities, see `check_radiograph`.
        """
        super().__init__()
        self.voi, self.background, self.modalities = voi, background, tuple(modalities)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Read one file, or several to be stacked; raises `BadInputError`."""
        self.filenames = [str(name) for name in ([data] if isinstance(data, str | Path) else data)]
        self.has_series = False
        datasets = [read_dicom(name) for name in self.filenames]
        return datasets[0] if len(datasets) == 1 else datasets

    def _get_array_data(self, img: Dataset, filename: str) -> Pixels:
        name = str(getattr(img, "filename", None) or filename)  # the reader may be shared between threads
        check_radiograph(img, name, self.modalities)
        return presented_pixels(stored_pixels(img, name), img, voi=self.voi, background=self.background)

    def _get_meta_dict(self, img: Dataset) -> dict[str, Any]:
        spacing = pixel_spacing(img)
        return {**_meta(img, spacing), "spacing_mm": (spacing.row_mm, spacing.column_mm)}

    def _get_affine(self, metadata: dict[str, Any], lps_to_ras: bool = True) -> Pixels:
        row_mm, column_mm = metadata["spacing_mm"]
        sign = -1.0 if lps_to_ras else 1.0
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        # (row, column) -> world; `get_data` swaps the two columns together with the array's axes
        affine[:2, :2] = [[0.0, sign * column_mm], [sign * row_mm, 0.0]]
        return affine


class ITKRadiographReader(ITKReader):
    """The same picture through ITK (GDCM's decoders), which has inverted MONOCHROME1 and rescaled already."""

    def __init__(
        self,
        *,
        voi: bool = True,
        background: float = 0.0,
        modalities: Sequence[str] = RADIOGRAPH_MODALITIES,
    ) -> None:
        """Set the reader; arguments as for `RadiographReader`."""
        super().__init__()
        self.like = RadiographReader(voi=voi, background=background, modalities=modalities)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Read one file; raises `BadInputError`."""
        (name,) = [data] if isinstance(data, str | Path) else data
        header = read_dicom(name, header_only=True)
        check_radiograph(header, name, self.like.modalities)
        try:
            return super().read(str(name), **kwargs), header
        except RuntimeError as error:
            reason = f"ITK cannot decode the pixels ({str(error).strip().splitlines()[-1]})"
            raise BadInputError(name, reason, "Export it again, or read it with reader='pydicom'.") from error

    def get_data(self, img: Any) -> tuple[Pixels, dict[str, Any]]:
        """Pixels (x, y), 0 to 1, and the metadata that `RadiographReader` gives."""
        image, header = img
        values = self._get_array_data(image).reshape(header.Columns, header.Rows, -1)[..., 0]
        slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        stored = np.rint((values - intercept) / slope).astype(np.int64)
        if header.PhotometricInterpretation == "MONOCHROME1":
            stored = sum(stored_range(header)) - stored  # undo GDCM's inversion: the window applies before it
        pixels = presented_pixels(stored, header, voi=self.like.voi, background=self.like.background)
        meta = self.like._get_meta_dict(header)
        affine = self.like._get_affine(meta)[:, [1, 0, 2, 3]]
        meta.update({MetaKeys.AFFINE: affine, MetaKeys.ORIGINAL_AFFINE: affine.copy()})
        return pixels, {**meta, MetaKeys.SPATIAL_SHAPE: np.asarray(pixels.shape)}
