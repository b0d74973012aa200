"""Image encoders from timm: any of its networks, and attention access for its vision transformers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.layers import AttentionPoolLatent
from timm.models import load_pretrained
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.networks.attention import QKV, AttentionStage, StagedAttention, attend, attend_as_first, split_heads
from monai_medclip.networks.checkpoints import check_missing
from monai_medclip.networks.image_encoder import network_input, per_axis, per_channel
from monai_medclip.networks.pooled_only import cls_only_forward, reads_cls_only

__all__ = ["TimmImageEncoder", "TimmViTAccess"]


class _BlockStage:
    """A pre-norm timm block: x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, block: Block, prefix_tokens: int) -> None:
        self.block = block
        self.prefix_tokens = prefix_tokens

    @property
    def entrance(self) -> nn.Module:
        return self.block

    def qkv(self, tokens: Tensor) -> QKV:
        attention = self.block.attn
        q, k, v = (
            split_heads(x, attention.num_heads) for x in attention.qkv(self.block.norm1(tokens)).chunk(3, dim=-1)
        )
        return QKV(attention.q_norm(q), attention.k_norm(k), v)

    def first_qkv(self, tokens: Tensor) -> QKV:
        attention, normalized = self.block.attn, self.block.norm1(tokens)
        weight, bias, width = attention.qkv.weight, attention.qkv.bias, attention.attn_dim
        q = F.linear(normalized[:, :1], weight[:width], None if bias is None else bias[:width])
        kv = F.linear(normalized, weight[width:], None if bias is None else bias[width:])
        q, k, v = (split_heads(x, attention.num_heads) for x in (q, *kv.chunk(2, dim=-1)))
        return QKV(attention.q_norm(q), attention.k_norm(k), v)

    def attend_first(self, tokens: Tensor) -> tuple[Tensor, Tensor] | None:
        attention = self.block.attn
        if not isinstance(attention.q_norm, nn.Identity) or not isinstance(attention.k_norm, nn.Identity):
            return None
        return attend_as_first(self.block.norm1(tokens), attention.qkv.weight, attention.qkv.bias, attention.num_heads)

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        block, attention = self.block, self.block.attn
        context = attention.norm(context)
        if getattr(attention, "gate", None) is not None:
            context = context * attention.gate(block.norm1(tokens)).sigmoid()
        tokens = tokens + block.drop_path1(block.ls1(attention.proj_drop(attention.proj(context))))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens)


class _PoolStage:
    """timm's attention pooling (SigLIP): learned queries that look at the normalized patch tokens."""

    def __init__(self, trunk: VisionTransformer) -> None:
        self.norm = trunk.norm
        self.pool: AttentionPoolLatent = trunk.attn_pool
        self.dropped = 0 if trunk.pool_include_prefix else trunk.num_prefix_tokens
        self.prefix_tokens = trunk.num_prefix_tokens - self.dropped

    @property
    def entrance(self) -> nn.Module:
        return self.norm

    def qkv(self, tokens: Tensor) -> QKV:
        pool = self.pool
        keys = self.norm(tokens)[:, self.dropped :]
        if pool.pos_embed is not None:
            keys = keys + pool.pos_embed
        k, v = (split_heads(x, pool.num_heads) for x in pool.kv(keys).chunk(2, dim=-1))
        q = split_heads(pool.q(pool.latent.expand(len(tokens), -1, -1)), pool.num_heads)
        return QKV(pool.q_norm(q), pool.k_norm(k), v)

    def finish(self, tokens: Tensor, context: Tensor) -> Tensor:
        pool = self.pool
        pooled = pool.proj_drop(pool.proj(context))
        return pooled if pool.mlp is None else pooled + pool.mlp(pool.norm(pooled))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.finish(tokens, attend(self.qkv(tokens))[1])


class TimmViTAccess(StagedAttention):
    """Attention access to ``self.trunk`` when it is a timm VisionTransformer made of ordinary blocks."""

    trunk: Any

    def _stages(self) -> Sequence[AttentionStage]:
        trunk = self.trunk
        if not isinstance(trunk, VisionTransformer) or not all(
            type(block) is Block and isinstance(block.attn, Attention) for block in trunk.blocks
        ):
            return ()
        stages: list[AttentionStage] = [_BlockStage(block, trunk.num_prefix_tokens) for block in trunk.blocks]
        if isinstance(trunk.attn_pool, AttentionPoolLatent):
            stages.append(_PoolStage(trunk))
        return stages

    def _embed(self, image: Tensor) -> Tensor:
        trunk = self.trunk
        tokens = trunk._pos_embed(trunk.patch_embed(network_input(image, trunk.in_chans)))
        return trunk.norm_pre(trunk.patch_drop(tokens))

    def _pools_first_token(self) -> bool:
        pool = self.trunk.attn_pool
        return self.trunk.global_pool == "token" if pool is None else pool.pool == "token"

    def _pool(self, tokens: Tensor) -> Tensor:
        trunk = self.trunk
        if isinstance(trunk.attn_pool, AttentionPoolLatent):
            pooled = tokens[:, 0] if trunk.attn_pool.pool == "token" else tokens.mean(dim=1)
            return trunk.head_drop(trunk.fc_norm(pooled))
        return trunk.forward_head(trunk.norm(tokens), pre_logits=True)


