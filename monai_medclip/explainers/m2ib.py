"""M2IB: noise is poured into the tokens until only what the score needs is left; what is left is the map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_medclip.explainers.attention_path import AttentionExplainer, on_grid, require_attention
from monai_medclip.networks import AttentionAccess, Classifier

__all__ = ["M2IB"]

INITIAL_ALPHA = 5.0  # lambda = 0.993: training starts from nearly intact tokens


class M2IB(AttentionExplainer):
    """KL per token, in nats, of z = lambda h + (1 - lambda) e, with lambda trained to minimize beta KL - score.

    h are the tokens that enter a block, e is standard normal noise, lambda = sigmoid(alpha) in (0, 1) for every channel
    of every token, KL = KL[N(lambda h, (1 - lambda)^2) || N(0, 1)], its mean over channels and tokens in the loss and
    its sum over channels in the map; alpha by Adam, for every image and finding on its own. Maps are not negative.

    The score is the cosine of image and prompts, as in the paper, where the classifier has one, and else the logit,
    against which beta then weighs differently; ``target`` only says what is reported.

    What differs from the authors' code: the same noise samples for all images and findings, drawn anew in every step;
    the KL of the map is that of the alpha after the last step, not before it; logarithms of lambda are taken from
    alpha, so nothing overflows and no NaN has to be left out. Only the image is explained.

    Args:
        blocks: attention stages behind the bottleneck, a pooling attention included; all where there are fewer. The
            authors' is behind layer 10 of 12.
        beta: weight of the mean KL.
        lr, steps: of Adam.
        samples: noise samples per step.
        seed: of the noise, for every call.
        batch_size: noisy copies per forward pass; at least the samples of one finding.
        target, verify: see `Explainer`.

    References:
        Wang et al., Visual Explanations of Image-Text Representations via Multi-Modal Information Bottleneck
        Attribution, NeurIPS 2023, section 4; their code for the defaults.
    """

    name = "M2IB"

    def __init__(
        self,
        *,
        blocks: int = 2,
        beta: float = 0.1,
        lr: float = 1.0,
        steps: int = 10,
        samples: int = 10,
        seed: int = 0,
        batch_size: int = 64,
        target: str = "logit",
        verify: bool = False,
    ) -> None:
        """See the class."""
        super().__init__(blocks=blocks, target=target, verify=verify)
        if beta < 0 or lr <= 0 or min(steps, samples, batch_size) < 1:
            raise ValueError(
                f"beta={beta}, lr={lr}, steps={steps}, samples={samples}, batch_size={batch_size}: beta must not be "
                "negative, lr positive, the others at least 1."
            )
        self.beta = beta
        self.lr = lr
        self.steps = steps
        self.samples = samples
        self.seed = seed
        self.batch_size = batch_size

    def _check(self, classifier: Classifier) -> None:
        require_attention(self, classifier)

    def _first(self, encoder: AttentionAccess) -> int:
        return max(super()._first(encoder), 0)

    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            walk = self.walk(classifier, image, context)
        tokens, (batch, findings) = walk.tokens.detach(), walk.scores.shape
        images = torch.arange(batch, device=tokens.device).repeat_interleave(findings)  # (B F,)
        asked = torch.arange(findings, device=tokens.device).repeat(batch)  # (B F,)
        nats = [
            self._nats(classifier, tokens[part], finding, {name: value[part] for name, value in context.items()})
            for part, finding in zip(*(index.split(self._pairs()) for index in (images, asked)), strict=True)
        ]
        patches = walk.stages[0].qkv.k.shape[2] - walk.stages[0].prefix_tokens
        maps = torch.cat(nats).unflatten(0, (batch, findings))[..., -patches:]
        return on_grid(classifier.image_encoder, maps), walk.scores

    def _pairs(self) -> int:
        """How many pairs of image and finding are trained side by side."""
        return max(1, self.batch_size // self.samples)

    def _nats(self, classifier: Any, tokens: Tensor, asked: Tensor, context: dict[str, Tensor]) -> Tensor:
        """What training leaves of each token: (P, N), of tokens (P, N, D) and the finding of each of the P pairs."""
        generator = torch.Generator().manual_seed(self.seed)
        context = {name: value.repeat_interleave(self.samples, 0) for name, value in context.items()}
        alpha = torch.full_like(tokens, INITIAL_ALPHA).requires_grad_()
        optimizer = torch.optim.Adam([alpha], lr=self.lr)
        for _ in range(self.steps):
            noise = torch.randn(self.samples, *tokens.shape[1:], generator=generator).to(tokens)  # (S, N, D)
            fit = self._fit(classifier, mixed(tokens, alpha, noise), context)  # (P, S, F)
            fitting = fit.mean(1).gather(1, asked[:, None])[:, 0]  # (P,)
            loss = self.beta * kl_divergence(tokens, alpha).mean((1, 2)) - fitting
            (alpha.grad,) = torch.autograd.grad(loss.sum(), [alpha])  # the pairs do not see each other
            optimizer.step()
        return kl_divergence(tokens, alpha.detach()).sum(-1)

    def _fit(self, classifier: Any, noisy: Tensor, context: dict[str, Tensor]) -> Tensor:
        """The score of noisy tokens (P, S, N, D), from the bottleneck on: (P, S, F)."""
        first = self._first(classifier.image_encoder)
        logits = self._from_tokens(classifier, noisy.flatten(0, 1), first, context).logits
        scores = classifier.as_cosine(logits) if hasattr(classifier, "as_cosine") else logits
        return scores.unflatten(0, noisy.shape[:2])


def mixed(tokens: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
    """z = lambda h + (1 - lambda) e: (P, S, N, D) of tokens and alpha (P, N, D) and noise (S, N, D)."""
    kept, lost = alpha.sigmoid().unsqueeze(1), (-alpha).sigmoid().unsqueeze(1)
    return kept * tokens.unsqueeze(1) + lost * noise


def kl_divergence(tokens: Tensor, alpha: Tensor) -> Tensor:
    """KL[N(lambda h, (1 - lambda)^2) || N(0, 1)] per channel, in nats: (P, N, D), not negative."""
    log_variance = 2 * F.logsigmoid(-alpha)  # of (1 - lambda)^2, finite however close lambda is to 1
    return 0.5 * ((alpha.sigmoid() * tokens).square() + log_variance.exp() - log_variance - 1)
