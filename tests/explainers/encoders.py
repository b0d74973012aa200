"""A tiny encoder of every kind for the tests of this room, with images that are not square where the library allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, Dinov2WithRegistersConfig, SiglipVisionConfig, ViTConfig

from monai_medclip.networks import (
    MonaiImageEncoder,
    OpenClipImageEncoder,
    SmallCNN,
    SmallViT,
    TimmImageEncoder,
    TransformersImageEncoder,
)

TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


def _timm_vit(**options: Any) -> TimmImageEncoder:
    sizes = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return TimmImageEncoder("vit_tiny_patch16_224", image_size=(32, 48), options={**sizes, **options})


def _open_clip(**vision: Any) -> OpenClipImageEncoder:
    model = open_clip.model.CustomTextCLIP(embed_dim=12, vision_cfg=vision, text_cfg=TEXT)
    open_clip.model.set_model_preprocess_cfg(model, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    return OpenClipImageEncoder(model)


def _open_clip_vit(**vision: Any) -> OpenClipImageEncoder:
    sizes = {"image_size": (32, 48), "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    return _open_clip(**sizes, **vision)


def _open_clip_timm(**vision: Any) -> OpenClipImageEncoder:
    return _open_clip(timm_model_name="test_vit", image_size=160, **vision)


def _transformers(config: type, **options: Any) -> TransformersImageEncoder:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    made = config(**sizes, image_size=32, patch_size=8, **options)
    return TransformersImageEncoder(made, image_size=(32, 48))


def _monai_vit(image_size: tuple[int, ...], pooling: str) -> MonaiImageEncoder:
    options = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 3}
    return MonaiImageEncoder(
        "vit", image_size=image_size, spatial_dims=len(image_size), pooling=pooling, options=options
    )


def _densenet(image_size: tuple[int, ...]) -> MonaiImageEncoder:
    options = {"init_features": 8, "growth_rate": 4, "block_config": (1, 2, 2, 1)}
    return MonaiImageEncoder("densenet121", image_size=image_size, spatial_dims=len(image_size), options=options)


def _resnet(image_size: tuple[int, ...]) -> MonaiImageEncoder:
    options = {"widen_factor": 0.125}
    return MonaiImageEncoder("resnet50", image_size=image_size, spatial_dims=len(image_size), options=options)


def _small_vit(image_size: tuple[int, ...]) -> SmallViT:
    return SmallViT(image_size, spatial_dims=len(image_size), width=64, depth=2, num_heads=2)


def _small_cnn(image_size: tuple[int, ...]) -> SmallCNN:
    return SmallCNN(image_size, in_channels=1, spatial_dims=len(image_size), channels=(4, 8), width=16)


_COCA = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}
_RESNET_TOWER = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16, "patch_size": None}

TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "SmallViT 2D": lambda: _small_vit((32, 48)),
    "SmallViT 3D": lambda: _small_vit((16, 24, 32)),
    "timm CLS": _timm_vit,
    "timm registers": lambda: _timm_vit(reg_tokens=4),
    "timm mean": lambda: _timm_vit(class_token=False, global_pool="avg"),
    "timm mean beside CLS": lambda: _timm_vit(global_pool="avg"),
    "timm SigLIP": lambda: _timm_vit(class_token=False, global_pool="map"),
    "timm registers, SigLIP": lambda: _timm_vit(reg_tokens=2, global_pool="map"),
    "open_clip OpenAI": _open_clip_vit,
    "open_clip mean": lambda: _open_clip_vit(pool_type="avg"),
    "open_clip CoCa": lambda: _open_clip_vit(**_COCA),
    "open_clip SigLIP": lambda: _open_clip_timm(timm_pool="map", timm_proj="none"),
    "open_clip BiomedCLIP": lambda: _open_clip_timm(timm_pool="", timm_proj="mlp"),
    "transformers ViT": lambda: _transformers(ViTConfig),
    "transformers CLIP": lambda: _transformers(CLIPVisionConfig),
    "transformers SigLIP": lambda: _transformers(SiglipVisionConfig),
    "transformers DINOv2 registers": lambda: _transformers(Dinov2WithRegistersConfig, num_register_tokens=2),
    "MONAI ViT CLS 2D": lambda: _monai_vit((32, 48), "cls"),
    "MONAI ViT CLS 3D": lambda: _monai_vit((16, 24, 32), "cls"),
    "MONAI ViT mean 2D": lambda: _monai_vit((32, 48), "mean"),
    "MONAI ViT mean 3D": lambda: _monai_vit((16, 24, 32), "mean"),
}

CONVOLUTIONAL: dict[str, Callable[[], Any]] = {
    "MONAI DenseNet 2D": lambda: _densenet((64, 96)),
    "MONAI DenseNet 3D": lambda: _densenet((32, 32, 64)),
    "MONAI ResNet 2D": lambda: _resnet((32, 48)),
    "MONAI ResNet 3D": lambda: _resnet((16, 32, 32)),
    "timm ResNet": lambda: TimmImageEncoder("test_resnet", image_size=(64, 96), in_channels=1),
    "open_clip ResNet": lambda: _open_clip(**_RESNET_TOWER),
    "SmallCNN 2D": lambda: _small_cnn((16, 24)),
    "SmallCNN 3D": lambda: _small_cnn((16, 16, 24)),
}

ENCODERS = TRANSFORMERS | CONVOLUTIONAL


@cache
def encoder(name: str) -> Any:
    """A tiny encoder in evaluation mode, the same for the same name; tests leave it as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        made = ENCODERS[name]()
        if name in TRANSFORMERS:
            _loud(made)
        else:
            with torch.no_grad():  # running statistics of its own: fresh ones make all images look alike
                made.train()(images(made, 8))
    return made.eval()


def images(image_encoder: Any, batch: int = 2) -> Tensor:
    """(B, C, *spatial) of uniform noise that such an encoder takes."""
    return torch.rand(batch, image_encoder.in_channels, *image_encoder.image_size)


def _loud(module: nn.Module) -> None:
    """Biases and scales of fresh networks are 0 and 1, and their weights quiet: that would hide errors."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
