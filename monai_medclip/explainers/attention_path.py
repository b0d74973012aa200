"""One walk through the last attention stages: what enters, q, k, v, attention, and the score's gradient there."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.explainers.base import Explainer, gradients, uncompiled
from monai_medclip.networks import QKV, AttentionAccess, Classifier, attend, has_attention

__all__ = ["AttentionExplainer", "Stage", "Walk", "remembering_tokens"]

_REMEMBERED: ContextVar[tuple[Tensor, dict[Hashable, Tensor]] | None] = ContextVar("remembered tokens", default=None)


class Stage(NamedTuple):
    """One attention stage of a walk; Nq queries, one if only the pooled token matters."""

    qkv: QKV  # q (B, H, Nq, dh), k and v (B, H, N, dh)
    attention: Tensor  # (B, H, Nq, N), rows sum to 1
    context: Tensor  # (B, Nq, D): the heads' output o, before the output projection
    prefix_tokens: int  # of the N keys, how many are no patches
    own_queries: bool  # a pooling attention, whose queries are learned and are none of the N tokens
    first_only: bool = False  # the CLS token's row alone counts; otherwise all queries do
    residual: Tensor | None = None  # (B, Nq, D) of the entering tokens, what goes past the attention; None if nothing


class Walk(NamedTuple):
    """The path from the tokens that enter a block to the scores."""

    tokens: Tensor  # (B, N, D) entering the first of the stages
    stages: list[Stage]  # first to last
    scores: Tensor  # (B, F)
    logits: Tensor  # (B, F)


class AttentionExplainer(Explainer):
    """Base of the methods that read attention: they need an encoder with attention access.

    Args:
        blocks: how many of the last attention stages are read, a pooling attention included; None for all.
        target, verify: see `Explainer`.
    """

    def __init__(self, *, blocks: int | None = 1, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        super().__init__(target=target, verify=verify)
        if blocks is not None and blocks < 1:
            raise ValueError(f"blocks={blocks}: at least the last attention stage must be read.")
        self.blocks = blocks

    def _check(self, classifier: Classifier) -> None:
        encoder = require_attention(self, classifier)
        if self.blocks is not None and self.blocks > encoder.num_blocks:
            raise TypeError(f"blocks={self.blocks}, but {type(encoder).__name__} has {encoder.num_blocks} of them.")

    def _first(self, encoder: AttentionAccess) -> int:
        """The first of the stages that are read."""
        return 0 if self.blocks is None else encoder.num_blocks - self.blocks

    def walk(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> Walk:
        """From the image to the scores, with a graph from the entering tokens on."""
        encoder = classifier.image_encoder
        first = self._first(encoder)
        own: Tensor | None = None
        with torch.no_grad():
            if self._must_verify(classifier):
                tokens, own = _tokens_of_own_pass(classifier, image, context, first)
            else:
                tokens = _tokens_entering(encoder, image, first)
        walk = self._from_tokens(classifier, tokens.detach().requires_grad_(), first, context)
        if own is not None:
            self._compare(classifier, walk.logits, own)
        return walk

    def _from_tokens(self, classifier: Any, tokens: Tensor, first: int, context: dict[str, Tensor]) -> Walk:
        encoder = classifier.image_encoder
        stages: list[Stage] = []
        entering = tokens
        for block in range(first, encoder.num_blocks):
            stage = self._stage(encoder, entering, block)
            stages.append(stage)
            past = entering[:, : stage.context.shape[1]] if stage.residual is None else stage.residual
            entering = encoder.leave(past, stage.context, block)
        logits = classifier.score_features(encoder.pool(entering), **context)
        first_only = encoder.pools_first_token and not stages[-1].own_queries
        stages = [stage._replace(first_only=first_only) for stage in stages]
        return Walk(tokens, stages, self._scores(classifier, logits), logits)

    def _stage(self, encoder: AttentionAccess, entering: Tensor, block: int) -> Stage:
        first_only = reads_first_only(encoder, block)
        short = encoder.first_qkv(entering, block) if first_only else None
        qkv = self._heads(encoder.qkv(entering, block) if short is None else short)
        own_queries = short is None and qkv.q.shape[2] != entering.shape[1]
        if first_only:
            qkv = qkv._replace(q=qkv.q[:, :, :1])
        attention, context = attend(qkv)
        residual = None if own_queries else entering[:, : context.shape[1]]
        return Stage(qkv, attention, context, encoder.prefix_tokens(block), own_queries, residual=residual)

    def _heads(self, qkv: QKV) -> QKV:
        """The heads to attend with: the model's own."""
        return qkv


def require_attention(explainer: Explainer, classifier: Classifier) -> Any:
    """The classifier's image encoder.

    Raises:
        TypeError: it gives no access to attention.
    """
    encoder = uncompiled(classifier).image_encoder
    if not has_attention(encoder):
        raise TypeError(
            f"{explainer.name} reads attention, and {type(encoder).__name__} has none (or gives no access to it). "
            "Use GradCAM, or a method that looks at the input alone (RISE, Occlusion, IntegratedGradients)."
        )
    return encoder


