"""The last block of a CLS-pooled vision transformer, for the one token that is read."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["cls_only_forward", "reads_cls_only"]


def reads_cls_only(vit: Any) -> bool:
    """Whether `cls_only_forward` computes what `vit(image)` would.

    True for a timm VisionTransformer that pools its CLS token, ends in an ordinary block, has no head, and keeps no
    hook or gradient checkpointing on what would be left out.
    """
    if not isinstance(vit, VisionTransformer) or vit.attn_pool is not None or vit.global_pool != "token":
        return False
    last: Any = vit.blocks[-1] if len(vit.blocks) else None
    if type(last) is not Block or type(last.attn) is not Attention or vit.grad_checkpointing:
        return False
    whole = (vit.blocks, last, last.attn, last.attn.qkv)  # modules that are not called as a whole
    hooked = any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in whole)
    return isinstance(vit.head, nn.Identity) and not hooked


def cls_only_forward(vit: Any, image: Tensor) -> Tensor:
    """Pooled features of a timm VisionTransformer, its last block computed for the CLS token alone.

    Patch tokens that leave the last block are read by nothing: there, only their keys and values count. Their
    queries, output projection and MLP, 5/6 of that block's multiplications, are left out. Outputs and gradients are the
    full model's.

    Args:
        vit: a network for which `reads_cls_only` is True.
        image: (B, C, rows, columns).

    Returns:
        (B, width), equal to `vit(image)`.
    """
    tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    return vit.forward_head(vit.norm(_cls_block(vit.blocks[-1], tokens)), pre_logits=True)


def _cls_block(block: Any, tokens: Tensor) -> Tensor:
    """What the CLS token (B, 1, D) is after a block, of the tokens (B, N, D) that enter it."""
    cls = tokens[:, :1]
    cls = cls + block.drop_path1(block.ls1(_cls_attention(block.attn, block.norm1(tokens))))
    return cls + block.drop_path2(block.ls2(block.mlp(block.norm2(cls))))


def _cls_attention(attention: Any, tokens: Tensor) -> Tensor:
    """Attention output (B, 1, D) of the first token among all (B, N, D)."""
    heads, width = attention.num_heads, attention.attn_dim
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(tokens[:, :1], weight[:width], None if bias is None else bias[:width])
    kv = F.linear(tokens, weight[width:], None if bias is None else bias[width:])  # (B, N, 2 D)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, *kv.chunk(2, dim=-1)))
    q, k = attention.q_norm(q), attention.k_norm(k)
    scores = (q @ k.transpose(-2, -1)) * attention.scale  # (B, H, 1, N)
    context = attention.attn_drop(scores.softmax(dim=-1)) @ v
    context = attention.norm(context.transpose(1, 2).flatten(2))
    if attention.gate is not None:
        context = context * attention.gate(tokens[:, :1]).sigmoid()
    return attention.proj_drop(attention.proj(context))
