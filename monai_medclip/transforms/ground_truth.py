"""Where findings really are: masks and boxes of an item, on the grid that the network sees."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from nibabel.affines import apply_affine, from_matvec
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, center_of_mass, find_objects
from skimage.measure import label as numbered_regions

from monai_medclip.transforms.chest_xray import read_picture
from monai_medclip.transforms.display_order import DisplayOrderd, ras_affine
from monai_medclip.transforms.geometry import FitImaged
from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["LoadTruthd"]

Affine = NDArray[np.float64]

VOLUME_AXES = 4  # channels, slices, rows, columns


class LoadTruthd(MapTransform):
    """Add ``item["truth"]``: (F, *spatial), positive inside a finding, of the masks and boxes that a manifest brings.

    Put it behind the image's own preprocessing. Findings without mask and box get zeros.

    Films and photographs: the image's first affine and orientation say how its file lay, and the masks, whose files lie
    as the image's, go through the same fitting and turning; 1 inside.

    Volumes: a NIfTI mask may lie on any grid of the patient's space, for its own affine and the image's say where each
    voxel is, whatever was cropped, resampled or turned. Each separate region, and each number of a mask with numbers,
    is one lesion and gets a number from 1 on. One that falls between the centers of coarse voxels keeps the voxel
    that its centroid lies in. Boxes have no slices and are refused.

    Args:
        keys: the image, already preprocessed: a film by `FitImaged` and `DisplayOrderd`, a volume (C, *spatial) by
            anything that keeps its affine.
        names: F findings, in the order of the logits; a mask or box counts for the finding that its label names. Where
            a finding has both, the mask counts.
        spatial_size: as films were fitted; volumes need none.
        how: ``"pad"`` or ``"stretch"``, likewise.
        allow_missing_keys: do not raise when the image is missing.

    Raises:
        BadInputError: when called with a mask that is missing or damaged, a film's of another size than its image, or a
            volume's that lies elsewhere, or nowhere.
        ValueError: when called with a film, but without its size.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        names: Sequence[str],
        spatial_size: Sequence[int] | None = None,
        how: str = "pad",
        allow_missing_keys: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(keys, allow_missing_keys)
        self.names = tuple(names)
        self.fitting = None if spatial_size is None else FitImaged("truth", spatial_size, how=how, mode="nearest")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its ``truth``."""
        item = dict(data)
        for key in self.key_iterator(item) if self.names else ():
            place = self._volume_truth if item[key].ndim == VOLUME_AXES else self._film_truth
            item["truth"] = place(item, item[key])
        return item

    def _volume_truth(self, item: Mapping[Hashable, Any], image: MetaTensor) -> MetaTensor:
        truth = torch.zeros(len(self.names), *image.shape[1:])
        masks = item.get("masks") or {}
        for channel, name in zip(truth, self.names, strict=True):
            if name in masks:
                channel += torch.from_numpy(lesions_on_grid(str(masks[name]), image, item_name(dict(item))))
            elif any(box["label"] == name for box in item.get("boxes") or ()):
                reason = f"it has a box of {name!r}, and boxes (x0, y0, x1, y1) have no slices"
                raise BadInputError(item_name(dict(item)), reason, "Mark findings of volumes in a NIfTI mask.")
        return MetaTensor(truth).copy_meta_from(image)

    def _film_truth(self, item: Mapping[Hashable, Any], image: MetaTensor) -> MetaTensor:
        if self.fitting is None:
            raise ValueError(f"{item_name(dict(item))} is no volume: give the spatial_size that it was fitted to.")
        shape = tuple(int(n) for n in image.meta[MetaKeys.SPATIAL_SHAPE])[:2]  # (x, y) of the file
        masks = item.get("masks") or {}
        native = np.zeros((len(self.names), *shape), bool)
        for channel, name in zip(native, self.names, strict=True):
            if name in masks:
                channel |= self._mask(item, str(masks[name]), shape)
                continue  # many boxes are only the mask's own
            for box in item.get("boxes") or ():
                if box["label"] == name:
                    x0, y0, x1, y1 = (round(corner) for corner in box["box"])
                    channel[x0:x1, y0:y1] = True
        meta = {**image.meta, MetaKeys.AFFINE: image.meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine)}
        laid: dict[Hashable, Any] = {"truth": MetaTensor(torch.from_numpy(native).float(), meta=meta)}
        return DisplayOrderd("truth")(self.fitting(laid))["truth"]

    def _mask(self, item: Mapping[Hashable, Any], path: str, shape: tuple[int, ...]) -> np.ndarray:
        pixels, _ = read_picture(path)
        if pixels.shape[:2] != shape:
            raise BadInputError(
                path,
                f"the mask has {pixels.shape[:2]} pixels and the image of {item_name(dict(item))} {shape}",
                "Save masks on the grid of their image.",
            )
        return np.asarray(pixels.reshape(shape) > 0)


def lesions_on_grid(path: str, image: MetaTensor, name: str) -> NDArray[np.int32]:
    """The lesions of a mask file on the grid of an image, found through both affines.

    Args:
        path: NIfTI; 0 outside, any whole numbers inside.
        image: (C, *spatial) with its affine now, and in its metadata the affine and shape that its file had.
        name: of the image, for errors.

    Returns:
        (*spatial): which lesion, from 1 on; 0 outside.

    Raises:
        BadInputError: an unreadable mask, one without a place, or one with all of its lesions outside the image's file.
    """
    regions, affine = _read_lesions(path, image, name)
    _check_overlap(path, regions, affine, image, name)
    to_mask = np.linalg.inv(affine) @ ras_affine(image)  # from indices of the image's grid to those of the mask
    size = tuple(image.shape[1:])
    if not regions.any():
        return np.zeros(size, np.int32)
    laid: NDArray[np.int32] = affine_transform(
        regions, to_mask, output_shape=size, order=0, mode="grid-constant", prefilter=False
    )
    lost = np.setdiff1d(np.arange(1, regions.max() + 1), laid)
    centers = np.reshape(center_of_mass(regions > 0, regions, lost), (-1, 3))
    for number, center in zip(lost, np.rint(apply_affine(np.linalg.inv(to_mask), centers)).astype(int), strict=True):
        inside = ((center >= 0) & (center < size)).all()
        if inside and laid[tuple(center)] == 0:  # outside: a crop left it out
            laid[tuple(center)] = number
    return laid


def _read_lesions(path: str, image: MetaTensor, name: str) -> tuple[NDArray[np.int32], Affine]:
    """Numbered regions of the part of a mask that has any, and the affine of that part to RAS mm.

    A NIfTI that says nowhere in space it lies is taken to lie on the grid of its image's file.
    """
    remedy = "Save it as a NIfTI volume (x, y, z) with the image's affine."
    try:
        file = nib.Nifti1Image.load(path)
        mask = np.asanyarray(file.dataobj)
    except Exception as error:  # what nibabel raises differs by format
        raise BadInputError(path, f"the mask cannot be read ({type(error).__name__}: {error})", remedy) from error
    if mask.ndim != 3:
        raise BadInputError(path, f"the mask has shape {mask.shape}, and a volume's has three axes", remedy)
    affine = np.asarray(file.affine, float)
    if int(file.header["sform_code"]) == 0 == int(file.header["qform_code"]):
        shape, affine = _native_grid(image)
        if mask.shape != shape:
            reason = f"the mask {mask.shape} says nowhere in space it lies, and the image {name} has {shape} voxels"
            raise BadInputError(path, reason, remedy)
    # Of the part that is marked only: numbering a whole CT would take a gigabyte.
    box = (find_objects((mask != 0).astype(np.uint8)) or [(slice(0),) * 3])[0]
    part = np.rint(mask[box]).astype(np.int32)
    start = [side.start or 0 for side in box]
    return numbered_regions(part, connectivity=part.ndim).astype(np.int32), affine @ from_matvec(np.eye(3), start)


def _native_grid(image: MetaTensor) -> tuple[tuple[int, ...], Affine]:
    """Shape and affine of an image's file, as far as its metadata know them; of the image as it is otherwise."""
    shape = np.asarray(image.meta.get(MetaKeys.SPATIAL_SHAPE, image.shape[1:])).astype(int).tolist()
    native = np.asarray(image.meta.get(MetaKeys.ORIGINAL_AFFINE, ras_affine(image)), float)
    return tuple(shape), to_affine_nd(3, native)


def _check_overlap(path: str, regions: NDArray[np.int32], affine: Affine, image: MetaTensor, name: str) -> None:
    """Refuse a mask with lesions of which no voxel lies in the image's file: it is another patient's, or misplaced."""
    shape, native = _native_grid(image)
    marked = np.argwhere(regions)  # (V, 3)
    at = apply_affine(np.linalg.inv(native) @ affine, marked)
    if len(marked) and not ((at > -1) & (at < shape)).all(axis=1).any():
        middle = apply_affine(affine, marked.mean(axis=0)).round(1).tolist()
        ends = apply_affine(native, [[0, 0, 0], np.subtract(shape, 1)]).round(1).tolist()
        reason = f"its lesions lie around {middle} mm, and the image {name} from {ends[0]} to {ends[1]} mm (RAS)"
        raise BadInputError(path, reason, "Save the mask with the affine of the image that it was drawn on.")
