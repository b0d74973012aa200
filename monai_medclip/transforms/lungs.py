"""Where the lungs are in a CT, found by thresholds in seconds or by lungmask's network; and the crop to them."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data.utils import affine_to_spacing
from monai.transforms import Crop, InvertibleTransform, MapTransform
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass, distance_transform_edt
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_closing
from skimage.segmentation import watershed

from monai_medclip.transforms.body import (
    CoarseGrid,
    Finder,
    Mask,
    Spacing,
    coarse_body,
    coarsen,
    fill_planes,
    mask_of,
    paired_keys,
)
from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["LEFT_LUNG", "RIGHT_LUNG", "CropLungsd", "LungMaskd", "find_lung_sides", "find_lungs"]

RIGHT_LUNG, LEFT_LUNG = 1, 2  # lungmask's labels

Labels = NDArray[np.uint8]

_AIR_HU = -400.0  # aerated lung lies below, vessels, walls and nodules above
_AERATED_HU = (-920.0, -600.0)  # what is lung and neither air nor the edge of something solid
_BESIDE_SHARE = 0.5  # whole CTs have up to 0.24 (blankets, foam); crops of one, 120 to 220 mm wide, 0.62 and more
_GAS_HU = -970.0  # the median of bowel gas and of a windpipe; the lungs of the worst emphysema stay above
_SMALLEST_LUNGS_ML = 50.0  # both lungs of a newborn
_SECOND_LUNG_SHARE = 0.1  # a smaller second part is stomach gas, or a lung of which next to nothing is aerated
_CLOSING_MM = 8.0  # a nodule at the pleura up to about 16 mm wide, and the vessels of the hilum, belong to the lung
_PARTING_MM = (0.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0)  # how far lungs that touch are worn down until they part
_LUMEN_HU = -920.0  # the inside of a windpipe; lung around it that is not emphysematous lies above
_TRACHEA_MM2 = (40.0, 900.0)  # cross-section of a windpipe, a child's to a wide one with both bronchi
_TRACHEA_OFF_MM = 40.0  # how far from the body's midline it is looked for
_LUNG_MM2 = 3000.0  # a slice with more air than this in one part shows lungs: no windpipe begins below it
_REMEDY = "Give a whole chest CT in HU, or read this one without looking for lungs."


def find_lungs(volume_hu: NDArray[Any], spacing_mm: Spacing, *, file: str | Path = "the volume") -> Mask:
    """Find both lungs by threshold, as one mask; see `find_lung_sides`."""
    return find_lung_sides(volume_hu, spacing_mm, file=file) > 0


def find_lung_sides(volume_hu: NDArray[Any], spacing_mm: Spacing, *, file: str | Path = "the volume") -> Labels:
    """Find the right and the left lung by threshold.

    Air inside the body, without the windpipe and the main bronchi, in its one or two largest parts; parted where the
    lungs touch; each closed with a ball of 8 mm and filled plane by plane, so that nodules at the pleura and vessels
    belong to it. Found on a grid of about 1.5 mm. What holds no air (effusions, collapsed or consolidated lung, a mass
    at the pleura wider than the ball) is not found.

    Args:
        volume_hu: (x, y, z) in `PATIENT_AXES`: x toward the patient's left, z toward the head. `LungMaskd` turns any
            volume so.
        spacing_mm: of its three axes.
        file: what to call it in an error.

    Returns:
        (x, y, z): 0, 1 in the right and 2 in the left lung.

    Raises:
        BadInputError: no body, less than 50 ml of aerated lung in it, or lungs cut open by the field of view: a crop,
            an abdomen, or not HU.
    """
    grid = coarsen(volume_hu, spacing_mm)
    body = coarse_body(grid, file)
    air = (grid.hu < _AIR_HU) & body
    windpipe = _windpipe(grid.hu, air, body, grid.spacing_mm)
    parts = label(air & ~windpipe, connectivity=1)
    lungs = np.isin(parts, _largest_two(parts)) & air & ~windpipe
    _check_lungs(grid, air, lungs, file)
    _check_whole(grid, body, file)
    box = _box(lungs, [int(np.ceil(_CLOSING_MM / mm)) + 1 for mm in grid.spacing_mm])
    sides = _part_sides(lungs[box], grid.spacing_mm, middle=_middle(body) - box[0].start)
    closed = np.zeros(lungs.shape, np.uint8)
    closed[box] = _close(sides, (body & ~windpipe)[box], grid.spacing_mm)
    return grid.refine(closed)


def _largest_two(parts: NDArray[np.int_]) -> list[int]:
    """Numbers of the largest part, and of the second one unless it is less than a tenth of it."""
    sizes = np.bincount(parts.ravel(), minlength=3)
    sizes[0] = 0
    first, second = (int(part) for part in np.argsort(sizes)[:-3:-1])
    return [first, second] if sizes[second] >= max(1, _SECOND_LUNG_SHARE * sizes[first]) else [first]


def _check_lungs(grid: CoarseGrid, air: Mask, lungs: Mask, file: str | Path) -> None:
    found_ml = float(lungs.sum()) * grid.voxel_ml
    median_hu = float(np.median(grid.hu[lungs])) if found_ml else float("nan")
    if found_ml < _SMALLEST_LUNGS_ML or median_hu < _GAS_HU:
        reason = (
            f"no lung found: {air.mean():.1%} of the voxels are air inside the body, the largest parts of it "
            f"{found_ml:.0f} ml at {median_hu:.0f} HU (lungs have {_SMALLEST_LUNGS_ML:g} ml or more above {_GAS_HU:g})"
        )
        raise BadInputError(file, reason, _REMEDY)


def _check_whole(grid: CoarseGrid, body: Mask, file: str | Path) -> None:
    """Refuse what has much of its lung beside the body: the field of view cuts the lungs open, as a crop does."""
    aerated = (grid.hu > _AERATED_HU[0]) & (grid.hu < _AERATED_HU[1])
    beside = 0
    for z in np.flatnonzero(body.any(axis=(0, 1))):
        box = _box(body[..., z], [0, 0])  # blankets and the table lie mostly outside it
        beside += int((aerated[..., z] & ~body[..., z])[box].sum())
    inside = int((aerated & body).sum())
    if beside > _BESIDE_SHARE * inside:
        reason = (
            f"the field of view cuts the lungs open: {inside * grid.voxel_ml:.0f} ml of the aerated lung are enclosed "
            f"by the body, {beside * grid.voxel_ml:.0f} ml are not"
        )
        raise BadInputError(file, reason, _REMEDY)


def _windpipe(hu: NDArray[np.float32], air: Mask, body: Mask, spacing_mm: Spacing) -> Mask:
    """The windpipe and the main bronchi: followed from the highest slice downward until they reach the lungs."""
    pixel_mm2, middle = spacing_mm[0] * spacing_mm[1], _middle(body)
    found, above = np.zeros_like(air), None
    for z in range(air.shape[2] - 1, -1, -1):
        parts = label(air[..., z], connectivity=1)
        lungs_seen = np.bincount(parts.ravel(), minlength=2)[1:].max() * pixel_mm2 > _LUNG_MM2
        if above is not None:
            above = _below(above, parts, pixel_mm2)
            if above is None:  # its wall is thinner than a voxel where it touches the lung
                lumen = label(air[..., z] & (hu[..., z] < _LUMEN_HU), connectivity=1)
                above = _below(found[..., z + 1], lumen, pixel_mm2)
        if above is None and not (lungs_seen and found.any()):  # the pharynx may end before the windpipe begins
            above = _first_ring(parts, middle, spacing_mm)
        if above is not None:
            found[..., z] = above
        elif lungs_seen:
            break
    return found


def _below(above: Mask, parts: NDArray[np.int_], pixel_mm2: float) -> Mask | None:
    """The parts of a slice (x, y) under what was found in the slice above, unless they are too large."""
    areas_mm2 = np.bincount(parts.ravel()) * pixel_mm2
    below = [part for part in np.unique(parts[above]) if part and areas_mm2[part] <= _TRACHEA_MM2[1]]
    return np.isin(parts, below) if below else None


def _first_ring(parts: NDArray[np.int_], middle: float, spacing_mm: Spacing) -> Mask | None:
    """The part of a slice (x, y) that a windpipe can be: of its size, round, and the nearest to the midline."""
    near: list[tuple[float, int]] = []
    for part in regionprops(parts):
        off_mm = abs(part.centroid[0] - middle) * spacing_mm[0]
        area_mm2 = part.area * spacing_mm[0] * spacing_mm[1]
        fits = _TRACHEA_MM2[0] <= area_mm2 <= _TRACHEA_MM2[1] and off_mm <= _TRACHEA_OFF_MM
        if fits and part.solidity > 0.8:
            near.append((off_mm, int(part.label)))
    return np.asarray(parts == min(near)[1]) if near else None


def _middle(mask: Mask) -> float:
    """The x index of a mask's center of mass."""
    return float(center_of_mass(mask)[0])


