"""CLIP: an image encoder and a text encoder that meet in one embedding space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from monai_medclip.findings import Finding
from monai_medclip.networks.checkpoints import load_weights
from monai_medclip.networks.freezing import is_frozen
from monai_medclip.networks.open_clip_encoder import OpenClipImageEncoder, load_open_clip
from monai_medclip.networks.slice_encoder import SliceEncoder
from monai_medclip.networks.text_open_clip import OpenClipTextEncoder
from monai_medclip.networks.transformers_clip import (
    TransformersClipImageEncoder,
    TransformersClipTextEncoder,
    load_transformers_clip,
)
from monai_medclip.networks.zero_shot import ZeroShotClassifier
from monai_medclip.outputs import CLIPOutput, TokenBatch

__all__ = ["CLIP"]

LIBRARIES = ("open_clip", "transformers")


class CLIP(nn.Module):
    """Two encoders, two linear projections without bias, and the scale (and bias) of their cosine.

    Args:
        image_encoder: module with ``width``; (B, C, *spatial) -> (B, width).
        text_encoder: module with ``width``; (B, N) ids and (B, N) mask -> (B, width).
        embed_dim: width E of the shared space. An encoder whose attribute ``projected`` is true (a tower of a whole
            pretrained model) already ends in that space and keeps its own projection: then E is its width.
        temperature: initial tau > 0; the logit scale starts at 1 / tau.
        learn_temperature: train the scale; False keeps tau fixed.
        max_logit_scale: upper limit of the scale, 100 in CLIP.
        logit_bias: initial bias of the pairwise sigmoid loss (-10 in SigLIP), learned; None for no bias.

    Raises:
        ValueError: for a temperature that is not positive, or projected encoders of different widths.

    References:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, Fig. 3.
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023, Alg. 1.
    """

    log_scale: Tensor
    logit_bias: Tensor

    def __init__(
        self,
        image_encoder: Any,
        text_encoder: Any,
        *,
        embed_dim: int = 512,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        max_logit_scale: float = 100.0,
        logit_bias: float | None = None,
    ) -> None:
        """Join two encoders; a tower of a whole pretrained model keeps its own projection."""
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be positive: CLIP starts at 0.07")
        widths = {int(e.width) for e in (image_encoder, text_encoder) if getattr(e, "projected", False)}
        if len(widths) > 1:
            raise ValueError(f"the encoders end in spaces of different widths {sorted(widths)}: they are no pair")
        self.embed_dim = widths.pop() if widths else embed_dim
        self.max_log_scale = math.log(max_logit_scale)
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = _projection(image_encoder, self.embed_dim)
        self.text_projection = _projection(text_encoder, self.embed_dim)
        log_scale = torch.tensor(min(-math.log(temperature), self.max_log_scale))
        _register(self, "log_scale", log_scale, learned=learn_temperature)
        _register(self, "logit_bias", torch.tensor(float(logit_bias or 0.0)), learned=logit_bias is not None)

    @classmethod
    def from_open_clip(
        cls,
        source: str | Path,
        *,
        pretrained: str | Path | None = None,
        image_size: int | Sequence[int] | None = None,
        learn_temperature: bool = True,
    ) -> CLIP:
        """A whole open_clip model with its own projections, logit scale and bias.

        Args:
            source: built-in name, ``"hf-hub:owner/name"``, or a local folder with ``open_clip_config.json``.
            pretrained: weights tag or file for a built-in name; None leaves them random.
            image_size: (rows, columns) or one number; None for the model's own.
            learn_temperature: train the scale on.
        """
        model = load_open_clip(source, pretrained=pretrained, image_size=image_size)
        return cls._joined(model, OpenClipImageEncoder(model), OpenClipTextEncoder(model), learn_temperature)

    @classmethod
    def from_transformers(
        cls,
        source: str | Path,
        *,
        image_size: int | Sequence[int] | None = None,
        learn_temperature: bool = True,
    ) -> CLIP:
        """A whole CLIP or SigLIP of transformers with its own projections, logit scale and bias.

        Args:
            source: hub name, or a local folder with ``config.json`` and the weights.
            image_size: (rows, columns) or one number; position embeddings are interpolated. None for the model's own.
            learn_temperature: train the scale on.

        Raises:
            ValueError: for another kind of model, or a checkpoint that lacks weights.
        """
        model = load_transformers_clip(source)
        image_encoder = TransformersClipImageEncoder(model, image_size=image_size)
        return cls._joined(model, image_encoder, TransformersClipTextEncoder(model), learn_temperature)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        library: str,
        weights: str | Path | None = None,
        image_size: int | Sequence[int] | None = None,
        learn_temperature: bool = True,
    ) -> CLIP:
        """A whole pretrained model of either library, ready to be asked; never one with random weights.

        Args:
            source: name or folder; see from_open_clip and from_transformers.
            library: ``"open_clip"`` or ``"transformers"``.
            weights: tag or file for the name of an open_clip architecture; all others bring theirs.
            image_size: (rows, columns) or one number. None for the model's own.
            learn_temperature: train the scale on.

        Raises:
            ValueError: for an unknown library, an architecture without weights, or weights for what brings its own.
        """
        if library not in LIBRARIES:
            raise ValueError(f"library {library!r} is not one of {', '.join(LIBRARIES)}")
        folder = Path(source).expanduser().is_dir()
        bare = library == "open_clip" and not folder and not str(source).startswith(("hf-hub:", "local-dir:"))
        if bare and weights is None:
            raise ValueError(f"{source} names an architecture, which is random without weights: give their tag or file")
        if weights is not None and not bare:
            raise ValueError(f"{source} brings its own weights: leave out weights={str(weights)!r}")
        if library == "transformers":
            return cls.from_transformers(source, image_size=image_size, learn_temperature=learn_temperature)
        return cls.from_open_clip(
            source, pretrained=weights, image_size=image_size, learn_temperature=learn_temperature
        )

    @classmethod
    def _joined(cls, model: Any, image_encoder: Any, text_encoder: Any, learn_temperature: bool) -> CLIP:
        """The towers of a model with that model's scale and bias."""
        scale = float(model.logit_scale.detach().exp())
        bias = getattr(model, "logit_bias", None)
        return cls(
            image_encoder,
            text_encoder,
            temperature=1 / scale,
            learn_temperature=learn_temperature,
            max_logit_scale=max(100.0, scale),  # SigLIP's is above CLIP's limit
            logit_bias=None if bias is None else float(bias.detach()),
        )

    def load(self, path: str | Path) -> CLIP:
        """Load a trained checkpoint of this very CLIP (see load_weights) and return it, for one line in a config."""
        load_weights(self, path)
        return self

    def over_slices(
        self, *, slices: int | None = None, chunk: int | None = 8, heads: int = 1, checkpoint: bool = False
    ) -> CLIP:
        """This CLIP of 2D images as one of volumes (2.5D): its image encoder reads every slice, then they are pooled.

        Both share all weights, the projections too; the volume's embedding starts as that of the mean of its slices'
        features, so a pretrained CLIP answers about a CT before any training.

        Args:
            slices: see `SliceEncoder`, as all others.
            chunk: slices per pass.
            heads: of the pooling.
            checkpoint: compute slices again on the way back.

        Returns:
            A CLIP whose image encoder is a `SliceEncoder`.
        """
        encoder = SliceEncoder(self.image_encoder, slices=slices, chunk=chunk, heads=heads, checkpoint=checkpoint)
        made = type(self)(encoder, self.text_encoder, embed_dim=self.embed_dim)
        made.image_projection, made.text_projection = self.image_projection, self.text_projection
        made.max_log_scale = self.max_log_scale
        for name in ("log_scale", "logit_bias"):
            delattr(made, name)
            own = getattr(self, name)
            if isinstance(own, nn.Parameter):
                made.register_parameter(name, own)
            else:
                made.register_buffer(name, own)
        return made

    def train(self, mode: bool = True) -> CLIP:
        """Training mode, except for what is frozen: no dropout, token dropping or running statistics there."""
        super().train(mode)
        towers = (self.image_encoder, self.text_encoder)
        for module in self.modules():
            if (module in towers or isinstance(module, _BatchNorm)) and is_frozen(module):
                module.eval()
        return self

    @property
    def logit_scale(self) -> Tensor:
        """The cosine's factor 1 / tau: () tensor in (0, max_logit_scale]."""
        # The excess is taken off without gradient: clamp's own gradient at the limit is 0, and would keep it there.
        excess = (self.log_scale.detach() - self.max_log_scale).clamp(min=0.0)
        return (self.log_scale - excess).exp()

    def encode_image(self, image: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of images (B, C, *spatial), or of features (B, D) for such an encoder."""
        image = image.as_tensor() if isinstance(image, MetaTensor) else image
        return self.embed_features(self.image_encoder(image))

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of the image encoder's pooled features (B, width)."""
        return F.normalize(self.image_projection(features).float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit embeddings (B, E), float32, of tokenized texts (B, N); the mask is 1 for tokens and 0 for padding."""
        return F.normalize(self.text_projection(self.text_encoder(input_ids, attention_mask)).float(), dim=-1)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> CLIPOutput:
        """Both sides of a batch of pairs; rows do not depend on one another, so a batch may be cut into chunks."""
        if self.training:
            with torch.no_grad():
                self.log_scale.clamp_(max=self.max_log_scale)
        return CLIPOutput(
            self.encode_image(image),
            self.encode_text(input_ids, attention_mask),
            self.logit_scale,
            self.logit_bias.clone(),
        )

    def classifier(
        self,
        findings: Sequence[Finding | str],
        tokenizer: Callable[[list[str]], TokenBatch],
        *,
        rule: str = "positive",
        normal_prompts: Sequence[str] | None = None,
    ) -> ZeroShotClassifier:
        """A zero-shot classifier of these findings that shares this network's weights; see ZeroShotClassifier."""
        return ZeroShotClassifier(self, findings, tokenizer, rule=rule, normal_prompts=normal_prompts)


def _projection(encoder: Any, embed_dim: int) -> nn.Module:
    if getattr(encoder, "projected", False):
        return nn.Identity()
    width = int(encoder.width)
    linear = nn.Linear(width, embed_dim, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    return linear


def _register(module: nn.Module, name: str, value: Tensor, *, learned: bool) -> None:
    """A parameter or a buffer of the same name, so that a checkpoint fits whichever it is."""
    if learned:
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)