class TimmImageEncoder(nn.Module, TimmViTAccess):
    """A timm network without its head: image (B, C, rows, columns) -> pooled features (B, width).

    Args:
        name: a timm name (``"vit_base_patch16_224"``), ``"hf-hub:..."``, or a local folder with timm's ``config.json``.
        checkpoint: local weights file; position embeddings are resampled to another ``image_size``.
        pretrained: load the weights that the name stands for (a hub name downloads them, a folder holds them).
        image_size: (rows, columns) or one number; None for the network's own.
        in_channels: channels of the first layer. Gray images go into 3-channel weights as they are; see network_input.
        patch_drop: fraction of patch tokens dropped at random in training, in [0, 1); vision transformers only.
        options: more arguments of the architecture, such as ``{"depth": 2}`` or ``{"global_pool": "avg"}``.

    Raises:
        ValueError: if the checkpoint lacks weights; names them.

    References:
        Li et al., Scaling Language-Image Pre-training via Masking, CVPR 2023 (token dropping).
    """

    spatial_dims = 2

    def __init__(
        self,
        name: str = "vit_base_patch16_224",
        *,
        checkpoint: str | Path | None = None,
        pretrained: bool = False,
        image_size: int | Sequence[int] | None = None,
        in_channels: int = 3,
        patch_drop: float = 0.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network and load what is asked for."""
        super().__init__()
        arguments = dict(options or {})
        if patch_drop:
            arguments["patch_drop_rate"] = patch_drop
        name = f"local-dir:{name}" if Path(name).is_dir() else name
        self.trunk = timm.create_model(name, num_classes=0, in_chans=in_channels, **arguments)
        if image_size is not None:
            _resize(self.trunk, per_axis(image_size, 2))
        if pretrained or checkpoint is not None:
            _load(self.trunk, checkpoint, in_channels)
        config = self.trunk.pretrained_cfg
        self.in_channels = in_channels
        self.width = int(getattr(self.trunk, "head_hidden_size", self.trunk.num_features))
        self.mean = per_channel(config["mean"], in_channels)
        self.std = per_channel(config["std"], in_channels)
        patches = getattr(self.trunk, "patch_embed", None)
        own_size = getattr(patches, "img_size", None) or config["input_size"][1:]
        self.image_size = per_axis(image_size if image_size is not None else own_size, 2)
        self.grid_size = tuple(getattr(patches, "grid_size", None) or ())

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width)."""
        image = network_input(image, self.in_channels)
        return cls_only_forward(self.trunk, image) if reads_cls_only(self.trunk) else self.trunk(image)

    def feature_map(self, image: Tensor) -> Tensor:
        """The last feature map (B, C, rows, columns) of a convolutional network, before pooling."""
        return timm_feature_map(self.trunk, network_input(image, self.in_channels))

    def pool_features(self, features: Tensor) -> Tensor:
        """Pooled features (B, width) of a feature map; ``pool_features(feature_map(x))`` equals ``forward(x)``."""
        return self.trunk.forward_head(own_layout(self.trunk, features), pre_logits=True)


def timm_feature_map(trunk: Any, image: Tensor) -> Tensor:
    """The last feature map (B, C, rows, columns) of a timm network, whatever layout it keeps."""
    features = trunk.forward_features(image)
    return features.movedim(-1, 1) if _channels_last(trunk) else features


def own_layout(trunk: Any, features: Tensor) -> Tensor:
    """A feature map (B, C, rows, columns) as the network's own head takes it."""
    return features.movedim(1, -1) if _channels_last(trunk) else features


def _channels_last(trunk: Any) -> bool:
    """Whether the network's feature maps are (B, rows, columns, C), as Swin's are."""
    return getattr(trunk, "output_fmt", "NCHW") == "NHWC"


def _resize(trunk: Any, image_size: tuple[int, ...]) -> None:
    """Take another image size; convolutional networks take any."""
    if hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=image_size)
        if getattr(trunk, "pos_embed", None) is not None:  # fresh, rather than resampled from random ones
            nn.init.trunc_normal_(trunk.pos_embed, std=0.02)


def _load(trunk: Any, checkpoint: str | Path | None, in_channels: int) -> None:
    """timm's own loading (hub, folder or file; weights only), which is silent about missing weights: we are not."""
    missing: list[str] = []

    def note(module: nn.Module, result: Any) -> None:
        missing.extend(result.missing_keys)

    config = dict(trunk.pretrained_cfg)
    if checkpoint is not None:
        if not Path(checkpoint).is_file():
            raise FileNotFoundError(f"no checkpoint at {checkpoint}: correct the path, or leave it out")
        config.update(file=str(checkpoint), source=None, custom_load=False)
    handle = trunk.register_load_state_dict_post_hook(note)
    try:
        load_pretrained(trunk, config, num_classes=0, in_chans=in_channels, filter_fn=_in_timms_names)
    finally:
        handle.remove()
    check_missing(missing, checkpoint or config.get("hf_hub_id") or config.get("file") or "the checkpoint", trunk)


def _in_timms_names(state: dict[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """A foreign checkpoint in timm's names: what timm itself converts, and EfficientNets of efficientnet-pytorch."""
    if "_conv_stem.weight" not in state:
        convert = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
        return state if convert is None else convert(state, trunk)
    theirs = {key: value for key, value in state.items() if not key.startswith("_fc.")}
    ours = list(trunk.state_dict())
    # Both register stem, blocks and head in the order of computation, under other names.
    if [key.rpartition(".")[2] for key in theirs] != [key.rpartition(".")[2] for key in ours]:
        return state
    return dict(zip(ours, theirs.values(), strict=True))
