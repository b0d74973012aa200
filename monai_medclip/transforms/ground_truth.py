"""Where findings really are: masks and boxes of an item, on the grid that the network sees."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys

from monai_medclip.transforms.chest_xray import read_picture
from monai_medclip.transforms.display_order import DisplayOrderd
from monai_medclip.transforms.geometry import FitImaged
from monai_medclip.transforms.rejects import BadInputError, item_name

__all__ = ["LoadTruthd"]


class LoadTruthd(MapTransform):
    """Add ``item["truth"]``: (F, rows, columns), 1 inside a finding, of the masks and boxes that a manifest brings.

    Put it behind the image's own preprocessing: the image's first affine and orientation say how its file lay, and the
    masks, whose files lie as the image's, go through the same fitting and turning. Findings without mask and box get
    zeros. Films and photographs only.

    Args:
        keys: the image, already preprocessed by `FitImaged` and `DisplayOrderd`.
        names: F findings, in the order of the logits; a mask or box counts for the finding that its label names. Where
            a finding has both, the mask counts.
        spatial_size: as the image was fitted.
        how: ``"pad"`` or ``"stretch"``, likewise.
        allow_missing_keys: do not raise when the image is missing.

    Raises:
        BadInputError: when called with a mask that is missing, damaged, or of another size than its image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        names: Sequence[str],
        spatial_size: Sequence[int],
        how: str = "pad",
        allow_missing_keys: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(keys, allow_missing_keys)
        self.names = tuple(names)
        self.geometry = (
            FitImaged("truth", spatial_size, how=how, mode="nearest"),
            DisplayOrderd("truth"),
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its ``truth``."""
        item = dict(data)
        for key in self.key_iterator(item) if self.names else ():
            item["truth"] = self._truth(item, item[key])
        return item

    def _truth(self, item: Mapping[Hashable, Any], image: MetaTensor) -> MetaTensor:
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
        for transform in self.geometry:
            laid = transform(laid)
        return laid["truth"]

    def _mask(self, item: Mapping[Hashable, Any], path: str, shape: tuple[int, ...]) -> np.ndarray:
        pixels, _ = read_picture(path)
        if pixels.shape[:2] != shape:
            raise BadInputError(
                path,
                f"the mask has {pixels.shape[:2]} pixels and the image of {item_name(dict(item))} {shape}",
                "Save masks on the grid of their image.",
            )
        return np.asarray(pixels.reshape(shape) > 0)
