"""Pixel values: robustly to 0..1, then to what the chosen encoder's weights expect."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from monai_medclip.transforms.rejects import BadInputError, item_name

_SAMPLE = 1_000_000  # percentiles of more pixels than this are taken on a regular grid of about so many


def robust_unit_range(
    values: NDArray[Any], file: str, *, percentiles: tuple[float, float] = (0.5, 99.5)
) -> NDArray[np.float32]:
    """Scale pixels to 0..1 between two percentiles, so that a burnt-in marker does not set the contrast.

    Args:
        values: pixels (rows, columns) in any unit; NaN marks padding, which is left out and becomes 0.
        file: their file, for the message.
        percentiles: lower and upper percentile, which become 0 and 1; (0, 100) takes minimum and maximum.

    Returns:
        float32 pixels, 0 to 1.

    Raises:
        BadInputError: when there is nothing but padding, an infinite value, or one constant value.
    """
    values = np.asarray(values, np.float32)
    kept = values[~np.isnan(values)]
    if kept.size == 0 or not np.isfinite(kept).all():
        raise BadInputError(file, "the image holds infinite values or no valid pixel", "Export the image again.")
    lowest, highest = float(kept.min()), float(kept.max())
    if lowest == highest:
        reason = f"the image is constant (every pixel is {lowest:g})"
        raise BadInputError(file, reason, "Leave it out, or export the image again.")
    low, high = np.percentile(kept[:: max(1, kept.size // _SAMPLE)], percentiles)
    if low == high:  # nearly all pixels are equal: a small bright object on black
        low, high = lowest, highest
    return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1), nan=0.0).astype(np.float32)


def check_finite(values: NDArray[Any], file: str) -> None:
    """Refuse pixels that are NaN or infinite.

    Raises:
        BadInputError: with their number.
    """
    if values.size and not np.isfinite([values.min(), values.max()]).all():  # both pass NaN on, and make no copy
        bad = int(np.count_nonzero(~np.isfinite(values)))
        reason = f"{bad} of {values.size} pixels are NaN or infinite"
        raise BadInputError(file, reason, "Repair the file, or leave it out.")


class NormalizeForEncoderd(MapTransform):
    """Subtract the mean and divide by the standard deviation that the encoder's weights were trained with.

    Stock `NormalizeIntensityd` wants as many channels as statistics. Here a one-channel image meets three statistics
    without surprise: it leaves as three channels, each normalised as its weights expect.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the statistics.

        Args:
            keys: images (C, *spatial), 0 to 1.
            mean: the encoder's `mean`, one value or one per channel.
            std: the encoder's `std`, likewise; all positive.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            ValueError: when the statistics do not fit each other, or an image.
        """
        super().__init__(keys, allow_missing_keys)
        if len(mean) != len(std) or not len(mean) or min(std) <= 0:
            raise ValueError(f"mean {tuple(mean)} and std {tuple(std)} must be equally long, and std positive.")
        self.mean, self.std = torch.tensor(list(mean)), torch.tensor(list(std))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with normalised images."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            channels, statistics = image.shape[0], len(self.mean)
            if channels != statistics and 1 not in (channels, statistics):
                raise ValueError(
                    f"{item_name(item)} has {channels} channels, the encoder's statistics {statistics}. "
                    "Make them equal, or give one value, or one channel."
                )
            shape = (-1,) + (1,) * (image.ndim - 1)
            item[key] = (image - self.mean.view(shape)).div_(self.std.view(shape))
        return item
