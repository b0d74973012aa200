"""Where the patient is in a CT: not the table, not the clothes, not the air around, and not the scanner's padding."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from monai.utils import ensure_tuple
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes
from skimage.measure import label

from monai_medclip.transforms.display_order import DisplayOrderd
from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["PATIENT_AXES", "BodyMaskd", "body_mask", "padding_mask"]

Mask = NDArray[np.bool_]
Spacing = Sequence[float]

PATIENT_AXES = "LPS"  # x toward the patient's left, y toward the back, z toward the head: what the finders expect
PADDING_HU = (-2000.0, -2048.0, -3024.0, -3072.0, -32768.0)  # what scanners and exporters write outside their field
_TISSUE_HU = -500.0  # halfway from air to water
_NO_TISSUE_HU = -1100.0  # air is -1000 and noise reaches a little below; what lies beyond was written, not seen
_AIR_HU = -1000.0
_GRID_MM = 1.5  # masks are found on about this grid: half the resolution of a usual chest CT
_THIN_MM = 5.0  # table shells, blankets and tubes are thinner than this, chest walls are not
_SMALLEST_BODY_ML = 400.0  # the chest of a newborn; a crop around a nodule is smaller


class CoarseGrid(NamedTuple):
    """A volume on a coarser grid, and the way back."""

    hu: NDArray[np.float32]  # (x, y, z) averages over blocks, -1000 or more
    spacing_mm: tuple[float, float, float]
    steps: tuple[int, int, int]  # voxels per block and axis
    shape: tuple[int, int, int]  # of the volume

    def refine(self, mask: NDArray[Any]) -> NDArray[Any]:
        """A mask of the coarse grid on the volume's own grid, (x, y, z)."""
        for axis, step in enumerate(self.steps):
            mask = mask.repeat(step, axis=axis) if step > 1 else mask
        return np.ascontiguousarray(mask[tuple(slice(n) for n in self.shape)])

    @property
    def voxel_ml(self) -> float:
        """Volume of a coarse voxel."""
        return float(np.prod(self.spacing_mm)) / 1000


