"""Precomputed features have no pixels: what each of them adds to each finding's score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_medclip.explainers.base import UnfaithfulError, detached, gradients, uncompiled, undisturbed
from monai_medclip.networks import Classifier, ProbeClassifier, ZeroShotClassifier

__all__ = ["Contributions", "FeatureContributions", "NamedFeature"]

EXACT, INTEGRATED = "exact", "integrated gradients"
TOLERANCE = {EXACT: 1e-4, INTEGRATED: 1e-2}  # by how much of the largest score the sum may miss the score

Scorer = Callable[[Tensor], Tensor]  # unit embeddings (B, E) -> logits (B, F)


class NamedFeature(NamedTuple):
    """One feature and what it adds to one finding's score."""

    column: int  # from 0, in the feature vector
    name: str
    contribution: float  # positive supports the finding


class Contributions(NamedTuple):
    """``contributions.sum(-1) + offset`` is ``scores``: to rounding if exact, to 1e-2 of the largest score if not."""

    contributions: Tensor  # (B, F, width) float32; positive supports the finding
    scores: Tensor  # (B, F) float32, logits
    offset: Tensor  # (B, F) float32, the logit without any feature: the bias, and what the report says
    method: str  # "exact" or "integrated gradients"
    names: tuple[str, ...]  # of the features, width of them

    def top(self, k: int = 10) -> list[list[list[NamedFeature]]]:
        """The k features with the largest contributions by absolute value, largest first: ``top(k)[item][finding]``.

        Raises:
            ValueError: if k is not in 1 to width.
        """
        if not 1 <= k <= len(self.names):
            raise ValueError(f"k={k}: there are {len(self.names)} features, ask for 1 to {len(self.names)} of them.")
        order = self.contributions.abs().topk(k, dim=-1).indices  # (B, F, k)
        values = self.contributions.gather(-1, order)
        return [
            [[NamedFeature(i, self.names[i], value) for i, value in zip(*row, strict=True)] for row in zip(*item)]
            for item in zip(order.tolist(), values.tolist(), strict=True)
        ]


