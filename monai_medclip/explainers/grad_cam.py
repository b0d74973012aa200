"""Grad-CAM for convolutional networks, in 2D and 3D."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from monai_medclip.explainers.base import Explainer, gradients, undisturbed
from monai_medclip.networks import Classifier, has_attention

__all__ = ["GradCAM"]


class GradCAM(Explainer):
    """ReLU(sum_c w_c F_c) of the last feature map F, w_c = mean over positions of dS/dF_c.

    MONAI's GradCAM hooks a layer by name and runs the whole network forward and backward once per class; here all
    findings share one forward pass, and only the head is differentiated.

    Args:
        target, verify: see `Explainer`.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Eq. 1-2.
    """

    name = "Grad-CAM"

    def _check(self, classifier: Classifier) -> None:
        encoder = self._encoder(classifier)
        if has_attention(encoder):
            raise TypeError(
                f"{self.name} needs a convolutional feature map, and {type(encoder).__name__} holds a transformer. Use "
                "TokenGradCAM or AttentionGradCAM."
            )
        if not hasattr(encoder, "feature_map"):
            raise TypeError(
                f"{type(encoder).__name__} gives no feature map. Use RISE, Occlusion or IntegratedGradients."
            )
        shape = _feature_shape(encoder)
        if len(shape) != encoder.spatial_dims + 2:
            raise TypeError(
                f"{type(encoder).__name__}'s last features {shape} are no map (B, C, *grid). Use RISE, Occlusion or "
                "IntegratedGradients."
            )

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        encoder = classifier.image_encoder
        with torch.no_grad():
            features = encoder.feature_map(image)
        features = features.detach().requires_grad_()
        pooled = encoder.pool_features(features.clone())  # a DenseNet's last ReLU works in place
        logits = classifier.score_features(pooled, **context)
        if self._must_verify(classifier):
            with torch.no_grad():
                self._compare(classifier, logits, classifier(image, **context))
        scores = self._scores(classifier, logits)
        (gradient,) = gradients(scores, [features])  # (B, F, C, *grid)
        weights = gradient.flatten(3).mean(dim=-1)  # (B, F, C)
        return F.relu(torch.einsum("bfc,bc...->bf...", weights, features)), scores


_FEATURE_SHAPES: weakref.WeakKeyDictionary[Any, tuple[int, ...]] = weakref.WeakKeyDictionary()  # by network


def _feature_shape(encoder: Any) -> tuple[int, ...]:
    """Shape of the features of one image, found without computing them; kept for as long as the network lives."""
    if encoder not in _FEATURE_SHAPES:
        device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
        with FakeTensorMode(allow_non_fake_inputs=True), undisturbed(encoder), torch.no_grad():
            features = encoder.feature_map(torch.empty(1, encoder.in_channels, *encoder.image_size, device=device))
        _FEATURE_SHAPES[encoder] = tuple(features.shape)
    return _FEATURE_SHAPES[encoder]
