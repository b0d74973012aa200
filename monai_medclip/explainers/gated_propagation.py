"""Gated propagation: what pixels owe to the score, where attention's relevance confirms it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from monai_medclip.explainers.attention_path import require_attention
from monai_medclip.explainers.base import Explainer, upsample
from monai_medclip.explainers.chefer import Chefer
from monai_medclip.explainers.conservative_propagation import ConservativePropagation, gathered
from monai_medclip.networks import Classifier

__all__ = ["GatedPropagation"]


class GatedPropagation(Explainer):
    """`ConservativePropagation` times the relevance of `Chefer`, smoothed and scaled to a maximum of 1 per map.

    The two go wrong in different ways: pixels' contributions are sharp, and some lie where the network attends to
    another finding; relevance is as coarse as the patches, but of what was attended to. The product keeps the unit of
    the first and is nowhere larger. It is no decomposition: it does not add up to the score.

    Args:
        sigma: of the Gaussian that gathers the pixels' contributions, in patches; greater than 0.
        gate_sigma: of the Gaussian over the relevance, in patches; greater than 0.
        target, verify: see `Explainer`.

    References:
        Our own; of Ali et al. (see `ConservativePropagation`) and Chefer et al. (see `Chefer`).
    """

    name = "gated propagation"

    def __init__(
        self, *, sigma: float = 0.6, gate_sigma: float = 0.5, target: str = "logit", verify: bool = False
    ) -> None:
        """See the class."""
        super().__init__(target=target, verify=verify)
        if not gate_sigma > 0:
            raise ValueError(f"gate_sigma={gate_sigma} must be greater than 0, in patches.")
        self.gate_sigma = gate_sigma
        self.propagation = ConservativePropagation(sigma=sigma, target=target, verify=verify)
        self.relevance = Chefer(target=target, verify=verify)

    def _check(self, classifier: Classifier) -> None:
        require_attention(self, classifier)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        maps, scores = self.propagation._maps(classifier, image, context)
        relevance, _ = self.relevance._maps(classifier, image, context)
        gate = gathered(upsample(relevance, image.shape[2:]), classifier.image_encoder, self.gate_sigma)
        largest = gate.flatten(2).amax(-1)[(...,) + (None,) * (image.ndim - 2)]  # (B, F, 1, ...)
        return maps * gate / largest.clamp_min(1e-12), scores
