"""What every explainer is: (classifier, image) -> one map per finding, of the very score that the classifier gives."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.networks import Classifier

__all__ = ["Explainer", "Explanation", "UnfaithfulError"]

TARGETS = ("logit", "cosine")
RTOL = ATOL = 1e-4  # logits: how far the explained score may be from the model's own


class Explanation(NamedTuple):
    """Maps and the scores that they explain."""

    heatmap: Tensor  # (B, F, *spatial) float32; high supports the finding
    scores: Tensor  # (B, F) float32, logits (or cosines, if they are the target)


class UnfaithfulError(RuntimeError):
    """The score that an explainer took apart is not the one that the model gives."""


class Explainer(ABC):
    """Base of all explainers: a method says what it needs of a classifier and makes coarse maps, the rest is here.

    Maps are computed in float32 without autocast and in evaluation mode, whatever surrounds the call (``no_grad``,
    ``inference_mode``, autocast, training mode), and everything borrowed is given back, also on an error.

    Args:
        target: what is explained: ``"logit"``, or ``"cosine"`` of a zero-shot classifier (the same up to scale and
            bias, which matters to methods that add maps of several layers).
        verify: compare the explained score with the model's own on every call. It is compared on the first call for
            each network and method in any case.

    References:
        Each method names its paper.
    """

    name: str = ""
    explains_own_score = True  # False: the method says itself that it explains another model
    needs_contrast = False  # True: the method refuses an image that is the same everywhere

    def __init__(self, *, target: str = "logit", verify: bool = False) -> None:
        """See the class."""
        if target not in TARGETS:
            raise ValueError(f"target={target!r}: use one of {', '.join(TARGETS)}.")
        self.target = target
        self.verify = verify

    def check(self, classifier: Classifier) -> None:
        """Refuse a classifier that this method cannot explain, before any work is done.

        Raises:
            TypeError: with the reason and what to use instead.
        """
        if not self._encoder(classifier).spatial_dims:
            raise TypeError(
                f"{self.name} shows places in an image, and precomputed features have none. Use FeatureContributions, "
                "or put the network that made the features in front of the CLIP (BackboneClassifier)."
            )
        if self.target == "cosine" and not hasattr(uncompiled(classifier), "as_cosine"):
            raise TypeError(f"{type(classifier).__name__} has no cosine to explain: use target='logit'.")
        self._check(classifier)

    def explain(self, classifier: Any, image: Tensor, **context: Tensor) -> Explanation:
        """Maps for every image and finding.

        Args:
            classifier: any `Classifier`, also compiled.
            image: (B, C, *spatial), as the classifier takes it.
            context: its further inputs, by their names in ``context_keys``.

        Returns:
            Maps (B, F, *spatial) at the size of the image, bilinear between patches, and the scores they explain.

        Raises:
            TypeError: a combination that makes no sense.
            UnfaithfulError: the explained score differs from the model's own.
        """
        classifier = uncompiled(classifier)
        self.check(classifier)
        missing = set(classifier.context_keys) - set(context)
        if missing:
            raise ValueError(f"the classifier also needs {', '.join(sorted(missing))}: give them by name.")
        with undisturbed(classifier):
            image, context = detached(image), {name: detached(tensor) for name, tensor in context.items()}
            maps, scores = self._maps(classifier, image, context)
            size = image.shape[2:]
            return Explanation(upsample(maps.detach().float(), size), scores.detach().float())

    def __call__(self, classifier: Any, image: Tensor, **context: Tensor) -> Tensor:
        """The maps of `explain` alone, (B, F, *spatial)."""
        return self.explain(classifier, image, **context).heatmap

    def _check(self, classifier: Classifier) -> None:  # noqa: B027 - most methods that look at the input need nothing
        """What this method needs beyond an image."""

    @abstractmethod
    def _maps(self, classifier: Any, image: Tensor, context: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (B, F, *grid) of any resolution and the scores (B, F) that they explain."""

    def _scores(self, classifier: Any, logits: Tensor) -> Tensor:
        return classifier.as_cosine(logits) if self.target == "cosine" else logits

    def _encoder(self, classifier: Classifier) -> Any:
        return uncompiled(classifier).image_encoder

    def _must_verify(self, classifier: Classifier) -> bool:
        """Whether this call has to compare scores: the first one for this network and method, or always."""
        if not self.explains_own_score:
            return False
        return self.verify or not vouched_for(self._encoder(classifier), self._key())

    def _key(self) -> tuple[str, Any]:
        """What one comparison vouches for: the method, and how many blocks it reads."""
        return self.name, getattr(self, "blocks", None)

    def _compare(self, classifier: Classifier, explained: Tensor, own: Tensor) -> None:
        """Raise if two sets of logits (B, F) differ; remember the pair otherwise."""
        compare_scores(self._encoder(classifier), self._key(), explained, own, lost="map is")


