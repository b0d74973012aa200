"""Image encoders from open_clip: OpenAI, LAION, CoCa, SigLIP and BiomedCLIP towers, their projection included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from monai_medclip.networks.attention import QKV, AttentionStage, attend, multihead_qkv
from monai_medclip.networks.image_encoder import network_input, per_axis
from monai_medclip.networks.timm_encoder import TimmViTAccess, own_layout, timm_feature_map

__all__ = ["OpenClipImageEncoder", "load_open_clip"]

CONFIG_FILE = "open_clip_config.json"


class _BlockStage:
    """open_clip's ResidualAttentionBlock, whose attention is torch's own."""

    prefix_tokens = 1

    def __init__(self, block: ResidualAttentionBlock) -> None:
        self.block = block

    @property
    def entrance(self) -> nn.Module:
        return self.block

    def qkv(self, tokens: Tensor) -> QKV:
        normalized = self.block.ln_1(tokens)
        return multihead_qkv(self.block.attn, normalized, normalized)

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        block = self.block
        tokens = tokens + block.ls_1(block.attn.out_proj(context))
        return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens)


class _PoolStage:
    """CoCa's pooling: learned queries look at all tokens."""

    prefix_tokens = 1

    def __init__(self, pool: AttentionalPooler) -> None:
        self.pool = pool

    @property
    def entrance(self) -> nn.Module:
        return self.pool

    def qkv(self, tokens: Tensor) -> QKV:
        queries = self.pool.ln_q(self.pool.query).unsqueeze(0).expand(len(tokens), -1, -1)
        return multihead_qkv(self.pool.attn, queries, self.pool.ln_k(tokens))

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        return self.pool.attn.out_proj(context)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.finish(tokens, attend(self.qkv(tokens))[1])


class OpenClipImageEncoder(nn.Module, TimmViTAccess):
    """The image tower of an open_clip model: image (B, C, rows, columns) -> its own embedding (B, width).

    Args:
        source: built-in name (``"ViT-B-16"``), ``"hf-hub:owner/name"``, a local folder with ``open_clip_config.json``,
            or an open_clip model that is already there; its tower is shared, not copied.
        pretrained: weights tag or file for a built-in name; None leaves them random. Hub names and folders bring
            theirs.
        image_size: (rows, columns) or one number; position embeddings are resampled. None for the model's own.

    Attributes:
        projected: True: the output is already in the model's embedding space, of length ``width``.
    """

    projected = True
    spatial_dims = 2
    in_channels = 3

    def __init__(
        self,
        source: str | Path | nn.Module,
        *,
        pretrained: str | Path | None = None,
        image_size: int | Sequence[int] | None = None,
    ) -> None:
        """Take the visual tower of a model."""
        super().__init__()
        model: Any = source
        if not isinstance(source, nn.Module):
            model = load_open_clip(source, pretrained=pretrained, image_size=image_size)
        self.tower: Any = model.visual
        if isinstance(self.tower, VisionTransformer):
            self.tower.output_tokens = False
        self.width = _embedding_width(model)
        self.image_size = per_axis(self.tower.image_size, 2)
        self.mean = tuple(float(value) for value in self.tower.preprocess_cfg["mean"])
        self.std = tuple(float(value) for value in self.tower.preprocess_cfg["std"])
        patches = getattr(self.trunk, "patch_embed", self.tower)
        self.grid_size = tuple(getattr(patches, "grid_size", ()))

    @property
    def trunk(self) -> Any:  # a view of the tower, so that its weights are registered once
        """The timm network inside (SigLIP, BiomedCLIP); None for open_clip's own transformer and ResNet."""
        return self.tower.trunk if isinstance(self.tower, TimmModel) else None

    def forward(self, image: Tensor) -> Tensor:
        """Embeddings (B, width), not normalized."""
        return self.tower(network_input(image, self.in_channels))

    def feature_map(self, image: Tensor) -> Tensor:
        """The last feature map (B, C, rows, columns) of a convolutional tower, before its pooling."""
        image, tower = network_input(image, self.in_channels), self.tower
        if isinstance(tower, TimmModel):
            return timm_feature_map(tower.trunk, image)
        if not isinstance(tower, ModifiedResNet):
            raise TypeError("a vision transformer has no feature map: use its attention access")
        return tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(image)))))

    def pool_features(self, features: Tensor) -> Tensor:
        """Embeddings (B, width) of a feature map; ``pool_features(feature_map(x))`` equals ``forward(x)``."""
        if isinstance(self.tower, TimmModel):
            return self.tower.head(self.tower.trunk.forward_head(own_layout(self.trunk, features)))
        return self.tower.attnpool(features)

    def _stages(self) -> Sequence[AttentionStage]:
        if isinstance(self.tower, TimmModel):
            return super()._stages()
        blocks = self.tower.transformer.resblocks if isinstance(self.tower, VisionTransformer) else ()
        if not all(type(block) is ResidualAttentionBlock for block in blocks):
            return ()
        stages: list[AttentionStage] = [_BlockStage(block) for block in blocks]
        return [*stages, _PoolStage(self.tower.attn_pool)] if self._ends_in_pool() else stages

    def _ends_in_pool(self) -> bool:
        tower = self.tower
        return isinstance(tower, VisionTransformer) and tower.attn_pool is not None and not tower.attn_pool_type

    def _embed(self, image: Tensor) -> Tensor:
        if isinstance(self.tower, TimmModel):
            return super()._embed(image)
        return self.tower._embeds(network_input(image, self.in_channels))

    def _pools_first_token(self) -> bool:
        return super()._pools_first_token() if isinstance(self.tower, TimmModel) else self.tower.pool_type == "tok"

    def _pool(self, tokens: Tensor) -> Tensor:
        tower = self.tower
        if isinstance(tower, TimmModel):
            return tower.head(tower.trunk.head(super()._pool(tokens)))
        pooled = tower._global_pool(tower.ln_post(tokens)) if self._ends_in_pool() else tower._pool(tokens)
        return pooled[0] if tower.proj is None else pooled[0] @ tower.proj