def reads_first_only(encoder: AttentionAccess, block: int) -> bool:
    """Whether nothing but the first token is read of what leaves a block."""
    return block == encoder.num_blocks - 1 and encoder.pools_first_token


def on_grid(encoder: AttentionAccess, values: Tensor) -> Tensor:
    """Values per patch (B, F, P) -> (B, F, *grid)."""
    laid = encoder.to_grid(values.flatten(0, 1))  # (B F, 1, *grid)
    return laid.reshape(*values.shape[:2], *laid.shape[2:])


def context_gradients(walk: Walk) -> list[Tensor]:
    """dS/do of every stage: (B, F, Nq, D) each."""
    return gradients(walk.scores, [stage.context for stage in walk.stages])


def value_weights(stage: Stage, gradient: Tensor) -> Tensor:
    """sum_c w_c v_ic for every patch: (B, F, P), before any ReLU.

    w is the gradient (B, F, Nq, D) at the heads' output: the CLS token's, or where there is none the sum over all
    queries.
    """
    weights = read_rows(stage, gradient).sum(dim=2).unflatten(-1, (stage.qkv.v.shape[1], -1))  # (B, F, H, dh)
    values = stage.qkv.v[:, :, stage.prefix_tokens :]  # (B, H, P, dh)
    return torch.einsum("bfhc,bhpc->bfp", weights, values)


def read_rows(stage: Stage, values: Tensor) -> Tensor:
    """Of values per query (..., Nq, D), those that count: the CLS token's (..., 1, D), or all."""
    return values[..., :1, :] if stage.first_only else values


def attention_gradients(stage: Stage, gradient: Tensor) -> Tensor:
    """G = dS/dA (B, F, H, Nq, N), from the gradient (B, F, Nq, D) at the heads' output: o = A v, so G = dS/do v^T."""
    per_head = gradient.unflatten(-1, (stage.qkv.v.shape[1], -1))  # (B, F, Nq, H, dh)
    return torch.einsum("bfqhc,bhnc->bfhqn", per_head, stage.qkv.v)


def carried_back(stages: Sequence[Stage], matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The row that pooling reads of R, R = (I + M) R per stage: only that row is carried, from the last to the first.

    A pooling attention comes last and has no I: its queries are none of the tokens.

    Args:
        stages: first to last.
        matrices: M (B, F, Nq, N) of each stage.

    Returns:
        Which queries of the last stage are read (B, F, Nq or N), summing to 1, and the row (B, F, N) of the first.
    """
    read = row = _pooled_row(matrices[-1], stages[-1])
    for stage, matrix in zip(reversed(stages), reversed(matrices), strict=True):
        queries = matrix.shape[-2]
        row = F.pad(row, (max(queries - row.shape[-1], 0), 0))  # a pooling attention may have left prefix tokens out
        carried = torch.einsum("bfq,bfqn->bfn", row[..., :queries], matrix)
        row = carried if stage.own_queries else row + carried
    return read, row


def _pooled_row(matrix: Tensor, stage: Stage) -> Tensor:
    """Which tokens pooling reads: the first, all alike, or (B, F, Nq) the learned queries of a pooling attention."""
    queries, tokens = matrix.shape[-2:]
    if stage.own_queries:
        return matrix.new_full((*matrix.shape[:2], queries), 1 / queries)
    row = matrix.new_zeros(*matrix.shape[:2], tokens)
    if queries == 1:
        row[..., 0] = 1.0
    else:
        row[...] = 1 / tokens
    return row


@contextmanager
def remembering_tokens(image: Tensor, kept: dict[Hashable, Tensor]) -> Iterator[None]:
    """Within it, the tokens of this image that enter a block are computed once, and kept: a new prompt needs no others.

    Args:
        image: (B, C, *spatial) as explainers are given it; not changed while its tokens are kept. Other images pass by.
        kept: filled here; of one image and one network.
    """
    before = _REMEMBERED.set((image, kept))
    try:
        yield
    finally:
        _REMEMBERED.reset(before)


def _tokens_entering(encoder: Any, image: Tensor, block: int) -> Tensor:
    known = _REMEMBERED.get()
    if known is None or image.data_ptr() != known[0].data_ptr() or image.shape != known[0].shape:
        return encoder.tokens_entering(image, block)
    key = (id(encoder), block)
    if key not in known[1]:
        known[1][key] = encoder.tokens_entering(image, block)
    return known[1][key]


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[Tensor]]:
    """The first argument of every call of a module, while the context lasts."""
    seen: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else next(iter(kwargs.values())))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _tokens_of_own_pass(
    classifier: Any, image: Tensor, context: dict[str, Tensor], block: int
) -> tuple[Tensor, Tensor]:
    """The model's own forward pass, once: the tokens that entered a block, and its logits."""
    with _watching(classifier.image_encoder.entrance(block)) as seen:
        logits = classifier(image, **context)
    if len(seen) != 1:
        raise RuntimeError(f"the entrance of block {block} was passed {len(seen)} times in one forward pass, not once.")
    return seen[0], logits
