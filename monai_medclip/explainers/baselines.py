"""Maps that know nothing of the model: what any explanation has to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_medclip.explainers.base import Explainer

__all__ = ["CentreBlob", "RandomMap"]


class RandomMap(Explainer):
    """Independent uniform values in [0, 1) on a coarse grid, the same for the same seed.

    Args:
        cell: pixels per grid cell and axis.
        seed: of the generator, for every call.
        target, verify: see `Explainer`.
    """

    name = "random"

    def __init__(self, *, cell: int = 8, seed: int = 0, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(target=target, verify=verify)
        self.cell = cell
        self.seed = seed

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            scores = self._scores(classifier, classifier(image, **context))
        grid = [-(-size // self.cell) for size in image.shape[2:]]
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(*scores.shape, *grid, generator=generator).to(image.device), scores


class CentreBlob(Explainer):
    """A Gaussian in the middle of the image, peak 1.

    Args:
        sigma: standard deviation as a fraction of each axis.
        target, verify: see `Explainer`.
    """

    name = "centre blob"

    def __init__(self, *, sigma: float = 0.25, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(target=target, verify=verify)
        self.sigma = sigma

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            scores = self._scores(classifier, classifier(image, **context))
        axes = [((torch.arange(size, device=image.device) + 0.5) / size - 0.5) / self.sigma for size in image.shape[2:]]
        squared = sum(axis.square() for axis in torch.meshgrid(*axes, indexing="ij"))
        blob = torch.exp(-0.5 * torch.as_tensor(squared))
        return blob.expand(*scores.shape, *blob.shape).clone(), scores
