"""2.5D: a 2D image encoder over the slices of a volume, then attention over slices: pretrained 2D CLIPs read CT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from monai_medclip.networks.attention import QKV, AttentionStage, StagedAttention, attend, split_heads
from monai_medclip.networks.freezing import is_frozen

__all__ = ["SliceClassifier", "SliceEncoder", "SlicePooling"]

ANY_NUMBER = -1  # MONAI's spatial transforms leave an axis of this size as it is


class SlicePooling(nn.Module):
    """Attention of one learned query over the features f_s of slices s = 1..S; it is its own attention stage.

    a_s = softmax_s(q . W (norm(f_s) + p_s) / sqrt(D / H)) and the result is sum_s a_s f_s, per head over its D / H
    features. Values are the features themselves: what is pooled stays in their space. The query starts at zero,
    so that an untrained pooling is the mean over slices.

    Args:
        width: D.
        heads: H, a divisor of D.
        slices: learn a position p_s for so many slices, zero at first and linearly interpolated to other numbers; None
            for no positions: the order of slices is then not seen.

    Raises:
        ValueError: if heads do not divide the width, or for less than one slice.

    References:
        Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, Eq. 7-8 (weights that sum to 1 over
        the members of a bag); Lee et al., Set Transformer, ICML 2019, section 3.2 (pooling by a learned query).
    """

    prefix_tokens = 0

    def __init__(self, width: int, heads: int = 1, slices: int | None = None) -> None:
        """A zero query, random keys, zero positions."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads} must divide the slice encoder's width {width}: use 1, or another divisor.")
        if slices is not None and slices < 1:
            raise ValueError(f"slices={slices}: a volume has at least one; None for any number, without positions.")
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.key = nn.Linear(width, width, bias=False)
        self.pos_embed = None if slices is None else nn.Parameter(torch.zeros(1, slices, width))

    @property
    def entrance(self) -> nn.Module:
        """This module: it is called with the features of all slices."""
        return self

    def qkv(self, tokens: Tensor) -> QKV:
        """Query (B, H, 1, dh), keys and values (B, H, S, dh) of features (B, S, D)."""
        keys = self.norm(tokens)
        if self.pos_embed is not None:
            keys = keys + self._positions(self.pos_embed, tokens.shape[1])
        query = self.query.expand(tokens.shape[0], 1, -1)
        return QKV(*(split_heads(x, self.heads) for x in (query, self.key(keys), tokens)))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        """The heads' output (B, 1, D) is the result."""
        return context

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of slices (B, S, D) -> of volumes (B, 1, D)."""
        return attend(self.qkv(tokens))[1]

    @staticmethod
    def _positions(learned: Tensor, slices: int) -> Tensor:
        """(1, S, D) at the same relative depths."""
        if learned.shape[1] == slices:
            return learned
        return F.interpolate(learned.transpose(1, 2), size=slices, mode="linear").transpose(1, 2)


class SliceEncoder(nn.Module, StagedAttention):
    """A 2D encoder over every slice, then `SlicePooling`: (B, C, slices, rows, columns) -> features (B, width).

    Slices pass a few at a time, so that without gradients memory holds one chunk's activations, whatever the volume.
    A volume of identical slices has the features of that slice, with any weights of the pooling; before
    training, features are the mean of the slices'. A frozen slice encoder stays in evaluation mode.

    Attention access is to the pooling: its tokens are slices, so an explainer says which slice. For where in it,
    explain a `SliceClassifier`, whose gradients are those of the volume's score.

    Args:
        slice_encoder: any image encoder of images (B, C, rows, columns); shared, not copied.
        slices: volumes have so many, and the pooling learns a position for each; None for any number of slices, whose
            order is then not seen.
        chunk: slices per pass of the 2D encoder; None for all in one, which an export needs. In training a network with
            batch normalization over features, `SmallViT` or a ResNet, takes its statistics from each chunk: use None
            for it, or freeze it.
        heads: of the pooling.
        checkpoint: in training keep no activations of the slice encoder, but compute each chunk again on the way back:
            memory of one chunk, a third more time. Running statistics of batch normalization are then updated twice.

    Attributes:
        image_size: (slices, rows, columns); slices is -1 for any number, as MONAI's transforms write it.
        grid_size: (slices, 1, 1); empty for any number of slices.
        projected: as the slice encoder's: the pooled features stay in a pretrained model's embedding space.

    Raises:
        ValueError: a slice encoder that takes no 2D images, a chunk below 1, heads that do not divide the width.

    Example:
        ``CLIP(SliceEncoder(clip.image_encoder), clip.text_encoder)`` of ``clip = CLIP.from_open_clip(...)``
    """

    spatial_dims = 3

    def __init__(
        self,
        slice_encoder: Any,
        *,
        slices: int | None = None,
        chunk: int | None = 8,
        heads: int = 1,
        checkpoint: bool = False,
    ) -> None:
        """Put the pooling behind the slice encoder."""
        super().__init__()
        if slice_encoder.spatial_dims != 2:
            raise ValueError(
                f"{type(slice_encoder).__name__} has spatial_dims={slice_encoder.spatial_dims}: slices are 2D images. "
                "Give a 2D encoder, or use a 3D encoder as it is."
            )
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk={chunk}: at least one slice must pass at a time; None for all at once.")
        self.slice_encoder = slice_encoder
        self.width = int(slice_encoder.width)
        self.pooling = SlicePooling(self.width, heads, slices)
        self.chunk = chunk
        self.checkpoint = checkpoint
        self.in_channels = int(slice_encoder.in_channels)
        self.mean, self.std = slice_encoder.mean, slice_encoder.std
        self.image_size = (ANY_NUMBER if slices is None else slices, *slice_encoder.image_size)
        self.grid_size = () if slices is None else (slices, 1, 1)
        self.projected = bool(getattr(slice_encoder, "projected", False))

    def train(self, mode: bool = True) -> SliceEncoder:
        """Training mode, except for a frozen slice encoder: no dropout, token dropping or running statistics there."""
        super().train(mode)
        if is_frozen(self.slice_encoder):
            self.slice_encoder.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width) of volumes (B, C, slices, rows, columns)."""
        return self.pool_slices(self.slice_features(image))

    def slice_features(self, image: Tensor) -> Tensor:
        """Features of every slice by itself, (B, S, width), of volumes (B, C, S, rows, columns).

        Raises:
            ValueError: if these are no volumes.
        """
        volume = image.as_tensor() if isinstance(image, MetaTensor) else image
        if volume.ndim != 5:
            raise ValueError(
                f"volumes must be (B, C, slices, rows, columns), not {tuple(volume.shape)}: give 2D images to the "
                "slice encoder itself."
            )
        slices = volume.movedim(2, 1).flatten(0, 1)  # (B * S, C, rows, columns); the volume's memory for B = 1 or C = 1
        chunks = (slices,) if self.chunk is None else slices.split(self.chunk)
        features = torch.cat([self._encode(chunk) for chunk in chunks])
        return features.reshape(volume.shape[0], volume.shape[2], self.width)

    def _encode(self, slices: Tensor) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return recomputed(self.slice_encoder, slices, use_reentrant=False)
        return self.slice_encoder(slices)

    def pool_slices(self, features: Tensor) -> Tensor:
        """Pooled features (B, width) of slices' features; ``pool_slices(slice_features(x))`` equals ``forward(x)``."""
        return self._pool(self.pooling(features))

    def slice_weights(self, image: Tensor) -> Tensor:
        """How much each slice counts: (B, heads, S), positive, 1 in sum over the slices."""
        return attend(self.pooling.qkv(self.slice_features(image)))[0][:, :, 0]

    def to_grid(self, values: Tensor) -> Tensor:
        """Lay values out in the volume: one per slice (B, S) -> (B, 1, S, 1, 1), or one per slice and patch.

        The latter are (B, S, P) in the order of the slice encoder's patches, and become (B, 1, S, *its grid).

        Raises:
            ValueError: if P is not the number of patches of a slice, or S not that of slices where it is fixed.
        """
        slices = self.image_size[0]
        if slices not in (ANY_NUMBER, values.shape[1]):
            raise ValueError(f"{values.shape[1]} values are not one for each of {slices} slices.")
        if values.ndim == 2:
            return values[:, None, :, None, None]
        laid = self.slice_encoder.to_grid(values.flatten(0, 1))  # (B * S, 1, *grid)
        return laid.reshape(values.shape[0], 1, values.shape[1], *laid.shape[2:])

    def _stages(self) -> Sequence[AttentionStage]:
        return [self.pooling]

    def _embed(self, image: Tensor) -> Tensor:
        return self.slice_features(image)

    def _pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


