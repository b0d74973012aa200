"""Precomputed features: the vector that stands for an image, from its NumPy file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_medclip.transforms.rejects import BadInputError

__all__ = ["LoadFeaturesd"]


class LoadFeaturesd(MapTransform):
    """Load feature vectors (D,), float32, as `monai_medclip.networks.PrecomputedFeatures` takes them."""

    def __init__(
        self,
        keys: KeysCollection = "features",
        *,
        row_key: str = "features_row",
        width: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the loader.

        Args:
            keys: paths of ``.npy`` files that hold one vector (D,), or several (N, D).
            row_key: entry of the item that says which of several is its own, counted from 0.
            width: length D that the network takes; None accepts any.
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.row_key, self.width = row_key, width

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its paths replaced by vectors.

        Raises:
            BadInputError: a file that is missing or no array, a row that it lacks, or values that are not finite.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self._load(str(item[key]), item.get(self.row_key))
        return item

    def _load(self, path: str, row: Any) -> Tensor:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            reason = f"the features cannot be read ({error})"
            raise BadInputError(path, reason, "Correct the path, or write them with numpy.save.") from error
        if row in (None, "") and array.ndim == 2 and len(array) == 1:
            row = 0
        if array.ndim != (1 if row in (None, "") else 2) or (array.ndim == 2 and not 0 <= int(row) < len(array)):
            reason = f"an array of shape {array.shape} has no vector for row {row!r}"
            raise BadInputError(path, reason, f"Name one of its rows as {self.row_key!r}.")
        vector = np.array(array if array.ndim == 1 else array[int(row)], dtype=np.float32)
        if self.width is not None and len(vector) != self.width:
            reason = f"the vector has {len(vector)} features, the network takes {self.width}"
            raise BadInputError(path, reason, "Set the network's width, or compute the features anew.")
        if not np.isfinite(vector).all():
            raise BadInputError(path, f"row {row!r} holds NaN or infinite values", "Compute the features anew.")
        return torch.from_numpy(vector)