def coarsen(volume_hu: NDArray[Any], spacing_mm: Spacing) -> CoarseGrid:
    """Average a volume over blocks of about 1.5 mm; axes that are as coarse already stay as they are.

    Args:
        volume_hu: (x, y, z); everything below -1000, padding too, counts as air.
        spacing_mm: of its three axes, positive.

    Raises:
        ValueError: the volume does not have three axes, or the spacing is not three positive numbers.
    """
    if volume_hu.ndim != 3 or len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise ValueError(
            f"volume_hu has shape {volume_hu.shape} and spacing_mm is {tuple(spacing_mm)}: give (x, y, z) and three "
            "positive numbers in mm."
        )
    sx, sy, sz = (max(1, round(_GRID_MM / mm)) for mm in spacing_mm)
    nx, ny, nz = volume_hu.shape
    coarse = np.empty((-(-nx // sx), -(-ny // sy), -(-nz // sz)), np.float32)
    for block in range(coarse.shape[2]):  # slab by slab: a whole second volume would not fit everywhere
        slab = volume_hu[:, :, block * sz : (block + 1) * sz].astype(np.float32).mean(axis=2)
        plane = torch.from_numpy(np.clip(slab, _AIR_HU, None))[None, None]
        coarse[:, :, block] = F.avg_pool2d(plane, (sx, sy), ceil_mode=True, count_include_pad=False)[0, 0].numpy()
    x_mm, y_mm, z_mm = spacing_mm
    return CoarseGrid(coarse, (x_mm * sx, y_mm * sy, z_mm * sz), (sx, sy, sz), (nx, ny, nz))


def padding_mask(volume_hu: NDArray[Any], *, padding_hu: float | None = None) -> Mask:
    """Voxels that the scanner or an exporter filled in because nothing was measured there.

    Known fillers are -2000, -2048, -3024, -3072 and -32768; any other lowest value below -1100 counts as one too.
    `LoadCTd` turns all of them into -1024, air: ask before, on the file's own values.

    Args:
        volume_hu: values of any shape, finite.
        padding_hu: the file's Pixel Padding Value after rescaling, where it has one.

    Returns:
        (*shape), true for padding.

    References:
        DICOM PS3.3 C.7.5.1.1.2 (Pixel Padding Value)
    """
    lowest = float(volume_hu.min())
    fillers = {filler for filler in PADDING_HU if filler >= lowest}
    if lowest < _NO_TISSUE_HU:
        fillers.add(lowest)
    if padding_hu is not None:
        fillers.add(float(padding_hu))
    found = np.zeros(volume_hu.shape, bool)
    if lowest < _NO_TISSUE_HU or padding_hu is not None:
        for filler in sorted(fillers):
            found |= volume_hu == filler
    return found


def largest_component(mask: Mask) -> Mask:
    """The largest face-connected part of a mask; an empty mask stays empty."""
    parts = label(mask, connectivity=1)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax()) & mask


def fill_planes(mask: Mask, axes: Sequence[int] = (2, 1, 0)) -> Mask:
    """Fill what a mask (x, y, z) encloses in each axial (axis 2), then coronal (1), then sagittal plane (0)."""
    for axis in axes:
        planes = [binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)]
        mask = np.stack(planes, axis=axis)
    return mask


def _ball(radius_mm: float, spacing_mm: Spacing) -> Mask:
    """The voxels whose centers lie within a radius; of a few, which costs less than a distance map of the volume."""
    reach = [int(radius_mm / mm) for mm in spacing_mm]
    away = np.meshgrid(*(mm * np.arange(-n, n + 1) for n, mm in zip(reach, spacing_mm, strict=True)), indexing="ij")
    return np.asarray(np.sqrt(sum(part**2 for part in away)) <= radius_mm)


def coarse_body(grid: CoarseGrid, file: str | Path) -> Mask:
    """`body_mask` on a coarse grid."""
    tissue = grid.hu > _TISSUE_HU
    ball = _ball(_THIN_MM / 2, grid.spacing_mm)
    core = largest_component(binary_erosion(tissue, ball, border_value=1))
    body = core
    if core.any():
        body = fill_planes(binary_dilation(core, ball) & tissue, axes=(2,))
    body_ml = float(body.sum()) * grid.voxel_ml
    if body_ml < _SMALLEST_BODY_ML:
        reason = (
            f"no body found: {tissue.mean():.0%} of the voxels lie above {_TISSUE_HU:g} HU, and the largest solid part "
            f"and what it encloses is {body_ml:.0f} ml, less than {_SMALLEST_BODY_ML:g} ml"
        )
        raise BadInputError(file, reason, "Give a whole chest CT in HU; a crop around a nodule has no body to find.")
    return body


def body_mask(volume_hu: NDArray[Any], spacing_mm: Spacing, *, file: str | Path = "the volume") -> Mask:
    """Find the patient: the largest part above -500 HU once all that is thinner than 5 mm is gone, with its inside.

    The table's shell, blankets, tubes and wires are thin; arms beside the trunk are separate parts and left out.

    Args:
        volume_hu: (x, y, z), with z along the body; `BodyMaskd` turns any volume so.
        spacing_mm: of its three axes.
        file: what to call it in an error.

    Returns:
        (x, y, z), true inside the patient, lungs and bowel gas included.

    Raises:
        BadInputError: no part of 400 ml or more is found: a crop, or not HU.
    """
    grid = coarsen(volume_hu, spacing_mm)
    return grid.refine(coarse_body(grid, file))


Finder = Callable[[NDArray[Any], Spacing, str], NDArray[Any]]


def mask_of(image: MetaTensor, find: Finder, name: str) -> MetaTensor:
    """Run a finder that knows one orientation only on a volume of any orientation.

    Args:
        image: volume (1, *spatial) in HU, axes in any order, oblique or not.
        find: called with (x, y, z) as in `PATIENT_AXES`, the spacing in mm and `name`; gives a mask of that shape.
        name: what errors call the image.

    Returns:
        mask (1, *spatial), uint8, on the image's grid, with the image's meta data and history.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"{name} has shape {tuple(image.shape)}: a mask is found in one volume (1, x, y, z) of HU.")
    turn = DisplayOrderd("volume", spatial_dims=3, axcodes=PATIENT_AXES)
    turned = turn({"volume": image})["volume"]
    spacing_mm = affine_to_spacing(turned.affine.double()).tolist()
    found = find(turned.as_tensor()[0].cpu().numpy(), spacing_mm, name)
    mask = MetaTensor(torch.from_numpy(found.astype(np.uint8))[None]).copy_meta_from(turned)
    return turn.inverse({"volume": mask})["volume"]


class BodyMaskd(MapTransform):
    """Add a mask of the patient, on the volume's own grid, whatever its axes.

    Stock `MaskIntensityd("heat", mask_key="body")` then keeps a heatmap inside the patient.
    """

    def __init__(
        self, keys: KeysCollection, mask_keys: KeysCollection = "body", *, allow_missing_keys: bool = False
    ) -> None:
        """Set the keys.

        Args:
            keys: volumes (1, *spatial) in HU, as `LoadCTd` makes them, turned or cropped or not.
            mask_keys: where their masks go, one per key: (1, *spatial), uint8, 1 inside the patient.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.mask_keys = paired_keys(self.keys, mask_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its masks.

        Raises:
            BadInputError: a volume shows no body; see `body_mask`.
        """
        item = dict(data)
        for key, mask_key in self.key_iterator(item, self.mask_keys):
            item[mask_key] = mask_of(item[key], _find_body, item_name(item))
        return item


def _find_body(volume_hu: NDArray[Any], spacing_mm: Spacing, file: str) -> Mask:
    return body_mask(volume_hu, spacing_mm, file=file)


def paired_keys(keys: Sequence[Hashable], mask_keys: KeysCollection) -> tuple[Hashable, ...]:
    """The masks' keys, one per volume; a `ValueError` otherwise."""
    paired = tuple(ensure_tuple(mask_keys))
    if len(paired) != len(keys) or set(paired) & set(keys):
        raise ValueError(f"mask_keys {paired} must name one new key for each of {tuple(keys)}.")
    return paired
