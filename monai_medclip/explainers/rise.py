"""RISE: many random masks; a place is as important as the scores of the images that still show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.perturbation import PerturbationExplainer
from monai_medclip.networks.image_encoder import per_axis

__all__ = ["RISE"]

NORMALIZE = ("expected", "observed")


class RISE(PerturbationExplainer):
    """S(x) = sum_i f(I under M_i) M_i(x) / (N p): the mean score of the random masks that leave x visible.

    captum and MONAI have no RISE. All findings and images are scored in the same forward passes, with the same masks.
    Maps are in units of the score: a place that speaks against a finding lies below the map's mean, not below 0.

    Args:
        masks: N.
        cells: of the coarse random grid, one number or one per axis; masks are it enlarged bilinearly and shifted at
            random by up to a cell.
        keep: p, the probability of a coarse cell to stay visible, in (0, 1).
        normalize: ``"expected"``, the paper's division by N p; or ``"observed"``, division by the sum of the masks at
            each place, so that a score's constant part adds a constant to the map and not the masks' own unevenness
            (logits have such a part, the paper's class probabilities have little).
        seed: of the masks, for every call.
        baseline, batch_size, target, verify: see `PerturbationExplainer`.

    References:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation, BMVC 2018, Eq. 6 and section 3.2.
    """

    name = "RISE"

    def __init__(
        self,
        *,
        masks: int = 4000,
        cells: int | Sequence[int] = 7,
        keep: float = 0.5,
        normalize: str = "expected",
        seed: int = 0,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(baseline=baseline, batch_size=batch_size, target=target, verify=verify)
        if masks < 1 or not 0 < keep < 1:
            raise ValueError(f"masks={masks}, keep={keep}: give at least one mask, and a probability inside (0, 1).")
        if normalize not in NORMALIZE:
            raise ValueError(f"normalize={normalize!r}: use one of {', '.join(NORMALIZE)}.")
        self.masks = masks
        self.cells = cells
        self.keep = keep
        self.normalize = normalize
        self.seed = seed

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        size, copies = image.shape[2:], self._copies(image)
        coarse, shifts = self._draw(len(size))
        with torch.no_grad():
            scores = self._judge(classifier, image, context)
            removed = self._removed(classifier, image)
            maps, shown = image.new_zeros(*scores.shape, *size), image.new_zeros(size)
            for start in range(0, self.masks, copies):
                part = slice(start, start + copies)
                visible = enlarged(coarse[part].to(image), shifts[part], size)  # (P, 1, *spatial)
                found = self._judge_visible(classifier, image, removed, visible, context)  # (P, B, F)
                maps += torch.einsum("pbf,p...->bf...", found, visible[:, 0])
                shown += visible[:, 0].sum(0)
        if self.normalize == "expected":
            return maps / (self.masks * self.keep), scores
        return maps / shown.clamp_min(1e-6), scores

    def _draw(self, spatial_dims: int) -> tuple[Tensor, Tensor]:
        """All coarse masks (N, 1, *cells) and their shifts (N, spatial_dims) in [0, 1), whatever the batch."""
        generator = torch.Generator().manual_seed(self.seed)
        cells = per_axis(self.cells, spatial_dims)
        coarse = torch.rand(self.masks, 1, *cells, generator=generator) < self.keep
        return coarse.float(), torch.rand(self.masks, spatial_dims, generator=generator)


def enlarged(coarse: Tensor, shifts: Tensor, size: torch.Size) -> Tensor:
    """Masks (P, 1, *size): cells of C pixels, enlarged to one cell more than the image, cut out at a random place."""
    cells = coarse.shape[2:]
    widths = [math.ceil(pixels / count) for pixels, count in zip(size, cells, strict=True)]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    large = F.interpolate(
        coarse,
        size=[(count + 1) * width for count, width in zip(cells, widths, strict=True)],
        mode=mode,
        align_corners=False,
    )
    corners = (shifts * torch.tensor(widths)).long().tolist()  # 0 to C - 1 per axis
    return torch.stack(
        [
            mask[(..., *(slice(first, first + pixels) for first, pixels in zip(corner, size, strict=True)))]
            for mask, corner in zip(large, corners, strict=True)
        ]
    )
