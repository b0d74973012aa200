"""Conservative propagation: the score's gradient carried to the pixels, attention and normalization held fixed."""

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

__all__ = ["ConservativePropagation"]


class ConservativePropagation(AttentionExplainer):
    """ReLU(G_sigma * sum_c (x_c - mean_c) dS/dx_c), with attention weights and normalization scales held constant.

    What is left is nearly linear in the tokens, so what the score owes to a place is carried through every block to
    the pixels x, each beside the mean gray of its own image; G_sigma gathers them. Methods that read the last
    attention alone ask what its tokens hold, and after one block of mixing that need not be the patch below them.
    The numbers are not exact effects of removing a place: attention would then look elsewhere.

    Args:
        sigma: of the Gaussian that gathers the pixels' contributions, in patches; greater than 0.
        target, verify: see `Explainer`.

    References:
        Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022:
        its rules for attention heads and for layer normalization, here also for the embedding's unit length.
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
        return F.relu(gathered(contributions, encoder, self.sigma)), walk.scores

    def _stage(self, encoder: AttentionAccess, entering: Tensor, block: int) -> Stage:
        stage = super()._stage(encoder, entering, block)
        return stage._replace(context=merge_heads(stage.attention.detach() @ stage.qkv.v))


def gathered(values: Tensor, encoder: Any, sigma: float) -> Tensor:
    """A Gaussian over maps (B, F, *spatial), of a width in patches of the encoder."""
    size = values.shape[2:]
    patch = [pixels / cells for pixels, cells in zip(size, encoder.grid_size, strict=True)]
    return GaussianFilter(len(size), [sigma * pixels for pixels in patch]).to(values)(values)


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
