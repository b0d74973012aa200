"""Zero-shot: findings become directions in the embedding space, and a CLIP becomes a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.findings import NORMAL_PROMPTS, Finding, findings_named
from monai_medclip.networks.image_encoder import ImageEncoder
from monai_medclip.outputs import TokenBatch

if TYPE_CHECKING:
    from monai_medclip.networks.clip import CLIP

__all__ = ["PROMPT_RULES", "ZeroShotClassifier", "as_findings", "encode_prompts", "prompt_directions"]

PROMPT_RULES = ("positive", "name", "positive_minus_normal", "positive_minus_negative", "name_pair")

Tokenizer = Callable[[list[str]], TokenBatch]


def as_findings(findings: Sequence[Finding | str | Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Findings given by name, as a Finding, or as a config's mapping with name, positive and negative prompts."""

    def one(finding: Finding | str | Mapping[str, Any]) -> Finding:
        if isinstance(finding, Finding):
            return finding
        if isinstance(finding, str):
            return findings_named([finding])[0]
        return Finding(finding["name"], tuple(finding["positive"]), tuple(finding.get("negative", ())))

    return tuple(one(finding) for finding in findings)


def encode_prompts(clip: CLIP, prompts: Sequence[str], tokenizer: Tokenizer, *, chunk: int = 256) -> Tensor:
    """Unit text embeddings (P, E) of prompts, without dropout, gradient or autocast, whatever mode the network has."""
    device = clip.log_scale.device
    training = clip.text_encoder.training
    clip.text_encoder.eval()
    # Embeddings made in inference mode could never be used under an explainer's gradient again.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        try:
            batches = [tokenizer(list(prompts[i : i + chunk])) for i in range(0, len(prompts), chunk)]
            embeddings = [clip.encode_text(b.input_ids.to(device), b.attention_mask.to(device)) for b in batches]
        finally:
            clip.text_encoder.train(training)
        return torch.cat(embeddings)


def prompt_directions(
    clip: CLIP,
    findings: Sequence[Finding | str],
    tokenizer: Tokenizer,
    rule: str = "positive",
    *,
    normal_prompts: Sequence[str] | None = None,
) -> Tensor:
    """One direction per finding: logits are ``logit_scale * image_embeddings @ directions.T``.

    Args:
        clip: the network whose text side embeds the prompts.
        findings: F findings, by name or with their own prompts.
        tokenizer: list of texts -> TokenBatch.
        rule: ``"positive"`` the mean of the positive prompts' unit embeddings, at unit length again; ``"name"`` the
            bare name; ``"positive_minus_normal"`` and ``"positive_minus_negative"`` the difference of two such
            ensembles, so that the sigmoid of the logit is the softmax over the pair; ``"name_pair"`` the name against
            ``no`` name.
        normal_prompts: sentences of a normal study, for ``"positive_minus_normal"``.

    Returns:
        (F, E): unit length for the single rules, length in [0, 2] for the differences.

    Raises:
        ValueError: for an unknown rule, a finding without the prompts that the rule needs, or a prompt that a
            tokenizer with a ``count`` would cut.
    """
    known = as_findings(findings)
    if not known:  # embeddings alone are asked for
        return clip.log_scale.new_zeros(0, clip.embed_dim)
    normal = tuple(normal_prompts or NORMAL_PROMPTS)
    pairs = [prompt_ensembles(finding, rule, normal) for finding in known]
    prompts = list(dict.fromkeys(text for pair in pairs for ensemble in pair for text in ensemble))
    _check_lengths(prompts, tokenizer)
    embeddings = dict(zip(prompts, encode_prompts(clip, prompts, tokenizer), strict=True))

    def mean_direction(ensemble: tuple[str, ...]) -> Tensor:
        return F.normalize(torch.stack([embeddings[text] for text in ensemble]).mean(0), dim=0)

    directions = [mean_direction(pro) - (mean_direction(con) if con else 0.0) for pro, con in pairs]
    return torch.stack(directions)


def _check_lengths(prompts: Sequence[str], tokenizer: Tokenizer) -> None:
    count, limit = getattr(tokenizer, "count", None), getattr(tokenizer, "max_length", None)
    if count is None or limit is None:
        return
    lengths = {prompt: count(prompt) for prompt in prompts}
    long = {prompt: length for prompt, length in lengths.items() if length > limit}
    if long:
        prompt, length = next(iter(long.items()))
        raise ValueError(
            f"{len(long)} of {len(prompts)} prompts are longer than the {limit} tokens that the text encoder reads, "
            f"first {prompt[:80]!r} with {length}: the end would not be read. Ask in fewer words."
        )


