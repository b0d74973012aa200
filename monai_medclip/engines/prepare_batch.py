"""From a collated batch of items to the arguments of a CLIP and the target of its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatch
from torch import Tensor

__all__ = ["ContrastivePrepareBatch", "ImagePrepareBatch", "LabelPrepareBatch"]


class ContrastivePrepareBatch(PrepareBatch):
    """Gives ``network(image, input_ids, attention_mask)`` its arguments and ``loss(output, positives)`` its target.

    Stock ``PrepareBatchExtraInput`` makes ``label`` the target, and leaves images as MetaTensors, which would make
    embeddings and loss MetaTensors too.

    Args:
        image_key: entry that is fed as the image: ``"image"`` (B, C, *spatial), or ``"features"`` (B, D), precomputed.
        target_key: entry (B,) int64 that says which items are the same.
    """

    def __init__(self, image_key: str = "image", target_key: str = "positives") -> None:
        """See the class."""
        self.image_key = image_key
        self.target_key = target_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], dict[str, Any]]:
        """Moves a batch to the device.

        Args:
            batchdata: collated items with the image, the target, ``input_ids`` and ``attention_mask`` (B, N).
            device: where the tensors go.
            non_blocking: whether the copy may overlap with computation on the host.
            kwargs: other arguments of ``Tensor.to`` for the image, such as ``memory_format``.

        Returns:
            Image, target, (input_ids, attention_mask), and no further keywords.

        Raises:
            KeyError: when the batch lacks an entry.
        """
        image = _entry(batchdata, self.image_key).to(device=device, non_blocking=non_blocking, **kwargs)
        target, input_ids, attention_mask = (
            _entry(batchdata, key).to(device=device, non_blocking=non_blocking)
            for key in (self.target_key, "input_ids", "attention_mask")
        )
        return image, target, (input_ids, attention_mask), {}


class ImagePrepareBatch(PrepareBatch):
    """Gives an evaluator the image alone; stock code would take whatever ``label`` an item carries for a tensor.

    Args:
        image_key: entry that is fed as the image.
    """

    def __init__(self, image_key: str = "image") -> None:
        self.image_key = image_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Moves the image (B, C, *spatial) to the device; see ``ContrastivePrepareBatch``."""
        return _entry(batchdata, self.image_key).to(device=device, non_blocking=non_blocking, **kwargs), None


class LabelPrepareBatch(ImagePrepareBatch):
    """Gives a classifier its image and its loss the labels, (B, F) float32 with NaN for unknown ones."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Moves image (B, C, *spatial) and labels to the device; see ``ContrastivePrepareBatch``."""
        image, _ = super().__call__(batchdata, device, non_blocking, **kwargs)
        return image, _entry(batchdata, "label").float().to(device=device, non_blocking=non_blocking)


def _entry(batch: Mapping[str, Any], key: str) -> Tensor:
    if key not in batch:
        raise KeyError(
            f"The batch has no '{key}', only {sorted(batch)}. TokenizeReportd makes input_ids and attention_mask, the "
            "data room's readers make positives and, of the findings they are given, label; which entry is the image "
            "is an argument."
        )
    value = batch[key]
    return value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