class SliceClassifier(nn.Module):
    """A classifier of volumes as a function of one slice, all other slices held fixed: a `Classifier` of 2D images.

    For a slice of the volume its score is the volume's own, and gradients at any layer of the slice encoder are
    the volume's, through values and weights of the pooling. So every explainer of 2D images shows where in a slice,
    with maps that compare across the slices of a volume, and only the slices at hand are in memory.

    Args:
        classifier: of volumes, its image encoder being a `SliceEncoder`; shared, not copied.

    Attributes:
        context_keys: ``slice_features`` (B, S, width), what the encoder's `slice_features` gave for the volume of each
            slice, ``slice_index`` (B,) int64, which of the S it is, and the classifier's own.

    Raises:
        TypeError: for a classifier with another encoder.

    Example:
        ``explain(SliceClassifier(c), x[0].movedim(1, 0), slice_features=f.expand(S, -1, -1), slice_index=arange(S))``
        where ``f = c.image_encoder.slice_features(x)`` of a volume x (1, C, S, rows, columns)
    """

    def __init__(self, classifier: Any) -> None:
        """See the class."""
        super().__init__()
        if not isinstance(classifier.image_encoder, SliceEncoder):
            raise TypeError(
                f"{type(classifier.image_encoder).__name__} does not read a volume slice by slice: give a classifier "
                "over a SliceEncoder, or explain this one as it is."
            )
        self.classifier = classifier
        self.findings: tuple[str, ...] = tuple(classifier.findings)
        self.context_keys = ("slice_features", "slice_index", *classifier.context_keys)

    @property
    def image_encoder(self) -> Any:
        """The 2D encoder."""
        return self.classifier.image_encoder.slice_encoder

    @property
    def as_cosine(self) -> Any:
        """The classifier's own, where it has one."""
        return self.classifier.as_cosine

    def forward(self, image: Tensor, slice_features: Tensor, slice_index: Tensor, **context: Tensor) -> Tensor:
        """Logits (B, F) of the volumes with these slices (B, C, rows, columns) in their places."""
        return self.score_features(self.image_encoder(image), slice_features, slice_index, **context)

    def score_features(
        self, features: Tensor, slice_features: Tensor, slice_index: Tensor, **context: Tensor
    ) -> Tensor:
        """Logits (B, F) of the slice encoder's pooled features (B, width) in their places."""
        places = torch.arange(slice_features.shape[1], device=slice_index.device)
        here = (places == slice_index[:, None]).unsqueeze(-1)  # (B, S, 1)
        slices = torch.where(here, features.unsqueeze(1), slice_features)
        return self.classifier.score_features(self.classifier.image_encoder.pool_slices(slices), **context)