def prompt_ensembles(finding: Finding, rule: str, normal: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The prompts for and against a finding under a rule."""
    rules = {
        "positive": (finding.positive, ()),
        "name": ((finding.name,), ()),
        "positive_minus_normal": (finding.positive, normal),
        "positive_minus_negative": (finding.positive, finding.negative),
        "name_pair": ((finding.name,), (f"no {finding.name}",)),
    }
    if rule not in rules:
        raise ValueError(f"unknown prompt rule {rule!r}: use one of {', '.join(PROMPT_RULES)}")
    pro, con = rules[rule]
    if not pro or (rule == "positive_minus_negative" and not con):
        raise ValueError(f"finding {finding.name!r} has no prompts for rule {rule!r}: give positive and negative ones")
    return tuple(pro), tuple(con)


class ZeroShotClassifier(nn.Module):
    """Image -> one logit per finding, asked in words: the classifier that every other room takes.

    The directions of the findings are kept in step with the text encoder: when its weights have changed since they
    were computed (a checkpoint was loaded, a training step was made), the next forward pass computes them again. So a
    config builds this class around a fresh CLIP and loads the trained weights into ``classifier.clip``, or the
    classifier's own state into the classifier, in any order. Without a tokenizer the directions are used as loaded.

    Args:
        clip: the network; shared, not copied.
        findings: F findings, by name, as Finding, or as a mapping with ``name``, ``positive`` and ``negative``.
        tokenizer: list of texts -> TokenBatch; None when the directions come from a checkpoint of this classifier.
        rule: how prompts become a direction; see prompt_directions.
        normal_prompts: sentences of a normal study for the rule ``positive_minus_normal``.

    Attributes:
        findings: names, in the order of the logits.
        directions: (F, E) buffer.
        context_keys: empty: nothing but the image decides.
    """

    directions: Tensor
    context_keys: tuple[str, ...] = ()

    def __init__(
        self,
        clip: CLIP,
        findings: Sequence[Finding | str | Mapping[str, Any]],
        tokenizer: Tokenizer | None,
        *,
        rule: str = "positive",
        normal_prompts: Sequence[str] | None = None,
    ) -> None:
        """Share the network; the directions are computed on first use."""
        super().__init__()
        if rule not in PROMPT_RULES:
            raise ValueError(f"unknown prompt rule {rule!r}: use one of {', '.join(PROMPT_RULES)}")
        self.clip = clip
        self.prompts = as_findings(findings)
        self.findings = tuple(finding.name for finding in self.prompts)
        self.tokenizer = tokenizer
        self.rule = rule
        self.normal_prompts = normal_prompts
        self._made_from: tuple[Any, ...] | None = None
        directions = torch.zeros(len(self.findings), clip.embed_dim, device=clip.log_scale.device)
        self.register_buffer("directions", directions)

    @property
    def image_encoder(self) -> ImageEncoder:
        """The CLIP's image side."""
        return self.clip.image_encoder

    def set_rule(self, rule: str) -> None:
        """Ask by another prompt rule from now on."""
        if rule not in PROMPT_RULES:
            raise ValueError(f"unknown prompt rule {rule!r}: use one of {', '.join(PROMPT_RULES)}")
        self.rule = rule

    def refresh(self) -> Tensor:
        """Compute the directions (F, E) if the rule or the text side changed since they were last computed."""
        made_from = (self.rule, _fingerprint(self.clip))
        if self.tokenizer is not None and made_from != self._made_from:
            with torch.inference_mode(False), torch.no_grad():
                directions = prompt_directions(
                    self.clip, self.prompts, self.tokenizer, self.rule, normal_prompts=self.normal_prompts
                )
                self.directions = directions.to(self.directions)
            self._made_from = made_from
        return self.directions

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, F) of images (B, C, *spatial).

        The sigmoid of a difference rule's logit is the softmax over its pair; the single rules' logits carry the
        network's logit bias (0 unless it was trained with the sigmoid loss).
        """
        return self.score(self.clip.encode_image(image))

    def score_features(self, features: Tensor) -> Tensor:
        """Logits (B, F) of the image encoder's pooled features (B, width)."""
        return self.score(self.clip.embed_features(features))

    def embed_image(self, image: Tensor) -> Tensor:
        """Unit embeddings (B, E) of images (B, C, *spatial), which `score` takes."""
        return self.clip.encode_image(image)

    def score(self, embedding: Tensor) -> Tensor:
        """Logits (B, F) of unit image embeddings (B, E)."""
        logits = self.clip.logit_scale * embedding @ self.refresh().T  # (B, F)
        return logits + self.clip.logit_bias if self.rule in ("positive", "name") else logits

    def as_cosine(self, logits: Tensor) -> Tensor:
        """The cosines (or differences of cosines) that `score` scaled and shifted into these logits (B, F)."""
        shift = self.clip.logit_bias if self.rule in ("positive", "name") else 0.0
        return (logits - shift) / self.clip.logit_scale


def _fingerprint(clip: CLIP) -> tuple[tuple[int, int], ...]:
    """Identity and version of everything on the text side: in-place changes count versions up."""
    tensors = [*clip.text_encoder.parameters(), *clip.text_encoder.buffers(), *clip.text_projection.parameters()]
    return tuple((id(tensor), tensor._version) for tensor in tensors)
