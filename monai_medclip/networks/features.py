"""Precomputed features as images: what another network saw goes straight to the projection."""

from __future__ import annotations

from monai.data import MetaTensor
from torch import Tensor, nn

__all__ = ["PrecomputedFeatures"]


class PrecomputedFeatures(nn.Module):
    """Takes feature vectors where other encoders take images; it has no weights of its own.

    ``spatial_dims`` is 0 and ``image_size`` empty: there are no pixels for an explainer to point at.

    Args:
        width: length of a feature vector, 1024 for DenseNet121.
    """

    spatial_dims = 0
    image_size: tuple[int, ...] = ()
    mean = (0.0,)
    std = (1.0,)

    def __init__(self, width: int = 1024) -> None:
        """Remember the length."""
        super().__init__()
        self.width = width
        self.in_channels = width

    def forward(self, image: Tensor) -> Tensor:
        """The features (B, width) themselves, as a plain tensor.

        Raises:
            ValueError: if they have another shape, such as an image.
        """
        if image.ndim != 2 or image.shape[1] != self.width:
            raise ValueError(
                f"precomputed features must be (B, {self.width}), not {tuple(image.shape)}: feed the vectors of the "
                "network that made them, or choose an encoder that takes images."
            )
        return image.as_tensor() if isinstance(image, MetaTensor) else image