# By network and method, for as long as the network lives.
_VERIFIED: weakref.WeakKeyDictionary[Any, set[tuple[str, Any]]] = weakref.WeakKeyDictionary()


def vouched_for(encoder: Any, key: tuple[str, Any]) -> bool:
    """Whether `compare_scores` passed for this encoder and this key: a method's name and how many blocks it reads."""
    return key in _VERIFIED.get(encoder, ())


def compare_scores(encoder: Any, key: tuple[str, Any], explained: Tensor, own: Tensor, *, lost: str) -> None:
    """Raise if the logits that a method took apart are not the model's own; remember the pair otherwise.

    Raises:
        UnfaithfulError: they differ by more than 1e-4, absolute and relative.
    """
    if not torch.allclose(explained.detach(), own.detach(), rtol=RTOL, atol=ATOL):
        worst = float((explained - own).detach().abs().max())
        raise UnfaithfulError(
            f"{key[0]} took a score apart that is {worst:.3g} away from the model's own. The encoder "
            f"{type(encoder).__name__} computes something that its attention access leaves out; no {lost} given."
        )
    _VERIFIED.setdefault(encoder, set()).add(key)


def uncompiled(classifier: Any) -> Any:
    """The module inside ``torch.compile``'s wrapper: compiled graphs cannot be entered halfway."""
    return getattr(classifier, "_orig_mod", classifier)


def detached(tensor: Tensor) -> Tensor:
    """A plain tensor that may meet gradients, whatever mode it was made in."""
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.clone() if plain.is_inference() else plain.detach()


@contextmanager
def undisturbed(classifier: nn.Module) -> Iterator[None]:
    """Evaluation mode, gradients for activations only, full precision; modes and flags are given back at the end.

    Parameters ask for no gradient meanwhile: none is needed, and what they would need to be computed is not kept.
    """
    training = [module for module in classifier.modules() if module.training]
    parameters = list(classifier.parameters())
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    device = parameters[0].device.type if parameters else "cpu"
    try:
        for module in training:
            module.training = False
        for parameter in learned:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True
        for parameter in learned:
            parameter.requires_grad_(True)


def upsample(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Bilinear or trilinear to the size of the image, pixel centres aligned to patch centres: (B, F, *size)."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[maps.ndim - 2]
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


def gradients(scores: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """d scores[:, f] / d input for every finding at once: (B, F) scores, inputs (B, ...) -> (B, F, ...) each.

    Items of a batch do not see each other in evaluation mode, so one vector per finding serves the whole batch.
    """
    one_hot = torch.eye(scores.shape[1], device=scores.device, dtype=scores.dtype)
    vectors = one_hot[:, None].expand(-1, len(scores), -1)  # (F, B, F)
    if len(one_hot) == 1:  # no need for batching rules
        found = torch.autograd.grad(scores, inputs, vectors[0])
        return [gradient[:, None] for gradient in found]
    found = torch.autograd.grad(scores, inputs, vectors, is_grads_batched=True)
    return [gradient.transpose(0, 1) for gradient in found]
