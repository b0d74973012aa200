"""MONAI's seam around explainers: an inferer whose output is a heatmap with the history of its image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from monai_medclip.explainers import Explainer, Explanation

__all__ = ["HeatmapInferer"]


class HeatmapInferer(Inferer):
    """Runs an explainer where MONAI expects an inferer: in evaluators, bundles and MONAI Label tasks.

    The maps carry their image's metadata and applied operations, so ``Invertd`` puts them back on the scanner's grid.

    Args:
        explainer: the method.
        network: a classifier of its own to explain, instead of the one it is called with (to show, say, what the
            weights before training looked at).
    """

    def __init__(self, explainer: Explainer, *, network: Any = None) -> None:
        """See the class."""
        super().__init__()
        self.explainer = explainer
        self.network = network

    def explain(self, inputs: Tensor, network: Any, **context: Tensor) -> Explanation:
        """Maps (B, F, *spatial) as a MetaTensor if the images (B, C, *spatial) are one, and the scores (B, F)."""
        found = self.explainer.explain(network if self.network is None else self.network, inputs, **context)
        if not isinstance(inputs, MetaTensor):
            return found
        heatmap = MetaTensor(found.heatmap).copy_meta_from(inputs)
        heatmap.is_batch = inputs.is_batch
        return found._replace(heatmap=heatmap)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The maps of `explain` alone.

        Args:
            inputs: images (B, C, *spatial).
            network: the classifier.
            args: none; explainers take further inputs by name.
            kwargs: further inputs of the classifier, by name.
        """
        if args:
            raise TypeError("give the classifier's further inputs by name, as its context_keys say.")
        return self.explain(inputs, network, **kwargs).heatmap
