"""How well maps find lesions: every explainer on the same cases, by finding, by size, and without the finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from monai_medclip.explainers import Explainer
from monai_medclip.metrics.localization import localize, thirds

__all__ = [
    "CounterfactualHeat",
    "LesionCases",
    "counterfactual_heat",
    "heatmaps_of",
    "localization_rows",
]

Row = dict[str, Any]


class LesionCases(NamedTuple):
    """Images whose findings are marked."""

    findings: tuple[str, ...]  # F names, in the order of the classifier's logits
    images: Tensor  # (B, C, *spatial), as the classifier takes them
    masks: Tensor  # (B, F, *spatial) bool, all False where the finding is absent
    sizes: NDArray[np.float64]  # (B, F) such as a diameter in mm, NaN where absent
    patients: tuple[str, ...]  # B

    def first(self, number: int) -> LesionCases:
        """The first ``number`` images alone, for methods that are slow."""
        return LesionCases(
            self.findings, self.images[:number], self.masks[:number], self.sizes[:number], self.patients[:number]
        )

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which findings each image has, (B, F)."""
        return self.masks.flatten(2).any(dim=2).numpy()


class CounterfactualHeat(NamedTuple):
    """Positive heat under the lesion's mask, with the finding and in the same patient without it."""

    finding: str
    with_finding: NDArray[np.float64]  # (N,) mean positive heat inside the mask, in the map's own unit
    without: NDArray[np.float64]  # (N,)

    @property
    def falls(self) -> NDArray[np.float64]:
        """1.0 where the heat is lower without the finding, (N,)."""
        return (self.without < self.with_finding).astype(np.float64)

    @property
    def remaining(self) -> float:
        """Heat without the finding over heat with it, of the sums over cases; NaN without any heat."""
        total = float(self.with_finding.sum())
        return float(self.without.sum()) / total if total > 0 else float("nan")


def heatmaps_of(
    explainer: Explainer, classifier: Any, images: Tensor, *, batch_size: int = 24, progress: bool = True
) -> Tensor:
    """Maps (B, F, *spatial) of all images, on the CPU."""
    batches: Iterable[Tensor] = images.split(batch_size)
    total = -(-len(images) // batch_size)
    bar = tqdm(batches, total=total, desc=explainer.name, leave=False, disable=not progress)
    return torch.cat([explainer(classifier, batch).cpu() for batch in bar])


def localization_rows(
    heatmaps: Tensor,
    cases: LesionCases,
    *,
    tolerances: Sequence[float],
    thresholds: Sequence[str | float] = ("otsu", "mean", 0.5),
    focal: Sequence[str] = (),
) -> list[Row]:
    """One row per finding that an image has: finding, patient, size, its third, and every figure of its map.

    Args:
        heatmaps: (B, F, *spatial).
        cases: B images; findings that are absent are not judged.
        tolerances: of the pointing game, in pixels.
        thresholds: of the overlap.
        focal: findings with a place of their own. ``alone`` says that an image has no other of them, and
            ``pointing_any`` whether the hottest pixel lies on any of them: what is missing to it is another lesion
            taken for this one.

    Raises:
        ValueError: maps that do not fit the cases.
    """
    if heatmaps.shape != cases.masks.shape:
        raise ValueError(f"maps {tuple(heatmaps.shape)} and masks {tuple(cases.masks.shape)} must have one shape.")
    present, focal_at = cases.present, [cases.findings.index(name) for name in focal]
    rows: list[Row] = []
    for f, finding in enumerate(cases.findings):
        chosen = np.flatnonzero(present[:, f])
        if not len(chosen):
            continue
        maps, masks = heatmaps[chosen, f].numpy(), cases.masks[chosen, f].numpy()
        columns = localize(maps, masks, tolerances=tolerances, thresholds=thresholds).columns()
        if f in focal_at:
            columns["pointing_any"] = _on_any(maps, cases.masks[chosen][:, focal_at].any(dim=1).numpy())
            columns["alone"] = (present[chosen][:, focal_at].sum(axis=1) == 1).astype(np.float64)
        sizes = cases.sizes[chosen, f]
        about: Mapping[str, Any] = {"size": sizes, "third": thirds(sizes)}
        for k, case in enumerate(chosen):
            row: Row = {"finding": finding, "patient": cases.patients[case], "focal": f in focal_at}
            rows.append(row | {name: values[k] for name, values in {**about, **columns}.items()})
    return rows


def counterfactual_heat(
    explainer: Explainer,
    classifier: Any,
    cases: LesionCases,
    without: Tensor,
    finding: str,
    *,
    batch_size: int = 24,
    progress: bool = True,
) -> CounterfactualHeat:
    """Heat under the mask of a finding, and at the same place of the same patients without it.

    Args:
        explainer: judged by its own maps, which are not scaled per image, so that heat can be compared.
        classifier: whose score is explained.
        cases: images that all have the finding.
        without: (B, C, *spatial) the same patients without it.
        finding: its name.
        batch_size: images per call.
        progress: show a bar.

    Raises:
        ValueError: an image without the finding, or another number of images.
    """
    f = cases.findings.index(finding)
    if without.shape != cases.images.shape or not cases.present[:, f].all():
        raise ValueError(f"every one of the {len(cases.images)} images must show {finding} and have a twin without it.")
    masks = cases.masks[:, f]

    def heat(images: Tensor) -> NDArray[np.float64]:
        maps = heatmaps_of(explainer, classifier, images, batch_size=batch_size, progress=progress)[:, f]
        inside = (maps.clamp_min(0) * masks).flatten(1).sum(dim=1) / masks.flatten(1).sum(dim=1)
        return inside.double().numpy()

    return CounterfactualHeat(finding, heat(cases.images), heat(without))


def _on_any(maps: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The pointing game at tolerance 0 on the union of several lesions."""
    hottest = maps.reshape(len(maps), -1).argmax(axis=1)
    return masks.reshape(len(masks), -1)[np.arange(len(masks)), hottest].astype(np.float64)