def _box(mask: Mask, margin: list[int]) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty, and `margin` voxels more per axis, inside the array."""
    box = []
    for axis, (n, more) in enumerate(zip(mask.shape, margin, strict=True)):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(used[0]) - more), min(n, int(used[-1]) + 1 + more)))
    return tuple(box)


def _part_sides(lungs: Mask, spacing_mm: Spacing, *, middle: float) -> Labels:
    """Label right and left: worn down until a large part remains on either side, which grow back to where they meet."""
    depth_mm = distance_transform_edt(lungs, sampling=spacing_mm)
    for worn_mm in _PARTING_MM:
        parts = label(depth_mm > worn_mm, connectivity=1)
        largest = _largest_two(parts)
        if len(largest) < 2:
            continue
        right, left = sorted((_middle(parts == part), part) for part in largest)
        if right[0] < middle < left[0]:
            seeds = RIGHT_LUNG * (parts == right[1]) + LEFT_LUNG * (parts == left[1])
            return np.asarray(watershed(-depth_mm, seeds.astype(np.uint8), mask=lungs), np.uint8)
    side = RIGHT_LUNG if _middle(lungs) < middle else LEFT_LUNG
    return np.asarray(lungs * np.uint8(side), np.uint8)


def _close(sides: Labels, free: Mask, spacing_mm: Spacing) -> Labels:
    """Close and fill each lung for itself, where the body is `free` for it and the other lung is not."""
    closed = sides.copy()
    for side in (RIGHT_LUNG, LEFT_LUNG):
        if (sides == side).any():
            whole = isotropic_closing(sides == side, _CLOSING_MM, spacing=spacing_mm) & free & (closed == 0)
            closed[fill_planes(whole | (sides == side)) & (closed == 0)] = side
    return closed


class _Lungmask:
    """The R231 network of the lungmask package, with weights that lie here already."""

    def __init__(self, weights: str | Path | None) -> None:
        if weights is None or not Path(weights).is_file():
            raise ValueError(
                f"weights is {str(weights)!r}, which is no file: finder='lungmask' needs unet_r231 of the lungmask "
                "project's releases as a file (nothing is downloaded here). Get it, or choose finder='threshold'."
            )
        try:
            lungmask: Any = importlib.import_module("lungmask")
        except ImportError as error:
            raise ImportError(
                "finder='lungmask' needs the lungmask package: pip install \"monai-medclip[lungmask]\" (its weights "
                "come separately). finder='threshold' works without it."
            ) from error
        self.weights = str(weights)
        try:
            self.infer = lungmask.LMInferer(modelpath=self.weights, tqdm_disable=True)
        except Exception as error:  # torch's errors for a file that is cut, or of another network, are many
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"weights {self.weights} are not lungmask's R231 ({reason}). Get it again.") from error

    def __call__(self, volume_hu: NDArray[Any], spacing_mm: Spacing, file: str) -> Labels:
        """Labels (x, y, z) of a volume in `PATIENT_AXES`; lungmask wants (z, y, x) and labels the sides as we do."""
        found = np.asarray(self.infer.apply(np.ascontiguousarray(volume_hu.T)), np.uint8).T
        if found.max(initial=0) > LEFT_LUNG:
            raise ValueError(f"weights {self.weights} mark lobes (label {found.max()}). Use unet_r231.")
        found_ml = float((found > 0).sum() * np.prod(spacing_mm)) / 1000
        if found_ml < _SMALLEST_LUNGS_ML:
            reason = f"no lung found: lungmask marks {found_ml:.0f} ml, less than {_SMALLEST_LUNGS_ML:g} ml"
            raise BadInputError(file, reason, _REMEDY)
        return found


def _threshold(volume_hu: NDArray[Any], spacing_mm: Spacing, file: str) -> Labels:
    return find_lung_sides(volume_hu, spacing_mm, file=file)


class LungMaskd(MapTransform):
    """Add a mask of the lungs, on the volume's own grid, whatever its axes."""

    def __init__(
        self,
        keys: KeysCollection,
        mask_keys: KeysCollection = "lungs",
        *,
        finder: str = "threshold",
        weights: str | Path | None = None,
        sides: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the finder.

        Args:
            keys: volumes (1, *spatial) in HU, as `LoadCTd` makes them, turned or not.
            mask_keys: where their masks go, one per key: (1, *spatial), uint8.
            finder: "threshold", see `find_lung_sides`, or "lungmask", a network that knows consolidated lung and
                effusions too (an optional package; Hofmanninger et al., Eur. Radiol. Exp. 2020).
            weights: file of lungmask's R231 weights, for "lungmask" only; they are never downloaded here.
            sides: 1 in the right and 2 in the left lung, told apart by the affine, rather than 1 in both.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            ImportError: lungmask is not installed.
            ValueError: an unknown finder, or weights that are missing or not used.
        """
        super().__init__(keys, allow_missing_keys)
        self.mask_keys = paired_keys(self.keys, mask_keys)
        if finder not in ("threshold", "lungmask") or (finder == "threshold" and weights is not None):
            raise ValueError(f"finder {finder!r}, weights {weights}: choose 'threshold', or 'lungmask' and weights.")
        self.find: Finder = _threshold if finder == "threshold" else _Lungmask(weights)
        self.sides = sides

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its masks.

        Raises:
            BadInputError: a volume shows no lung.
        """
        item = dict(data)
        for key, mask_key in self.key_iterator(item, self.mask_keys):
            mask = mask_of(item[key], self.find, item_name(item))
            item[mask_key] = mask if self.sides else mask.clamp(max=1)
        return item


class CropLungsd(MapTransform, InvertibleTransform):
    """Crop volumes and masks to the box around the lungs; undone, what was cut away is zero.

    Stock `CropForegroundd` has its margin in voxels and gives an empty image where it finds nothing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mask_key: str = "lungs",
        margin_mm: float = 10.0,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the box.

        Args:
            keys: volumes and masks (C, *spatial) on the grid of the mask; name the mask too, to keep it in step.
            mask_key: the mask that `LungMaskd`, or a file, has put into the item.
            margin_mm: kept around the lungs on all six faces, as far as the volume goes.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        if margin_mm < 0:
            raise ValueError(f"margin_mm is {margin_mm}: give 0 or more.")
        self.mask_key, self.margin_mm = mask_key, float(margin_mm)
        self.crop = Crop()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its volumes cropped.

        Raises:
            BadInputError: the mask is absent or empty.
            ValueError: a volume lies on another grid than the mask.
        """
        item = dict(data)
        box, shape = self._lung_box(item)
        for key in self.key_iterator(item):
            if tuple(item[key].shape[1:]) != shape:
                raise ValueError(
                    f"{item_name(item)}: {key!r} has shape {tuple(item[key].shape)}, the lung mask {shape}. "
                    "Crop before anything that changes the grid of one of them."
                )
            item[key] = self.crop(item[key], slices=box)
        return item

    def _lung_box(self, item: Mapping[Hashable, Any]) -> tuple[tuple[slice, ...], tuple[int, ...]]:
        mask = item.get(self.mask_key)
        if mask is None or not bool((mask > 0).any()):
            reason = f"it has no lung mask {self.mask_key!r}, or an empty one (share of lung: 0)"
            raise BadInputError(item_name(item), reason, "Put LungMaskd before, and leave crops without lungs out.")
        spacing_mm = affine_to_spacing(mask.affine.double()).tolist()
        marked = (mask.as_tensor() > 0).any(dim=0).cpu().numpy()
        return _box(marked, [int(np.ceil(self.margin_mm / mm - 1e-4)) for mm in spacing_mm]), marked.shape

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its volumes, or maps of them, on the grid before the crop."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.crop.inverse(item[key])
        return item
