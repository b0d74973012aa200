"""A classifier that asks BLIP's matching head: every prompt reads every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monai_medclip.findings import NORMAL_PROMPTS, Finding
from monai_medclip.networks.blip_encoder import BLIPImageEncoder
from monai_medclip.networks.zero_shot import Tokenizer, as_findings, prompt_ensembles

if TYPE_CHECKING:
    from monai_medclip.networks.blip import BLIPMatcher

__all__ = ["MatchingClassifier"]


class MatchingClassifier(nn.Module):
    """Image -> one logit per finding, each the mean matching logit of its prompts: a BLIP behind a classifier's face.

    The image is encoded once; every prompt then reads its tokens, so cost grows with the number of prompts, where a
    CLIP's directions are free. Nothing is cached: the logits always are those of the weights at hand.

    Explainers: those that look at the input alone (IntegratedGradients, Occlusion, RISE, LIME, KernelSHAP) explain the
    score as any other. Those that read the image side's attention work too, and check the score; they follow the text's
    cross-attention by its gradient only, and with no single pooled token they sum over all of the image's queries. In
    ConservativePropagation and GatedPropagation the cross-attention is therefore not held fixed. ReportGrounding takes
    the matcher as it takes a CLIP. GradCAM finds no convolutional feature map, ``target="cosine"`` no cosine (a
    `ZeroShotClassifier` of the matcher has one), and methods for words no text side that they can read: use a CLIP.

    Args:
        matcher: the network; shared, not copied.
        findings: F findings, by name, as Finding, or as a mapping with ``name``, ``positive`` and ``negative``.
        tokenizer: list of texts -> TokenBatch.
        rule: as in `prompt_directions`, with mean logits for mean directions: a difference rule subtracts the mean
            logit of the prompts against the finding.
        normal_prompts: sentences of a normal study for the rule ``positive_minus_normal``.
        pairs_at_once: image-prompt pairs per pass of the text side; bounds memory, not results.

    Attributes:
        prompts: the P different sentences that are asked.
        weights: (F, P) what each adds to each finding's logit; rows sum to 1, or to 0 for a difference rule.

    Raises:
        ValueError: for no finding, an unknown rule, or a finding without the prompts that the rule needs.
    """

    context_keys: tuple[str, ...] = ()
    weights: Tensor
    input_ids: Tensor
    attention_mask: Tensor

    def __init__(
        self,
        matcher: BLIPMatcher,
        findings: Sequence[Finding | str | Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        rule: str = "positive",
        normal_prompts: Sequence[str] | None = None,
        pairs_at_once: int = 64,
    ) -> None:
        """Share the network and tokenize the prompts."""
        super().__init__()
        known = as_findings(findings)
        if not known or pairs_at_once < 1:
            raise ValueError(f"{len(known)} findings, {pairs_at_once} pairs at once: give at least one of each.")
        self.matcher = matcher
        self.findings = tuple(finding.name for finding in known)
        self.pairs_at_once = pairs_at_once
        pairs = [prompt_ensembles(finding, rule, tuple(normal_prompts or NORMAL_PROMPTS)) for finding in known]
        self.prompts = tuple(dict.fromkeys(text for pair in pairs for ensemble in pair for text in ensemble))
        tokens = tokenizer(list(self.prompts))
        device = matcher.log_scale.device
        for name, value in (*tokens._asdict().items(), ("weights", _weights(pairs, self.prompts))):
            self.register_buffer(name, value.to(device), persistent=False)

    @property
    def image_encoder(self) -> BLIPImageEncoder:
        """The matcher's image side."""
        return self.matcher.image_encoder

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, F) of images (B, C, rows, columns)."""
        return self.score_features(self.image_encoder(image))

    def score_features(self, features: Tensor) -> Tensor:
        """Logits (B, F) of the image encoder's features (B, N D)."""
        memory, count = self.matcher.memory(features), len(features)
        step = max(1, self.pairs_at_once // count)  # prompts per pass
        logits = []
        for ids, mask in zip(self.input_ids.split(step), self.attention_mask.split(step), strict=True):
            images = torch.arange(count, device=ids.device).repeat_interleave(len(ids))  # (B p,)
            asked = self.matcher.match(memory, ids.repeat(count, 1), mask.repeat(count, 1), images)
            logits.append(asked.unflatten(0, (count, len(ids))))
        return torch.cat(logits, dim=1) @ self.weights.T


def _weights(pairs: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], prompts: Sequence[str]) -> Tensor:
    """(F, P): 1 / size for a finding's own prompts, minus 1 / size for those against it."""
    weights = torch.zeros(len(pairs), len(prompts))
    for row, (pro, con) in zip(weights, pairs, strict=True):
        for sign, ensemble in ((1, pro), (-1, con)):
            for text in ensemble:
                row[prompts.index(text)] += sign / len(ensemble)
    return weights
