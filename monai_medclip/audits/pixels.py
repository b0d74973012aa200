"""Pixel baselines: how far do 24 x 24 gray squares or a histogram get without seeing anything?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from monai_medclip.transforms import CheckedDataset

__all__ = ["PixelBaselines", "dataset_baselines", "pixel_baselines"]

GRID = 24  # the squares per side
BINS = 64  # of the intensity histogram


class PixelBaselines(NamedTuple):
    """AUC per finding of two models that see no anatomy; NaN where a finding has one class only.

    Attributes:
        names: the findings (F).
        pixels: AUC of logistic regression on 24 x 24 means, (F,) in [0, 1].
        histogram: AUC of logistic regression on the 64-bin intensity histogram, (F,) in [0, 1].
    """

    names: tuple[str, ...]
    pixels: tuple[float, ...]
    histogram: tuple[float, ...]

    @property
    def mean_pixels(self) -> float:
        """Mean over the findings that have an AUC."""
        return _mean(self.pixels)

    @property
    def mean_histogram(self) -> float:
        """Mean over the findings that have an AUC."""
        return _mean(self.histogram)

    def as_dict(self) -> dict[str, Any]:
        """Figures by name, for a result file."""
        rows = zip(self.names, self.pixels, self.histogram, strict=True)
        own = {name: {"pixels_auc": p, "histogram_auc": h} for name, p, h in rows}
        return own | {"mean": {"pixels_auc": self.mean_pixels, "histogram_auc": self.mean_histogram}}

    def __str__(self) -> str:
        """A table to print beside a model's figures."""
        rows = [f"{n:<20}{p:>8.3f}{h:>11.3f}" for n, p, h in zip(self.names, self.pixels, self.histogram, strict=True)]
        means = f"{'mean':<20}{self.mean_pixels:>8.3f}{self.mean_histogram:>11.3f}"
        return "\n".join([f"{'finding':<20}{'24 x 24':>8}{'histogram':>11}", *rows, means])


def pixel_baselines(
    train_images: Sequence[ArrayLike],
    train_labels: ArrayLike,
    test_images: Sequence[ArrayLike],
    test_labels: ArrayLike,
    *,
    names: Sequence[str],
) -> PixelBaselines:
    """Logistic regression on downsampled pixels and on the histogram, per finding.

    Args:
        train_images: N images (rows, columns) or (1, rows, columns), any sizes, any one gray scale; of volumes (slices,
            rows, columns) the squares are those of the mean over slices.
        train_labels: (N, F) of 0, 1 or NaN for unknown.
        test_images: M images of the same scale.
        test_labels: (M, F).
        names: the F findings.

    Returns:
        AUC on the test images; NaN for a finding whose known labels are all alike on either side.

    Raises:
        ValueError: If the labels do not fit the images or the names.
    """
    fit, ask = (
        _labels(labels, images, names) for labels, images in ((train_labels, train_images), (test_labels, test_images))
    )
    both = []
    for features in (_grids, _histograms):
        scale = _gray_range(train_images)
        scaler = StandardScaler().fit(features(train_images, scale))
        train, test = scaler.transform(features(train_images, scale)), scaler.transform(features(test_images, scale))
        both.append(tuple(_auc(train, fit[:, f], test, ask[:, f]) for f in range(len(names))))
    return PixelBaselines(tuple(names), *both)


def _labels(labels: ArrayLike, images: Sequence[ArrayLike], names: Sequence[str]) -> NDArray[np.float64]:
    table = np.asarray(labels, dtype=np.float64)
    if table.shape != (len(images), len(names)):
        raise ValueError(
            f"Labels have shape {table.shape} for {len(images)} images and {len(names)} findings: "
            "give one row per image and one column per finding."
        )
    return table


def _gray_range(images: Sequence[ArrayLike]) -> tuple[float, float]:
    low = min(float(np.min(image)) for image in images)
    high = max(float(np.max(image)) for image in images)
    return low, max(high, low + 1e-6)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def part_weights(length: int) -> NDArray[np.float32]:
    """(GRID, length) weights of a mean over GRID equal parts, fractions of pixels included."""
    cuts = np.linspace(0, length, GRID + 1)
    pixels = np.arange(length)
    share = np.minimum(cuts[1:, None], pixels + 1) - np.maximum(cuts[:-1, None], pixels)
    return (np.maximum(share, 0) * GRID / length).astype(np.float32)


def grid_means(image: ArrayLike) -> NDArray[np.float32]:
    """(GRID * GRID,) mean gray of each square of (..., rows, columns): channels and slices are averaged first."""
    plain = np.asarray(image, dtype=np.float32)
    plain = plain.mean(axis=tuple(range(plain.ndim - 2)))
    return (part_weights(plain.shape[0]) @ plain @ part_weights(plain.shape[1]).T).ravel()


def gray_histogram(image: ArrayLike, scale: tuple[float, float]) -> NDArray[np.float32]:
    """(BINS,) share of the pixels of an image of any shape per gray level between lowest and highest."""
    plain = np.asarray(image, dtype=np.float32)
    return (np.histogram(plain, bins=BINS, range=scale)[0] / plain.size).astype(np.float32)


def _grids(images: Sequence[ArrayLike], scale: tuple[float, float]) -> NDArray[np.float32]:
    """(N, GRID * GRID) mean gray of each square."""
    return (np.stack([grid_means(image) for image in images]) - scale[0]) / (scale[1] - scale[0])


def _histograms(images: Sequence[ArrayLike], scale: tuple[float, float]) -> NDArray[np.float32]:
    """(N, BINS) share of pixels per gray level."""
    return np.stack([gray_histogram(image, scale) for image in images])


def _auc(
    train: NDArray[np.float32],
    train_labels: NDArray[np.float64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.float64],
) -> float:
    fit, ask = np.isfinite(train_labels), np.isfinite(test_labels)
    if len(np.unique(train_labels[fit])) < 2 or len(np.unique(test_labels[ask])) < 2:
        return float("nan")
    model = LogisticRegression(solver="newton-cholesky").fit(train[fit], train_labels[fit])
    return float(roc_auc_score(test_labels[ask], model.decision_function(test[ask])))


def dataset_baselines(train: CheckedDataset, test: CheckedDataset, *, names: Sequence[str]) -> PixelBaselines:
    """`pixel_baselines` of two datasets, as a config names them: fitted on one, judged on the other.

    Args:
        train: items with ``image`` and ``label``; random transforms are not applied.
        test: likewise.
        names: F findings in the order of the labels.
    """
    (fit_images, fit_labels), (images, labels) = _prepared(train), _prepared(test)
    return pixel_baselines(fit_images, fit_labels, images, labels, names=names)


def _prepared(dataset: CheckedDataset) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
    items = list(dataset.prepared())
    images = [np.asarray(item["image"], np.float32).mean(axis=0) for item in items]  # (C, *spatial) -> (*spatial)
    return images, np.asarray([item["label"] for item in items], np.float64)
