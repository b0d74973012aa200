"""Inputs that show no anatomy: coarse pixels, image size, padding, patient's data, a lesion's size, as tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.utils import MetaKeys
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder
from torch import Tensor, nn

from monai_medclip.audits.pixels import BINS, GRID, gray_histogram, grid_means, part_weights
from monai_medclip.audits.untrained import pooled_features, untrained
from monai_medclip.data.labels import look_up
from monai_medclip.transforms import CheckedDataset
from monai_medclip.transforms.chest_xray import read_picture

__all__ = ["METADATA", "ShortcutInput", "inside_profile", "shortcut_inputs"]

Array = NDArray[np.float64]
Items = Sequence[Mapping[str, Any]]

METADATA = ("view", "sex", "age", "meta.view", "meta.projection", "meta.sex", "meta.age", "meta.age_approx")
IMAGE, SHAPE = "reading the image", "reading any shape"  # what is unproven
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_AXES = 3  # of a file, at most
_FIRST = 256  # training images that say how dark and how bright images are
_EXTREME = 0.01  # of the gray scale at either end
_BATCH = 32  # images per call of the untrained encoder
_COARSE = 4  # pixels per side from which on a square hides what lies in it
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*Y?\s*", re.IGNORECASE)  # 45, 45.0, and DICOM's 045Y


class ShortcutInput(NamedTuple):
    """One input of the audit, for the items of both datasets in their order."""

    name: str  # such as "24 x 24 pixels"
    reads: str  # what it is made of, in words
    unproven: str  # what a model that does no better has not shown, such as "reading the image"; empty: it is no rival
    train: Array  # (N, D), finite
    test: Array  # (M, D)


class _Tables(NamedTuple):
    """What the prepared images of one dataset give, N rows each; no columns where images are vectors."""

    pixels: Array  # (N, GRID * GRID)
    size: Array  # (N, 11) of the file, NaN where unknown
    statistics: Array  # (N, C * 11)
    histogram: Array  # (N, C * BINS)
    padding: Array  # (N, spatial axes * GRID), 0 to 1
    untrained: Array  # (N, width)


def shortcut_inputs(
    train: CheckedDataset,
    test: CheckedDataset,
    *,
    encoder: nn.Module | None = None,
    size_column: str | None = None,
    metadata: Sequence[str] = METADATA,
    image_key: str = "image",
    seed: int = 0,
) -> tuple[ShortcutInput, ...]:
    """Every input that the items have, from images as the deterministic transforms leave them.

    Images are read once, the first few hundred training images twice: they set the gray scale.

    Args:
        train: items with images (C, *spatial), 2D or 3D; precomputed features (D,) have no pixels to coarsen.
        test: likewise.
        encoder: network whose untrained copy is asked too, on the device where it is; None leaves it out, and so does
            one without weights, which hands precomputed features through.
        size_column: where items hold a lesion's size, such as ``"meta.diameter_mm"``; None looks for the sizes of
            ``meta.findings``, then ``meta.diameter_mm``, then measures the items' masks.
        metadata: columns of the patient and the view; those that are the same for all training items are left out.
        image_key: entry that is fed as the image.
        seed: of the untrained copy.

    Returns:
        Inputs with at least one column. Two are there but no rivals of a model: squares of fewer than 4 pixels a
        side, which show nearly the whole of a 2D image, and sizes known only where a finding is, which are the answer
        (an oracle).
    """
    network = None if encoder is None or not list(encoder.parameters()) else untrained(encoder, seed=seed)
    scale = _gray_scale(train, image_key)
    fit, ask = (_tables(dataset, image_key, scale, network) for dataset in (train, test))
    size = _completed(fit.size, ask.size)
    inputs = [
        _pixels_input(fit.pixels, ask.pixels, next(train.prepared())[image_key]),
        ShortcutInput("image size", "pixels, spacing and extent of the file", IMAGE, *size),
        ShortcutInput("intensity statistics", "mean, deviation, percentiles, extremes", SHAPE, fit[2], ask[2]),
        ShortcutInput("intensity histogram", f"{BINS} gray levels", SHAPE, fit.histogram, ask.histogram),
        _untrained_input(encoder, fit.untrained, ask.untrained),
        _padding_input(fit.padding, ask.padding),
        _metadata_input(train.data, test.data, metadata, size),
        _lesion_input(train.data, test.data, size_column),
    ]
    return tuple(one for one in inputs if one.train.shape[1])


def inside_profile(image: NDArray[Any]) -> Array:
    """Which part of each axis lies inside the file: 1 inside, 0 in the padding at its ends.

    Padding are the outermost rows, columns or slices that are constant in every channel, or that repeat their inner
    neighbor, as padding with the border's value does. No value of a pixel enters.

    Args:
        image: (C, *spatial).

    Returns:
        (spatial axes * GRID,) shares of the parts of each axis, 0 to 1.
    """
    tolerance = 1e-5 * max(float(np.ptp(image)), 1e-12)
    profiles = []
    for axis in range(1, image.ndim):
        planes = np.moveaxis(image, axis, 0).reshape(image.shape[axis], image.shape[0], -1)  # (n, C, pixels)
        constant = (np.ptp(planes, axis=2) <= tolerance).all(axis=1)
        equal = (np.abs(np.diff(planes, axis=0)) <= tolerance).all(axis=(1, 2))  # to the next
        before = np.logical_and.accumulate(constant | np.append(equal, False))
        after = np.logical_and.accumulate((constant | np.insert(equal, 0, False))[::-1])[::-1]
        profiles.append(part_weights(len(planes)) @ ~(before | after))
    return np.concatenate(profiles).astype(np.float64)


def _gray_scale(dataset: CheckedDataset, image_key: str) -> tuple[float, float]:
    """Lowest and highest value of the first training images; what lies beyond counts as extreme."""
    images = [np.asarray(item[image_key]) for item in islice(dataset.prepared(), _FIRST)]
    low, high = min(float(image.min()) for image in images), max(float(image.max()) for image in images)
    return low, max(high, low + 1e-6)


def _tables(dataset: CheckedDataset, image_key: str, scale: tuple[float, float], network: nn.Module | None) -> _Tables:
    columns: list[list[Array]] = []
    features: list[Array] = []
    for batch in _batches(dataset.prepared()):
        images = [item[image_key] for item in batch]
        columns += [_row(item, image, scale) for item, image in zip(batch, images)]
        if network is not None and images[0].ndim > 1:
            features.append(pooled_features(network, images))
    pixels, size, statistics, histogram, padding = (np.stack(rows) for rows in zip(*columns, strict=True))
    random = np.concatenate(features) if features else np.zeros((len(columns), 0))
    return _Tables(pixels, size, statistics, histogram, padding, random)


def _batches(items: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _row(item: Mapping[str, Any], image: Tensor, scale: tuple[float, float]) -> list[Array]:
    pixels = np.asarray(image, np.float32)
    if pixels.ndim < 2:
        return [np.zeros(0)] * 5
    low, high = scale
    channels = np.clip((pixels - low) / (high - low), 0, 1).reshape(len(pixels), -1)  # (C, pixels)
    return [
        grid_means(pixels).astype(np.float64),
        _file_size(item, image),
        np.concatenate([_statistics(channel) for channel in channels]),
        np.concatenate([gray_histogram(channel, (0.0, 1.0)) for channel in channels]),
        inside_profile(pixels),
    ]


def _statistics(pixels: NDArray[np.float32]) -> Array:
    extremes = (pixels <= _EXTREME).mean(), (pixels >= 1 - _EXTREME).mean()
    return np.array([pixels.mean(), pixels.std(), *extremes, *np.percentile(pixels, PERCENTILES)])


def _file_size(item: Mapping[str, Any], image: Any) -> Array:
    """(11,) pixels, mm per pixel and mm along each axis of the file, log pixels, log aspect; NaN where unknown."""
    meta = getattr(image, "meta", {})
    shape = meta.get(MetaKeys.SPATIAL_SHAPE)
    shape = [_as_number(item.get(side)) for side in ("width", "height")] if shape is None else shape
    affine = meta.get(MetaKeys.ORIGINAL_AFFINE)
    told = look_up(item, "meta.spacing_mm")
    spacing = told if told else [] if affine is None else np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    pixels, mm = (np.full(_AXES, math.nan) for _ in range(2))
    pixels[: len(shape)] = shape[:_AXES]
    mm[: len(spacing)] = spacing[:_AXES]
    logs = [np.nansum(np.log(pixels)) if np.isfinite(pixels).any() else math.nan, np.log(pixels[0] / pixels[1])]
    return np.concatenate([pixels, mm, pixels * mm, logs])


def _pixels_input(fit: Array, ask: Array, image: Tensor) -> ShortcutInput:
    side = min(image.shape[-2:], default=0) / GRID
    coarse = side >= _COARSE or image.ndim > 3  # a mean over slices hides enough
    reads = f"mean gray of squares of {side:.1f} pixels a side, over channels and slices"
    reads += "" if coarse else " (no rival: nearly the image itself)"
    return ShortcutInput(f"{GRID} x {GRID} pixels", reads, IMAGE if coarse else "", fit, ask)


def _untrained_input(encoder: nn.Module | None, fit: Array, ask: Array) -> ShortcutInput:
    reads = f"{type(encoder).__name__} with random weights"
    return ShortcutInput("untrained encoder", reads, "anything learned", fit, ask)


def _padding_input(fit: Array, ask: Array) -> ShortcutInput:
    there = bool((fit < 1).any() or (ask < 1).any())
    fit, ask = (table if there else table[:, :0] for table in (fit, ask))
    return ShortcutInput("padding", "which rows, columns and slices lie inside the file", IMAGE, fit, ask)


def _metadata_input(fit: Items, ask: Items, columns: Sequence[str], size: tuple[Array, Array]) -> ShortcutInput:
    """Numbers as they are, words one-hot, what is missing as a category of its own, and the size of the file."""
    used, tables = [], []
    for column in columns:
        words = [[_as_word(look_up(item, column)) for item in items] for items in (fit, ask)]
        if len(set(words[0])) > 1:
            used.append(column.removeprefix("meta."))
            tables.append(_encoded(*words))
    tables = [*tables, size] if used else [(np.zeros((len(fit), 0)), np.zeros((len(ask), 0)))]
    train, test = (np.concatenate(parts, axis=1) for parts in zip(*tables, strict=True))
    return ShortcutInput("metadata", f"{', '.join(used)}, image size", IMAGE, train, test)


def _encoded(fit: list[str], ask: list[str]) -> tuple[Array, Array]:
    if all(_NUMBER.fullmatch(word) for word in fit if word):
        numbers = (np.array([[_as_number(word)] for word in words]) for words in (fit, ask))
        return _completed(*numbers)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit([[word] for word in fit])
    return encoder.transform([[word] for word in fit]), encoder.transform([[word] for word in ask])


def _lesion_input(fit: Items, ask: Items, column: str | None) -> ShortcutInput:
    found = [_lesion_sizes(items, column) for items in (fit, ask)]
    labels = sorted({label for sizes in found[0] for label in sizes})
    train, test = (
        np.array([[sizes.get(label, math.nan) for label in labels] for sizes in part]).reshape(len(part), -1)
        for part in found
    )
    oracle = bool(np.isnan(train).any() or np.isnan(test).any())
    source = "oracle: reads the truth (no rival)" if oracle else "measured by readers, no pixel"
    unproven = "" if oracle else "seeing more than the size"
    return ShortcutInput("lesion size", f"{', '.join(labels)}; {source}", unproven, *_completed(train, test))


def _lesion_sizes(items: Items, column: str | None) -> list[dict[str, float]]:
    """For each item, label -> size: mm where a column or the meta says so, else the mask's share or volume."""
    if column is None and any(look_up(item, "meta.findings") for item in items):
        return [_largest(look_up(item, "meta.findings") or ()) for item in items]
    if column is None and any(look_up(item, "meta.diameter_mm") for item in items):
        column = "meta.diameter_mm"
    if column is None:
        return [{label: _extent(str(file)) for label, file in (item.get("masks") or {}).items()} for item in items]
    sizes = [_as_number(look_up(item, column)) for item in items]
    return [{} if math.isnan(size) else {column.removeprefix("meta."): size} for size in sizes]


def _largest(findings: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    sizes: dict[str, float] = {}
    for finding in findings:
        sizes[finding["name"]] = max(float(finding["size_mm"]), sizes.get(finding["name"], 0.0))
    return sizes


def _extent(file: str) -> float:
    """Share of a picture that its mask covers, or mm^3 of a volume."""
    if not file.lower().endswith((".nii", ".nii.gz")):
        return float((read_picture(file)[0] > 0).mean())
    mask = nib.load(file)
    return float((np.asanyarray(mask.dataobj) > 0).sum() * abs(np.linalg.det(mask.affine[:3, :3])))


def _completed(fit: Array, ask: Array) -> tuple[Array, Array]:
    """The training items' mean where a number is missing, and a column that says so."""
    if not fit.shape[1] or np.isnan(fit).all():
        return fit[:, :0], ask[:, :0]
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True).fit(fit)
    return imputer.transform(fit), imputer.transform(ask)


def _as_word(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip().lower()


def _as_number(value: Any) -> float:
    match = _NUMBER.fullmatch(_as_word(value))
    return float(match[1]) if match else math.nan
