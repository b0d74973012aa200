"""What is trained, and how fast: freezing by part, and learning rates that fall towards the input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

__all__ = ["freeze_parts", "is_frozen", "layer_depths", "parameter_groups"]

# Numbered stages of transformers and convolutional networks, in the names that the libraries give them.
STAGE = re.compile(r"(?:^|\.)(?:blocks|resblocks|layers|layer|stages|denseblock|transition)\.?(\d+)(?:\.|$)")
# Kept by open_clip at the root of a tower, before the blocks, although they come last.
FINAL = re.compile(r"(?:^|\.)(?:proj|text_projection)$")
POSITIONS = re.compile(r"(?:pos_embed|position_embeddings?(?:\.weight)?|positional_embedding|cls_token|reg_token)$")


def freeze_parts(network: nn.Module, parts: Sequence[str]) -> None:
    """Stop training parts of a network; a frozen encoder of a CLIP stays in evaluation mode from then on.

    Args:
        network: a CLIP, or any network.
        parts: beginnings of parameter names that end at a dot: ``"image_encoder"``, ``"text_projection"``,
            ``"image_encoder.trunk.blocks.0"``, ``"log_scale"``.

    Raises:
        ValueError: if a part names no parameter, as after a typing error.
    """
    for part in parts:
        chosen = [weight for name, weight in network.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if not chosen:
            children = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"nothing to freeze under {part!r}: parts of {type(network).__name__} are {children}")
        for weight in chosen:
            weight.requires_grad_(False)
    network.train(network.training)


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters and none of them is trained."""
    weights = list(module.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


def layer_depths(tower: nn.Module) -> dict[str, int]:
    """Depth of every parameter of a tower: 0 for the stem and embeddings, i + 1 for stage i, the largest for the rest.

    Stages are recognized by the names that timm, open_clip, transformers and MONAI give them; what is registered before
    the first of them is the stem, what comes after (norms, pooling, projections) lies above the last.
    """
    stages: dict[str, int] = {}
    seen, depths = False, {}
    for name, _ in tower.named_parameters():
        match = STAGE.search(name)
        seen = seen or match is not None
        if match is not None:
            stages[name] = int(match.group(1))
        else:
            depths[name] = -1 if seen or FINAL.search(name) else 0
    order = {number: i + 1 for i, number in enumerate(sorted(set(stages.values())))}
    depths.update({name: order[number] for name, number in stages.items()})
    return {name: len(order) + 1 if depth < 0 else depth for name, depth in depths.items()}


def parameter_groups(
    clip: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    *,
    layer_decay: float = 1.0,
    freeze: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: ``torch.optim.AdamW(parameter_groups(clip, 1e-4, 0.05))``.

    Weights of dimension 1 or 0 (norms, biases, scale) and position embeddings are never decayed.

    Args:
        clip: the network.
        lr: learning rate of the projections, the scale and the last layers.
        weight_decay: of all other weights.
        layer_decay: factor in (0, 1] per layer below the top, within each encoder; 1 for one rate everywhere.
        freeze: parts to freeze first; see freeze_parts.

    Returns:
        Groups with ``params``, ``lr``, ``weight_decay`` and ``name``; frozen weights are in none of them.

    Raises:
        ValueError: for a decay outside (0, 1], an unknown part, or when nothing is left to train.

    References:
        Clark et al., ELECTRA, ICLR 2020 (layer-wise learning-rate decay).
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay {layer_decay} must be in (0, 1]: 1 trains all layers at one rate")
    freeze_parts(clip, freeze)
    below_top = _layers_below_top(clip)
    groups: dict[str, dict[str, Any]] = {}
    for name, weight in clip.named_parameters():
        if not weight.requires_grad:
            continue
        decayed = weight.ndim > 1 and not POSITIONS.search(name)
        below = below_top.get(name, 0) if layer_decay < 1 else 0
        key = f"{name.partition('.')[0] if below else 'top'}, {below} below, {'decay' if decayed else 'no decay'}"
        group = {"name": key, "params": [], "lr": lr * layer_decay**below, "weight_decay": weight_decay * decayed}
        groups.setdefault(key, group)["params"].append(weight)
    if not groups:
        raise ValueError(f"nothing is left to train: freeze fewer parts than {', '.join(freeze)}")
    return list(groups.values())


def _layers_below_top(clip: nn.Module) -> dict[str, int]:
    """How many layers below its encoder's top each parameter lies."""
    below = {}
    for part in ("image_encoder", "text_encoder"):
        if hasattr(clip, part):
            depths = layer_depths(getattr(clip, part))
            top = max(depths.values(), default=0)
            below.update({f"{part}.{name}": top - depth for name, depth in depths.items()})
    return below
