"""Images whose label is written in one place only, for the tests of the shortcut audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import RandGaussianNoised

from monai_medclip.transforms import CheckedDataset


def noise(rng: np.random.Generator, spatial_dims: int = 2) -> np.ndarray:
    """Gray noise (1, *spatial) that says nothing: 96 x 96 pixels, or 6 slices of 24 x 24."""
    shape = (96, 96) if spatial_dims == 2 else (6, 24, 24)
    return rng.normal(0.5, 0.1, (1, *shape)).astype(np.float32)


def dataset(
    write: Callable[[dict[str, Any], bool, np.random.Generator], None],
    *,
    seed: int,
    count: int = 60,
    spatial_dims: int = 2,
) -> CheckedDataset:
    """Items of two images per patient; ``write`` puts the patient's label somewhere."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(count):
        truth = bool((number // 2) % 2)
        item = {"id": f"i{number}", "patient_id": f"p{number // 2}", "label": [float(truth)]}
        item["image"] = noise(rng, spatial_dims)
        write(item, truth, rng)
        item["image"] = MetaTensor(item["image"], meta=item.pop("file", {}))
        items.append(item)
    # A random transform that would destroy what the audit reads: it must not be applied.
    return CheckedDataset(items, [RandGaussianNoised("image", prob=1.0, std=100.0)], progress=False)
