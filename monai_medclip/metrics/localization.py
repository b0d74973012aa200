"""Does the heat lie on the lesion: pointing game, energy, overlap, ranking and contrast, with chance and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.nn import functional as F

from monai_medclip.metrics.classification import Interval, as_array, patient_resamples, percentile_interval

__all__ = [
    "Localization",
    "LocalizationFigure",
    "Overlap",
    "binarize",
    "contrast_to_noise",
    "energy_in_mask",
    "grid_ceiling",
    "localization_figure",
    "localize",
    "overlap",
    "pointing_chance",
    "pointing_game",
    "thirds",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Overlap(NamedTuple):
    """Of a thresholded map with the mask, per case, both in [0, 1]."""

    iou: Array  # (N,)
    dice: Array  # (N,)


class Localization(NamedTuple):
    """Every figure of N maps, case by case, with what chance gives beside it."""

    pointing: dict[float, Array]  # by tolerance in pixels: (N,) in [0, 1]
    pointing_chance: dict[float, Array]  # likewise
    energy: Array  # (N,) in [0, 1]
    overlap: dict[str, Overlap]  # by threshold
    auprc: Array  # (N,) over pixels; chance is `area`
    auroc: Array  # (N,) over pixels; chance is 0.5
    cnr: Array  # (N,) 0 or more
    area: Array  # (N,) share of the image under the mask: chance of the energy too

    def columns(self) -> dict[str, Array]:
        """Flat names such as ``pointing_8``, ``pointing_8_chance``, ``dice_otsu``: (N,) each."""
        flat = {f"pointing_{pixels:g}": values for pixels, values in self.pointing.items()}
        flat |= {f"pointing_{pixels:g}_chance": values for pixels, values in self.pointing_chance.items()}
        for name, found in self.overlap.items():
            flat |= {f"iou_{name}": found.iou, f"dice_{name}": found.dice}
        rest = {"energy": self.energy, "auprc": self.auprc, "auroc": self.auroc, "cnr": self.cnr, "area": self.area}
        return flat | rest


class LocalizationFigure(NamedTuple):
    """A mean over cases and its 95 % interval."""

    mean: float  # NaN without cases
    interval: Interval | None
    cases: int


def localize(
    heatmaps: ArrayLike,
    masks: ArrayLike,
    *,
    tolerances: Sequence[float] = (0.0,),
    thresholds: Sequence[str | float] = ("otsu", "mean", 0.5),
) -> Localization:
    """All figures of all cases.

    Args:
        heatmaps: (N, *spatial), higher supports the finding, finite.
        masks: (N, *spatial), nonzero on the lesion; none empty, none full.
        tolerances: of the pointing game, in pixels.
        thresholds: of the overlap, see `binarize`.

    Raises:
        ValueError: shapes that differ, maps that are not finite, a mask that is empty or full.
    """
    maps, inside = _checked(heatmaps, masks)
    return Localization(
        {pixels: pointing_game(maps, inside, tolerance=pixels) for pixels in tolerances},
        {pixels: pointing_chance(inside, tolerance=pixels) for pixels in tolerances},
        energy_in_mask(maps, inside),
        {str(threshold): overlap(maps, inside, threshold=threshold) for threshold in thresholds},
        _per_case(lambda heat, mask: average_precision_score(mask.ravel(), heat.ravel()), maps, inside),
        _per_case(lambda heat, mask: roc_auc_score(mask.ravel(), heat.ravel()), maps, inside),
        contrast_to_noise(maps, inside),
        inside.reshape(len(inside), -1).mean(axis=1),
    )


def pointing_game(heatmaps: ArrayLike, masks: ArrayLike, *, tolerance: float = 0.0) -> Array:
    """Whether the hottest pixel lies on the lesion, (N,) in [0, 1].

    Of several equally hot pixels the share that hits counts, so that a map without contrast scores exactly chance.

    Args:
        heatmaps: (N, *spatial).
        masks: (N, *spatial).
        tolerance: how far from the mask still counts, Euclidean, in pixels; 0 is the mask itself.

    References:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016 (with a tolerance of 15 pixels).
    """
    maps, inside = _checked(heatmaps, masks)
    return _per_case(lambda heat, mask: _near(mask, tolerance)[heat == heat.max()].mean(), maps, inside)


def pointing_chance(masks: ArrayLike, *, tolerance: float = 0.0) -> Array:
    """What a random pixel scores in the pointing game: the share of the image within tolerance of the mask, (N,)."""
    return np.array([_near(mask, tolerance).mean() for mask in _masks(masks)])


def energy_in_mask(heatmaps: ArrayLike, masks: ArrayLike) -> Array:
    """Share of the positive heat that lies on the lesion, (N,) in [0, 1]; 0 for a map without positive heat.

    References:
        Wang et al., Score-CAM, CVPR Workshops 2020 (energy-based pointing game).
    """
    maps, inside = _checked(heatmaps, masks)
    heat = np.maximum(maps, 0).reshape(len(maps), -1)
    total = heat.sum(axis=1)
    return (heat * inside.reshape(len(maps), -1)).sum(axis=1) / np.where(total > 0, total, 1.0)


def binarize(heatmap: ArrayLike, threshold: str | float) -> Mask:
    """The hot part of one map (*spatial); empty for a map without contrast.

    Args:
        heatmap: (*spatial).
        threshold: ``"otsu"``, ``"mean"`` of the map, or a fixed number in (0, 1) of the map scaled to [0, 1].

    Raises:
        ValueError: another threshold.
    """
    heat = as_array(heatmap)
    low, high = heat.min(), heat.max()
    if not (threshold in ("otsu", "mean") or (not isinstance(threshold, str) and 0 < threshold < 1)):
        raise ValueError(f"threshold={threshold!r}: use 'otsu', 'mean', or a number between 0 and 1.")
    if high <= low:
        return np.zeros(heat.shape, dtype=bool)
    scaled = (heat - low) / (high - low)
    cut = {"otsu": threshold_otsu, "mean": np.mean}[threshold](scaled) if isinstance(threshold, str) else threshold
    return np.asarray(scaled > cut)


def overlap(heatmaps: ArrayLike, masks: ArrayLike, *, threshold: str | float) -> Overlap:
    """IoU and Dice of the hot part of each map, see `binarize`, with its mask."""
    maps, inside = _checked(heatmaps, masks)
    hot = np.stack([binarize(heat, threshold) for heat in maps]).reshape(len(maps), -1)
    mask = inside.reshape(len(maps), -1)
    both, either = (hot & mask).sum(axis=1), (hot | mask).sum(axis=1)
    return Overlap(both / either, 2 * both / (both + either))


def contrast_to_noise(heatmaps: ArrayLike, masks: ArrayLike) -> Array:
    """|mean inside - mean outside| / sqrt(variance inside + variance outside), (N,); 0 for a map without contrast.

    References:
        Boecking et al., Making the Most of Text Semantics, ECCV 2022 (BioViL), section 4.2.
    """

    def one(heat: Array, mask: Mask) -> float:
        spread = np.sqrt(heat[mask].var() + heat[~mask].var())
        difference = abs(heat[mask].mean() - heat[~mask].mean())
        return difference / spread if spread > 0 else (np.inf if difference > 0 else 0.0)

    return _per_case(one, *_checked(heatmaps, masks))


def grid_ceiling(masks: ArrayLike, grid: Sequence[int]) -> Array:
    """The map that a perfect method gives on a patch grid: how much of each patch is lesion, bilinear in between.

    Args:
        masks: (N, *spatial), 1 to 3 axes.
        grid: patches per axis, each dividing the size.

    Returns:
        (N, *spatial) in [0, 1], to be judged like any other map.

    Raises:
        ValueError: a grid that does not divide the image.
    """
    inside = torch.from_numpy(_masks(masks).astype(np.float32)).unsqueeze(1)
    size = inside.shape[2:]
    if len(size) != len(grid) or any(pixels % cells for pixels, cells in zip(size, grid)):
        raise ValueError(f"a grid of {tuple(grid)} patches does not divide an image of {tuple(size)} pixels.")
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    shares = pool(inside, [pixels // cells for pixels, cells in zip(size, grid)])
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(shares, size=size, mode=mode, align_corners=False).squeeze(1).double().numpy()


def localization_figure(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    bootstrap: int = 1000,
    generator: np.random.Generator | int = 0,
) -> LocalizationFigure:
    """Mean of per-case values with an interval from resampling patients.

    Args:
        values: (N,), finite.
        groups: (N,) patients; all cases of a patient, from whatever model, are drawn together. None: each its own.
        bootstrap: resamples; 0 gives no interval.
        generator: numpy generator or its seed.

    Raises:
        ValueError: values that are not finite, or groups of another length.
    """
    cases = as_array(values)
    if not np.isfinite(cases).all():
        raise ValueError("values hold NaN or infinity: drop those cases and say so, a mean would hide them.")
    patients = np.unique(np.arange(len(cases)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    if len(patients) != len(cases):
        raise ValueError(f"groups has {len(patients)} entries for {len(cases)} cases: give one patient per case.")
    if not len(cases):
        return LocalizationFigure(np.nan, None, 0)
    counts = patient_resamples(patients, bootstrap, generator)  # (R, N)
    drawn = counts.sum(axis=1)
    means = (counts @ cases) / np.where(drawn > 0, drawn, np.nan)
    return LocalizationFigure(float(cases.mean()), percentile_interval(means), len(cases))


def thirds(sizes: ArrayLike) -> NDArray[np.int_]:
    """Which third of the sizes each case is in: (N,) of 0, 1, 2, smallest first; equal sizes stay together."""
    size = as_array(sizes)
    return np.searchsorted(np.quantile(size, (1 / 3, 2 / 3)), size, side="left")


def _checked(heatmaps: ArrayLike, masks: ArrayLike) -> tuple[Array, Mask]:
    maps, inside = as_array(heatmaps), _masks(masks)
    if maps.shape != inside.shape or maps.ndim < 2:
        raise ValueError(f"heatmaps {maps.shape} and masks {inside.shape} must both be (N, *spatial).")
    if not np.isfinite(maps).all():
        raise ValueError("heatmaps hold NaN or infinity: see the explainer that made them.")
    return maps, inside


def _masks(masks: ArrayLike) -> Mask:
    inside: Mask = as_array(masks) != 0
    covered = inside.reshape(len(inside), -1)
    wrong = np.flatnonzero(~covered.any(axis=1) | covered.all(axis=1))
    if len(wrong):
        raise ValueError(f"mask {wrong[0]} of {len(inside)} is empty or full: judge only cases whose lesion is marked.")
    return inside


def _near(mask: Mask, tolerance: float) -> Mask:
    return np.asarray(distance_transform_edt(~mask) <= tolerance) if tolerance > 0 else mask


def _per_case(figure: Any, maps: Array, masks: Mask) -> Array:
    return np.array([figure(heat, mask) for heat, mask in zip(maps, masks, strict=True)], dtype=np.float64)
