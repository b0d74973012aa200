"""The method that localized best on validation phantoms: relevance carried to the pixels with attention held fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from monai_medclip.explainers.attention_path import AttentionExplainer, Stage
from monai_medclip.explainers.base import gradients
from monai_medclip.networks import AttentionAccess
from monai_medclip.networks.attention import merge_heads

__all__ = ["ConservativePropagation", "recommended"]


class ConservativePropagation(AttentionExplainer):
    """ReLU(G_sigma * sum_c (x_c - mean_c) dS/dx_c), where attention weights and normalization scales count as constant.

    The score is then nearly linear in the tokens, and what it owes to a patch is carried through every block to the
    pixels: also where the last attention reads a background token that collected the finding in an earlier block,
    which leaves maps of the last attention empty at the lesion. x - mean is the image beside its own mean gray.

    Args:
        sigma: of the Gaussian that gathers the pixels' contributions, in patches; greater than 0.
        target, verify: see `Explainer`.

    References:
        Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022, Eq. 9-10.
    """

    name = "conservative propagation"

    def __init__(self, *, sigma: float = 0.6, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(blocks=None, target=target, verify=verify)
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: single pixels' contributions are noise, give a width in patches above 0.")
        self.sigma = sigma

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = classifier.image_encoder
        pixels = image.clone().requires_grad_()
        with _FixedScales():
            walk = self._from_tokens(classifier, encoder.tokens_entering(pixels, 0), 0, context)
        if self._must_verify(classifier):
            with torch.no_grad():
                self._compare(classifier, walk.logits, classifier(image, **context))
        (gradient,) = gradients(walk.scores, [pixels])  # (B, F, C, *spatial)
        spatial = tuple(range(2, image.ndim))
        contrast = image - image.mean(dim=spatial, keepdim=True)
        contributions = (gradient * contrast.unsqueeze(1)).sum(dim=2)  # (B, F, *spatial)
        patch = [size / cells for size, cells in zip(image.shape[2:], encoder.grid_size, strict=True)]
        gather = GaussianFilter(len(spatial), [self.sigma * size for size in patch]).to(image)
        return F.relu(gather(contributions)), walk.scores

    def _stage(self, encoder: AttentionAccess, entering: Tensor, block: int) -> Stage:
        stage = super()._stage(encoder, entering, block)
        return stage._replace(context=merge_heads(stage.attention.detach() @ stage.qkv.v))


def recommended(*, verify: bool = False) -> ConservativePropagation:
    """The method with the best pointing game on validation phantoms, as `ConservativePropagation` states."""
    return ConservativePropagation(verify=verify)


class _FixedScales(TorchFunctionMode):
    """Within it layer normalization and unit length divide by constants: no gradient flows through the divisor."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _FIXED.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    tokens: Tensor,
    normalized_shape: Iterable[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    last = tuple(range(-len(tuple(normalized_shape)), 0))
    centred = tokens - tokens.mean(dim=last, keepdim=True)
    scaled = centred * (centred.detach().square().mean(dim=last, keepdim=True) + eps).rsqrt()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _unit_length(
    vectors: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    return torch.div(vectors, vectors.detach().norm(p, dim, keepdim=True).clamp_min(eps), out=out)


_FIXED: Mapping[Callable[..., Any], Callable[..., Any]] = {F.layer_norm: _layer_norm, F.normalize: _unit_length}
