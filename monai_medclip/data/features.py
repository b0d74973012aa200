"""Precomputed features instead of images: manifest rows whose file is a NumPy array become items without pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["feature_items"]

Item = dict[str, Any]


def feature_items(items: Sequence[Item]) -> list[Item]:
    """Items whose ``image`` is an ``.npy`` file become items with ``features``, for `PrecomputedFeatures`.

    A file holds one vector (D,), or several (N, D); then the manifest's column ``features_row`` (counted from 0) says
    which one is the item's.

    Args:
        items: what `read_manifest` made of a manifest whose ``file`` column names ``.npy`` files.

    Returns:
        Copies of the items, in order, without ``image`` and with ``features`` (path), ``features_row`` (int or None)
        and ``features_sha256`` (of the vector, so that equal vectors on two splits are found).

    Raises:
        ValueError: a file that is no such array, or a row that it does not have; file and remedy are named.
    """
    arrays = {path: _array(Path(path)) for path in dict.fromkeys(str(item["image"]) for item in items)}
    return [_feature_item(item, arrays[str(item["image"])]) for item in items]


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no NumPy array ({error}). Write the features with numpy.save.") from error
    if array.ndim not in (1, 2) or array.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}: features are floats (D,) or (N, D). Write it anew."
        )
    return array


def _feature_item(item: Item, array: NDArray[Any]) -> Item:
    cell = item.get("features_row")
    row = None if cell in (None, "") else int(str(cell))
    if array.ndim == 2 and len(array) > 1 and row is None:
        raise ValueError(
            f"{item['image']} holds {len(array)} vectors and {item['id']} does not say which is its own. "
            "Add a column features_row, counted from 0."
        )
    if row is not None and (array.ndim == 1 or not 0 <= row < len(array)):
        raise ValueError(
            f"{item['id']}: features_row is {row}, but {item['image']} has shape {array.shape}. Correct the row."
        )
    vector = array.reshape(-1) if array.ndim == 1 or row is None else array[row]
    digest = hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()
    own = {key: value for key, value in item.items() if key != "image"}
    return {**own, "features": str(item["image"]), "features_row": row, "features_sha256": digest}
