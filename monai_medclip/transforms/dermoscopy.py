"""Dermoscopy: photographs of skin lesions as three color channels from 0 to 1."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, PILReader
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from PIL import Image

from monai_medclip.transforms.rejects import BadInputError


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


class LoadDermoscopyd(MapTransform):
    """Load PNG or JPEG photographs as (3, x, y), float32, 0 to 1: colors are kept as they are, transparency is dropped.

    Follow with `FitImaged`, random flips and rotations in training, `DisplayOrderd`, `NormalizeForEncoderd`.
    """

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False) -> None:
        """Set the loader.

        Args:
            keys: paths.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a file that is missing, damaged, or of one constant color.
        """
        super().__init__(keys, allow_missing_keys)
        self.reader = PILReader(converter=_rgb)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its paths replaced by images."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._load(str(item[key]))
        return item

    def _load(self, path: str) -> MetaTensor:
        if not Path(path).is_file():
            raise BadInputError(path, "there is no such file", "Correct the path or the image root.")
        try:
            values, _ = self.reader.get_data(self.reader.read(path))  # (x, y, 3)
        except Exception as error:  # what Pillow raises depends on where the file is damaged
            reason = f"the photograph cannot be read ({type(error).__name__}: {error})"
            raise BadInputError(path, reason, "Export it again as PNG or JPEG.") from error
        if values.min() == values.max():
            reason = f"the photograph is constant (every value is {values.min()})"
            raise BadInputError(path, reason, "Leave it out, or export it again.")
        pixels = torch.from_numpy(np.moveaxis(values, -1, 0).astype(np.float32) / 255)
        meta = {MetaKeys.SPATIAL_SHAPE: np.asarray(pixels.shape[1:]), "filename_or_obj": path}
        return MetaTensor(pixels, meta=meta)
