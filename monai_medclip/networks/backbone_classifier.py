"""The network that made the features, in front of the classifier that reads them: one classifier of images again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_medclip.networks.classifier import Classifier
from monai_medclip.networks.image_encoder import ImageEncoder

__all__ = ["BackboneClassifier"]

ATOL = RTOL = 1e-4  # |made - stored| <= ATOL + RTOL * |stored|, for every feature of every item


class BackboneClassifier(nn.Module):
    """A classifier of images, composed of a backbone and a classifier over the features that the backbone once made.

    It cannot be had without a check: the backbone has to reproduce stored features of some images, else an explanation
    would be of a network that never gave these scores.

    Args:
        backbone: image encoder (B, C, *spatial) -> (B, width); shared, not copied.
        classifier: zero-shot or probe, its image encoder being `PrecomputedFeatures` of that width; shared, not copied.
        pairs: batches of images (b, C, *spatial), preprocessed as when the features were made, and their stored
            features (b, width). Each is compared once, here; a few dozen items are enough.

    Raises:
        TypeError: the backbone takes no images, or the classifier no features.
        ValueError: different widths, no pairs, or features that differ by more than 1e-4 absolute plus 1e-4 relative.

    Example:
        ``BackboneClassifier(densenet, clip.classifier(findings, tokenizer), [(images, features)]).eval()``
    """

    def __init__(self, backbone: Any, classifier: Any, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Check that the two belong together, and join them."""
        super().__init__()
        if not backbone.spatial_dims or classifier.image_encoder.spatial_dims:
            raise TypeError(
                f"{type(backbone).__name__} has to take images, and {type(classifier).__name__} features: give an "
                "image encoder, and a classifier of a CLIP over PrecomputedFeatures."
            )
        if backbone.width != classifier.image_encoder.width:
            raise ValueError(
                f"the backbone makes {backbone.width} features and the classifier takes "
                f"{classifier.image_encoder.width}: this backbone did not make them."
            )
        self.backbone = backbone
        self.classifier = classifier
        self._check_features(pairs)

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the F logits."""
        return self.classifier.findings

    @property
    def context_keys(self) -> tuple[str, ...]:
        """Names of the further inputs."""
        return self.classifier.context_keys

    @property
    def image_encoder(self) -> ImageEncoder:
        """The backbone."""
        return self.backbone

    @property
    def as_cosine(self) -> Callable[[Tensor], Tensor]:
        """The classifier's own, if it has one: a zero-shot classifier has, a probe has not."""
        return self.classifier.as_cosine

    def forward(self, image: Tensor, **context: Tensor) -> Tensor:
        """Logits (B, F) of images (B, C, *spatial)."""
        return self.score_features(self.backbone(_as_tensor(image)), **context)

    def score_features(self, features: Tensor, **context: Tensor) -> Tensor:
        """Logits (B, F) of the backbone's pooled features (B, width)."""
        classifier: Classifier = self.classifier
        return classifier(features, **context)

    def _check_features(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        made, stored = self._features_of(pairs)
        if made.shape != stored.shape:
            raise ValueError(
                f"the backbone makes features of shape {tuple(made.shape)} and {tuple(stored.shape)} are stored: give "
                "one vector for each image."
            )
        difference = (made - stored).abs()
        excess = (difference - RTOL * stored.abs() - ATOL).nan_to_num(nan=torch.inf)
        if not bool((excess > 0).any()):
            return
        item, feature = divmod(int(excess.argmax()), excess.shape[1])
        raise ValueError(
            f"the backbone does not reproduce the stored features: of item {item} (of {len(made)}, counted from 0), "
            f"feature {feature} is {float(made[item, feature]):.6g} now and {float(stored[item, feature]):.6g} in "
            f"store, {float(difference[item, feature]):.3g} apart; {ATOL:g} + {RTOL:g} of the stored value is allowed. "
            f"{int((excess > 0).any(dim=1).sum())} items differ. Are these the weights that made the features, and "
            "the same preprocessing (size, orientation, intensities, channels)? Are images and vectors in the same "
            "order, and were the vectors stored in single precision? Nothing is explained until they agree."
        )

    def _features_of(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """All features made now, in evaluation mode and full precision, and all stored: (n, width) each."""
        device = next((parameter.device for parameter in self.backbone.parameters()), torch.device("cpu"))
        modes = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                both = [
                    (self.backbone(_as_tensor(image).to(device)).float().cpu(), _as_tensor(features).float().cpu())
                    for image, features in pairs
                ]
        finally:
            for module, mode in modes.items():
                module.training = mode
        if not both:
            raise ValueError("no pairs to compare: give some images with their stored features.")
        return torch.cat([made for made, _ in both]), torch.cat([stored for _, stored in both])


def _as_tensor(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
