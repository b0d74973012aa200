"""Integrated gradients: what every pixel adds to the score on the way from a baseline to the image."""

from __future__ import annotations

from typing import Any

import captum.attr
import torch
from torch import Tensor

from monai_medclip.explainers.perturbation import PerturbationExplainer

__all__ = ["IntegratedGradients"]


class IntegratedGradients(PerturbationExplainer):
    """(x - x') times the mean gradient on the straight line from the baseline x' to x, summed over channels.

    Completeness: a map's pixels sum to score(image) - score(baseline), the better the more steps. A negative pixel
    speaks against the finding. There is no map of absolute values: it would rank evidence against a finding as high.

    captum integrates, one finding per pass of its own; here its gradient function returns those of all findings, so
    that they share the forward passes.

    Args:
        steps: points of the Gauss-Legendre rule.
        positive: keep only what supports the finding; the rest becomes 0, and completeness is lost.
        baseline, batch_size, target, verify: see `PerturbationExplainer`.

    References:
        Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, Eq. 1 and Proposition 1.
    """

    name = "integrated gradients"

    def __init__(
        self,
        *,
        steps: int = 50,
        positive: bool = False,
        baseline: str | float = "blur",
        batch_size: int = 32,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(baseline=baseline, batch_size=batch_size, target=target, verify=verify)
        if steps < 1:
            raise ValueError(f"steps={steps}: at least one point must be evaluated.")
        self.steps = steps
        self.positive = positive

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            scores = self._judge(classifier, image, context)

        def judge(path: Tensor) -> Tensor:  # (P B, 1, C, *spatial) -> (P B, F)
            return self._judge(classifier, path[:, 0], context)

        def all_gradients(
            forward_fn: Any, inputs: tuple[Tensor], target_ind: None, additional_forward_args: None
        ) -> tuple[Tensor]:
            return (_per_finding(judge(inputs[0]), inputs[0])[:, :, 0],)  # (P B, F, C, *spatial)

        method = captum.attr.IntegratedGradients(judge)
        method.gradient_func = all_gradients
        attributions = method.attribute(  # an axis of length 1 in the place of the findings
            image.unsqueeze(1),
            baselines=self._removed(classifier, image).unsqueeze(1),
            n_steps=self.steps,
            internal_batch_size=self._copies(image) * len(image),
        )  # (B, F, C, *spatial)
        maps = attributions.sum(2)
        return (maps.clamp_min(0) if self.positive else maps), scores


def _per_finding(scores: Tensor, inputs: Tensor) -> Tensor:
    """d scores[:, f] / d inputs: (P B, F, ...), one backward pass per finding.

    Batched gradients would need F times the memory of the whole network, not only of the few layers after a block.
    """
    columns = scores.sum(0)
    grads = [torch.autograd.grad(column, inputs, retain_graph=True)[0] for column in columns]
    return torch.stack(grads, dim=1)
