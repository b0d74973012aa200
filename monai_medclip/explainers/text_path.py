"""One walk through the text encoder's last blocks, and what every text explainer is: a report's score, word by word."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import Stage
from monai_medclip.explainers.base import TARGETS, compare_scores, uncompiled, undisturbed, vouched_for
from monai_medclip.explainers.words import MERGES, merge_weights, words_of_tokens
from monai_medclip.networks import attend
from monai_medclip.networks.text_attention import (
    READABLE,
    ReportTokens,
    TextAttentionAccess,
    has_text_attention,
)
from monai_medclip.outputs import WordWeights

__all__ = ["TextExplainer", "TextWalk"]


class TextWalk(NamedTuple):
    """The path from the tokens that enter a block to the score of one report with one image."""

    stages: list[Stage]  # first to last, all N tokens as queries
    pooled: int | None  # the token that is read at the end; None for the mean of all
    visible: Tensor  # (V,) int64, which of the N tokens stand for characters of the report and are seen
    spans: Tensor  # (V, 2) int64, these characters, on the CPU
    score: Tensor  # (1, 1)

    def pooled_rows(self, values: Tensor) -> Tensor:
        """Of values per query (..., N, D), those of the tokens that pooling reads: (..., 1 or N, D)."""
        return values if self.pooled is None else values[..., self.pooled : self.pooled + 1, :]


class TextExplainer(ABC):
    """Base of the text side: which words of a report raise its score with an image.

    Special tokens (start, end, CLS, SEP) and padding get no weight. Computed in float32 without autocast and in
    evaluation mode, whatever surrounds the call; everything borrowed is given back, also on an error.

    Args:
        blocks: how many of the last blocks are read; None for all.
        target: what is explained: ``"logit"`` or ``"cosine"`` of the pair.
        merge: how tokens of one word become its weight: ``"sum"``, or ``"max"`` by size, with its sign.
        verify: compare the explained score with the model's own on every call. It is compared on the first call for
            each text encoder and method in any case.
    """

    name: str = ""
    signed: bool = False  # whether a weight can be negative

    def __init__(
        self, *, blocks: int | None = 1, target: str = "logit", merge: str = "sum", verify: bool = False
    ) -> None:
        """See the class."""
        if target not in TARGETS:
            raise ValueError(f"target={target!r}: use one of {', '.join(TARGETS)}.")
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r}: use one of {', '.join(MERGES)}.")
        if blocks is not None and blocks < 1:
            raise ValueError(f"blocks={blocks}: at least the last block must be read.")
        self.blocks = blocks
        self.target = target
        self.merge = merge
        self.verify = verify

    def check(self, clip: Any) -> None:
        """Refuse a CLIP whose text encoder cannot be read, before any work is done.

        Raises:
            TypeError: with the reason, and which encoders can.
        """
        encoder = uncompiled(clip).text_encoder
        if not has_text_attention(encoder):
            raise TypeError(f"{self.name} reads attention, and {type(encoder).__name__} gives none. {READABLE}")
        if self.blocks is not None and self.blocks > encoder.num_blocks:
            raise TypeError(f"blocks={self.blocks}, but {type(encoder).__name__} has {encoder.num_blocks} of them.")

    def __call__(
        self,
        clip: Any,
        image: Tensor,
        text: str,
        input_ids: Tensor,
        token_spans: Tensor,
        attention_mask: Tensor | None = None,
    ) -> WordWeights:
        """Weights for the words of one report.

        Args:
            clip: a CLIP, also compiled.
            image: (1, C, *spatial), or (1, D) precomputed features, as its image encoder takes it.
            text: the original report, which the spans point into.
            input_ids: (N,) int64 tokens, special ones and padding included.
            token_spans: (N, 2) int64 characters [start, end) of the original report; (-1, -1) for special tokens.
            attention_mask: (N,), 1 for tokens and 0 for padding; None for all ones.

        Returns:
            Words of the report that the encoder saw, on the CPU.

        Raises:
            TypeError: the text encoder cannot be read.
            ValueError: more than one image or report, or no token stands for a character of the report.
            UnfaithfulError: the explained score differs from the model's own.
        """
        clip = uncompiled(clip)
        self.check(clip)
        if len(image) != 1 or input_ids.ndim != 1 or token_spans.shape != (len(input_ids), 2):
            raise ValueError(
                f"One image and one report are explained at a time: image (1, ...), ids (N,), spans (N, 2), not "
                f"{tuple(image.shape)}, {tuple(input_ids.shape)} and {tuple(token_spans.shape)}."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        device = clip.log_scale.device
        with undisturbed(clip):
            walk = self._walk(clip, image, input_ids[None].to(device), mask[None].to(device), token_spans.to(device))
            weights = self._weights(walk).detach().float().cpu()  # (V,)
        words = words_of_tokens(text, walk.spans)
        merged = merge_weights(weights, words, self.merge)
        return WordWeights(
            words=tuple(text[word.start : word.end] for word in words),
            spans=torch.tensor([word[:2] for word in words], dtype=torch.int64).view(-1, 2),
            weights=merged,
            score=walk.score.detach().float().cpu()[0, 0],
            signed=self.signed,
            flat=not bool(merged.any()),
        )

    @abstractmethod
    def _weights(self, walk: TextWalk) -> Tensor:
        """One weight for every visible token: (V,)."""

    def _walk(self, clip: Any, image: Tensor, ids: Tensor, mask: Tensor, spans: Tensor) -> TextWalk:
        """From ids (1, N) to the score, with a graph from the first block that is read."""
        encoder = clip.text_encoder
        first = 0 if self.blocks is None else encoder.num_blocks - self.blocks
        with torch.no_grad():
            image_embedding = clip.encode_image(image)  # (1, E)
            report = encoder.read(ids, mask)
            visible = _visible(report, spans)
            entering, _ = _through(encoder, report, report.entering, range(first))
        left, stages = _through(encoder, report, entering.detach().requires_grad_(), range(first, encoder.num_blocks))
        features = encoder.pool(left, report.pooled)  # (1, width)
        cosine = image_embedding @ F.normalize(clip.text_projection(features).float(), dim=-1).T  # (1, 1)
        logit = clip.logit_scale * cosine + clip.logit_bias
        key = (self.name, self.blocks)
        if self.verify or not vouched_for(encoder, key):
            with torch.no_grad():
                own = clip.logit_scale * image_embedding @ clip.encode_text(ids, mask).T + clip.logit_bias
            compare_scores(encoder, key, logit, own, lost="weights are")
        score = cosine if self.target == "cosine" else logit
        return TextWalk(stages, report.pooled, visible, spans[report.positions[visible]].cpu(), score)


def _through(
    encoder: TextAttentionAccess, report: ReportTokens, entering: Tensor, blocks: range
) -> tuple[Tensor, list[Stage]]:
    """Carry tokens (1, N, D) through blocks: what leaves the last of them, and each one's attention."""
    stages = []
    for block in blocks:
        qkv = encoder.qkv(entering, block)
        attention, context = attend(qkv, report.mask)
        stages.append(Stage(qkv, attention, context, 0, False))
        entering = encoder.leave(entering, context, block)
    return entering, stages


def _visible(report: ReportTokens, spans: Tensor) -> Tensor:
    """Rows (V,) of the tokens that stand for characters and that the pooled token can see."""
    real = spans[:, 1] > spans[:, 0]  # (N,) of the report's ids
    seen = (report.positions >= 0) & real[report.positions.clamp_min(0)]
    if report.mask is not None and report.pooled is not None:
        seen = seen & (report.mask[:, report.pooled] > -torch.inf).any(dim=0)
    rows = seen.nonzero()[:, 0]
    if not len(rows):
        raise ValueError("No token stands for a character of the report: its token_spans are all empty.")
    return rows
