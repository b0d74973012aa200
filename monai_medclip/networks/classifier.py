"""What every classifier is, and a probe on top of a CLIP: the shape that evaluators, exporters and explainers take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.networks.clip import CLIP
from monai_medclip.networks.image_encoder import ImageEncoder

__all__ = ["Classifier", "ProbeClassifier"]


@runtime_checkable
class Classifier(Protocol):
    """Image -> one logit per finding, with its image encoder in reach.

    ``score_features(image_encoder(image), **context)`` equals ``classifier(image, **context)``: an explainer can leave
    the encoder at any layer and come back to the very score.
    """

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the F logits."""
        ...

    @property
    def context_keys(self) -> tuple[str, ...]:
        """Names of the further inputs, batch-aligned tensors that explainers hold fixed."""
        ...

    @property
    def image_encoder(self) -> ImageEncoder:
        """The network that looks at the image."""
        ...

    def __call__(self, image: Tensor, **context: Tensor) -> Tensor:
        """Logits (B, F) of images (B, C, *spatial)."""
        ...

    def score_features(self, features: Tensor, **context: Tensor) -> Tensor:
        """Logits (B, F) of the encoder's pooled features (B, width)."""
        ...


class ProbeClassifier(nn.Module):
    """A trained head on the embeddings of a CLIP that stays as it is.

    Args:
        clip: the network; shared, not copied.
        head: module from (B, width) to (B, F); see `width`.
        findings: names of the F logits.
        with_text: the head reads the report as well; its tokens are then context, and its embedding follows the
            image's.
        space: what stands for the image: ``"embedding"`` in the shared space, or ``"pooled"``, the image encoder's own
            features at unit length.

    References:
        The chest X-ray protocol: frozen 512-d image and 512-d text embeddings, concatenated, into an MLP.
    """

    def __init__(
        self,
        clip: CLIP,
        head: nn.Module,
        findings: Sequence[str],
        *,
        with_text: bool = False,
        space: str = "embedding",
    ) -> None:
        """See the class."""
        super().__init__()
        if space not in ("embedding", "pooled"):
            raise ValueError(f"space={space!r}: choose 'embedding' (the shared space) or 'pooled' (the encoder's own).")
        self.clip = clip
        self.head = head
        self.findings = tuple(findings)
        self.space = space
        self.context_keys = ("input_ids", "attention_mask") if with_text else ()

    @property
    def width(self) -> int:
        """Numbers that the head takes per item."""
        image = self.clip.embed_dim if self.space == "embedding" else int(self.image_encoder.width)
        return image + (self.clip.embed_dim if self.context_keys else 0)

    @property
    def image_encoder(self) -> ImageEncoder:
        """The CLIP's image side."""
        return self.clip.image_encoder

    def forward(self, image: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, F) of images (B, C, *spatial) and, for a multimodal head, their tokens (B, N)."""
        return self.score(self.embed_image(image), input_ids, attention_mask)

    def score_features(
        self, features: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, F) of the image encoder's pooled features (B, width)."""
        return self.score(self.embed_features(features), input_ids, attention_mask)

    def embed_features(self, features: Tensor) -> Tensor:
        """What stands for images, at unit length, of the encoder's pooled features: (B, E), or (B, width) pooled."""
        return F.normalize(features.float(), dim=-1) if self.space == "pooled" else self.clip.embed_features(features)

    def embed_image(self, image: Tensor) -> Tensor:
        """The same of images (B, C, *spatial)."""
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        return self.embed_features(self.image_encoder(image))

    def score(self, embedding: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (B, F) of what `embed_image` gives and, for a multimodal head, tokens (B, N)."""
        if not self.context_keys:
            return self.head(embedding)
        if input_ids is None or attention_mask is None:
            raise ValueError("this probe reads the report too: give input_ids and attention_mask beside the image.")
        text = self.clip.encode_text(input_ids, attention_mask)
        return self.head(torch.cat([embedding, text], dim=1))