def load_open_clip(
    source: str | Path, *, pretrained: str | Path | None = None, image_size: int | Sequence[int] | None = None
) -> nn.Module:
    """An open_clip model with towers ``visual`` and ``text``, by built-in name, hub name or local folder.

    Weights are read with ``weights_only=True`` and must be complete. A folder holds ``open_clip_config.json``, the
    weights and, for a model with a BERT inside, that BERT's ``config.json``, so that nothing is asked of the network.

    Raises:
        ValueError: if the folder has no ``open_clip_config.json``, or weights are missing; names them.
    """
    folder = Path(source).expanduser()
    name, overrides = str(source), {}
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise ValueError(f"{folder} has no {CONFIG_FILE}: save the model in open_clip's hub format.")
        name = f"local-dir:{folder}"
        text_config = open_clip.factory.get_model_config(name)["text_cfg"]
        if text_config.get("hf_model_name") and (folder / "config.json").is_file():
            overrides["text_cfg"] = {**text_config, "hf_model_name": str(folder), "hf_model_pretrained": False}
    try:
        return open_clip.create_model(
            name,
            pretrained=None if pretrained is None else str(pretrained),
            force_custom_text=True,
            force_image_size=None if image_size is None else per_axis(image_size, 2),
            require_pretrained=pretrained is not None or name.startswith(("local-dir:", "hf-hub:")),
            pretrained_text=False,
            pretrained_image=False,
            weights_only=True,
            **overrides,
        )
    except RuntimeError as error:
        raise ValueError(
            f"open_clip could not build {source} with its weights: {error} Give the complete checkpoint of this very "
            "configuration."
        ) from error


def _embedding_width(model: Any) -> int:
    """Length of the embedding: the text side knows it where a timm trunk hides it."""
    tower = model.visual
    if isinstance(tower, TimmModel):
        proj = getattr(tower.head, "proj", None) or getattr(getattr(tower.head, "mlp", None), "fc2", None)
        return int(proj.out_features if proj is not None else tower.trunk.num_features)
    return int(tower.output_dim)