class FeatureContributions:
    """What every feature x_j adds to a classifier's logits, the length |W x| of the projection taken as given.

    The unit embedding is a sum over features, e = sum_j x_j W_j / |W x|. A zero-shot classifier's logit is linear in
    it, s <e, t> + b, so that x_j (W^T t)_j s / |W x| add up to the logit without its bias: ``"exact"``. So they do for
    a probe with one linear layer. Any other head h is followed from no image, e = 0, to e:
    x_j (W^T integral_0^1 grad h(a e) da)_j / |W x| add up to h(e) - h(0): ``"integrated gradients"``. (Gradients with
    respect to x itself are of no use here: an embedding of unit length does not change along x, so that x_j dS/dx_j add
    up to 0.)

    Features that go together share their contribution in ways that no method can tell apart, and a feature says nothing
    of a place: put the network that made the features in front (BackboneClassifier) to see one.

    Args:
        names: of the features, in order; None for ``"feature 0"``, ``"feature 1"``, ...
        steps: at which the integral is evaluated, for heads that are not linear.

    References:
        Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, Eq. 1 and 3.
    """

    name = "feature contributions"

    def __init__(self, *, names: Sequence[str] | None = None, steps: int = 128) -> None:
        """See the class."""
        if steps < 1:
            raise ValueError(f"steps={steps}: the integral needs at least one.")
        self.names = None if names is None else tuple(names)
        self.steps = steps

    def check(self, classifier: Classifier) -> None:
        """Refuse a classifier that this method cannot explain, before any work is done.

        Raises:
            TypeError: for a classifier of images, or one whose use of the embedding is unknown.
            ValueError: if the number of names is not the number of features.
        """
        classifier = uncompiled(classifier)
        if classifier.image_encoder.spatial_dims:
            raise TypeError(
                f"{self.name} explain vectors, and {type(classifier.image_encoder).__name__} takes images. "
                "Use GradCAM, GradECLIP or another method that shows places; of a BackboneClassifier, give its "
                "classifier and the features."
            )
        if not isinstance(classifier, (ZeroShotClassifier, ProbeClassifier)):
            raise TypeError(
                f"{self.name} need to know what becomes of the embedding, and {type(classifier).__name__} is neither a "
                "ZeroShotClassifier nor a ProbeClassifier: put its head into a ProbeClassifier."
            )
        width = classifier.image_encoder.width
        if self.names is not None and len(self.names) != width:
            raise ValueError(f"{len(self.names)} names for {width} features: give one for each, in order.")

    def __call__(self, classifier: Any, features: Tensor, **context: Tensor) -> Contributions:
        """Contributions of every feature to every finding of every item.

        Args:
            classifier: over precomputed features, also compiled.
            features: (B, width), as the classifier takes them.
            context: its further inputs, by their names in ``context_keys``.

        Returns:
            Contributions (B, F, width), the scores (B, F) and what is no feature's.

        Raises:
            TypeError: a classifier that cannot be explained in this way.
            UnfaithfulError: the contributions miss the classifier's own score.
        """
        classifier = uncompiled(classifier)
        self.check(classifier)
        with undisturbed(classifier), torch.no_grad():
            found = self._explain(
                classifier, detached(features), {name: detached(tensor) for name, tensor in context.items()}
            )
        self._compare(found)
        return found

    def _explain(self, classifier: Any, features: Tensor, context: dict[str, Tensor]) -> Contributions:
        own = classifier(features, **context)  # also refuses missing context and vectors of another length
        features = classifier.image_encoder(features)
        score, linear = _scorer(classifier, context)
        weight = classifier.clip.image_projection.weight  # (E, width)
        length = (features @ weight.T).float().norm(dim=1, keepdim=True).clamp_min(1e-12)  # as F.normalize does
        embedding = classifier.clip.embed_features(features)  # (B, E)
        slope = _mean_gradient(score, embedding, 1 if linear else self.steps)  # (B, F, E)
        contributions = (slope @ weight) * (features / length).unsqueeze(1)  # (B, F, width)
        names = self.names or tuple(f"feature {j}" for j in range(features.shape[1]))
        offset = score(torch.zeros_like(embedding))
        method = EXACT if linear else INTEGRATED
        return Contributions(contributions.float(), own.float(), offset.float(), method, names)

    def _compare(self, found: Contributions) -> None:
        """Raise if the contributions are not complete."""
        missing = (found.contributions.sum(-1) + found.offset - found.scores).abs()
        allowed = TOLERANCE[found.method] * found.scores.abs().max().clamp_min(1.0)
        if not bool((missing <= allowed).all()):
            raise UnfaithfulError(
                f"{self.name} ({found.method}, {self.steps} steps) miss a score by {float(missing.max()):.3g}, and "
                f"{float(allowed):.3g} is allowed. Take more steps; if that does not help, the head jumps."
            )


def _scorer(classifier: ZeroShotClassifier | ProbeClassifier, context: dict[str, Tensor]) -> tuple[Scorer, bool]:
    """What makes logits of the embedding, and whether it is linear up to a constant."""
    if isinstance(classifier, ZeroShotClassifier):
        return classifier.score, True
    head = classifier.head
    if not classifier.context_keys:
        return head, isinstance(head, nn.Linear)
    text = classifier.clip.encode_text(**context)  # (B, E), once instead of once per step
    return lambda embedding: head(torch.cat([embedding, text], dim=1)), isinstance(head, nn.Linear)


def _mean_gradient(score: Scorer, embedding: Tensor, steps: int) -> Tensor:
    """Mean over a in (0, 1), by the midpoint rule, of d score / d embedding at a * embedding: (B, F, E)."""
    total = torch.zeros(())
    for step in range(steps):
        point = ((step + 0.5) / steps * embedding).requires_grad_()
        with torch.enable_grad():
            (gradient,) = gradients(score(point), [point])
        total = total.to(gradient) + gradient
    return total / steps
