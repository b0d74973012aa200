"""Occlusion: a window slides over the image; what the score loses is what was under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import captum.attr
import torch
from torch import Tensor

from monai_medclip.explainers.perturbation import PerturbationExplainer, cell_grid
from monai_medclip.networks.image_encoder import per_axis

__all__ = ["Occlusion"]


class Occlusion(PerturbationExplainer):
    """Mean drop of the score over the windows that cover a place; negative where the score rises without it.

    captum's Occlusion does the sliding, all findings and images in the same forward passes. It slides over a grid of
    stride-sized cells instead of pixels, which gives the same numbers without a pixel mask per window and finding.
    MONAI's OcclusionSensitivity takes one image at a time, maps probabilities instead of their drop (low means
    important), and its softmax over findings lets one finding's window change another's map.

    Args:
        window: pixels per axis, one number or one per axis; multiples of ``stride``.
        stride: pixels between neighboring windows, one number or one per axis. Where an axis is no multiple, strides
            are stretched to share it out evenly.
        baseline, batch_size, target, verify: see `PerturbationExplainer`.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2.
    """

    name = "occlusion"

    def __init__(
        self,
        *,
        window: int | Sequence[int] = 16,
        stride: int | Sequence[int] = 8,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(baseline=baseline, batch_size=batch_size, target=target, verify=verify)
        self.window = window
        self.stride = stride

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        grid = cell_grid(image, self.stride)
        window = self._window_cells(image, grid)
        removed = self._removed(classifier, image)

        def judge(visible: Tensor) -> Tensor:  # (P B, 1, *grid), copy by copy -> (P B, F)
            masks = visible[:: len(image)]  # captum hides the same window in every image
            return self._judge_visible(classifier, image, removed, masks, context).flatten(0, 1)

        with torch.no_grad():
            scores = self._judge(classifier, image, context)
            drops = captum.attr.Occlusion(judge).attribute(
                image.new_ones(len(image), 1, *grid),
                sliding_window_shapes=(1, *window),
                perturbations_per_eval=self._copies(image),
            )  # (B F, 1, *grid)
        return drops.reshape(*scores.shape, *grid), scores

    def _window_cells(self, image: Tensor, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The window in strides.

        Raises:
            ValueError: if it is no multiple of the stride, or larger than the image.
        """
        axes = image.ndim - 2
        window, stride = per_axis(self.window, axes), per_axis(self.stride, axes)
        cells = tuple(w // s for w, s in zip(window, stride, strict=True))
        if any(w < s or w % s for w, s in zip(window, stride, strict=True)):
            raise ValueError(f"window={self.window} must be a multiple of stride={self.stride} along every axis.")
        if any(count > size for count, size in zip(cells, grid, strict=True)):
            raise ValueError(
                f"window={self.window} is larger than the image {tuple(image.shape[2:])}: make it smaller."
            )
        return cells
