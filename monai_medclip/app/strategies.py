"""Which image a reader should see next: the one the model is least sure of, or that resembles the known ones least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from torch import Tensor

from monai_medclip.app.image_answers import Budget, ImageAnswer, ImageAnswers, ImagePath, SomeAnswers, stock_path
from monai_medclip.app.labels import unlabeled_images
from monai_medclip.engines import BundleModel
from monai_medclip.index import EmbeddingIndex

__all__ = ["FarthestFromIndex", "MostUncertain", "mean_entropy"]

NEW_IMAGES, SECONDS = 32, 10.0
"""What one request may read: MONAI Label runs strategies on its event loop, where everybody else waits meanwhile."""

Choice = dict[str, Any]


def mean_entropy(probabilities: tuple[float, ...]) -> float:
    """Mean over findings of the entropy of present or absent, in bits: 0 where all are certain, 1 where all are 1/2."""
    bits = [-sum(q * math.log2(q) for q in (p, 1 - p) if q > 0) for p in probabilities]
    return sum(bits) / len(bits) if bits else 0.0


class MostUncertain(Strategy):
    """The unlabeled image whose zero-shot probabilities are the most uncertain; the first by id among equals.

    Args:
        model: that is asked.
        image_path: where an image of the datastore lies.
        new_images: images that one request reads, at most; those read before are known.
        seconds: after which one request reads no further image.
    """

    def __init__(
        self,
        model: BundleModel,
        image_path: ImagePath = stock_path,
        *,
        new_images: int = NEW_IMAGES,
        seconds: float = SECONDS,
    ) -> None:
        """See the class."""
        super().__init__("The unlabeled image whose zero-shot probabilities are most uncertain")
        self.answers, self.new_images, self.seconds = ImageAnswers(model, image_path), new_images, seconds

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Choice | None:
        """Id, mean entropy as ``weight``, and ``explanation``; None where nothing is left to label."""
        images = unlabeled_images(datastore)
        some = self.answers.some(datastore, images, Budget(self.new_images, self.seconds))
        entropies = {
            image_id: mean_entropy(answer.probabilities)
            for image_id, answer in some.found.items()
            if answer.probabilities is not None
        }
        if not entropies:
            return _first(some, "no unlabeled image has zero-shot probabilities yet, so the first is taken")
        best = min(entropies, key=lambda image_id: (-entropies[image_id], image_id))
        why = f"mean entropy {entropies[best]:.3f} of 1 bit, the highest of {len(entropies)} unlabeled images"
        return _chosen(best, entropies[best], why, some)


class FarthestFromIndex(Strategy):
    """The unlabeled image that is farthest, by cosine, from its nearest neighbor among known ones.

    Known are the entries of the index and the images that readers have labeled, so that of two like strangers only one
    is asked for (greedy k-center).

    Args:
        model: that is asked.
        image_path: where an image of the datastore lies.
        index: embeddings of the same model; None: labeled images alone are known.
        new_images: images that one request reads, at most.
        seconds: after which one request reads no further image.

    Raises:
        ValueError: an index of another width.

    References:
        Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018.
    """

    def __init__(
        self,
        model: BundleModel,
        image_path: ImagePath = stock_path,
        *,
        index: EmbeddingIndex | None = None,
        new_images: int = NEW_IMAGES,
        seconds: float = SECONDS,
    ) -> None:
        """See the class."""
        super().__init__("The unlabeled image that resembles the index and the labeled images least")
        if index is not None and index.width != model.clip.embed_dim:
            raise ValueError(
                f"the index holds embeddings of {index.width} numbers, the model's have {model.clip.embed_dim}: give "
                "an index that was made with this model."
            )
        self.answers, self.index = ImageAnswers(model, image_path), index
        self.new_images, self.seconds = new_images, seconds

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Choice | None:
        """Id, cosine distance (0 to 2) as ``weight``, and ``explanation``; None where nothing is left to label."""
        images = unlabeled_images(datastore)
        labeled = sorted(set(datastore.list_images()) - set(images))
        some = self.answers.some(datastore, images, self._half())
        seen = self.answers.some(datastore, labeled, self._half()).found
        indexed = 0 if self.index is None else len(self.index)
        if not some.found or not (seen or indexed):
            return _first(some, "there is nothing yet to be far from, so the first unlabeled image is taken")
        distances = self._distances(some.found, seen)
        best = min(distances, key=lambda image_id: (-distances[image_id], image_id))
        why = (
            f"cosine distance {distances[best]:.3f} from the nearest of {indexed} indexed and {len(seen)} labeled "
            f"images, the largest of {len(distances)} unlabeled images"
        )
        return _chosen(best, distances[best], why, some)

    def _half(self) -> Budget:
        return Budget(self.new_images // 2, self.seconds / 2)

    def _distances(self, images: Mapping[str, ImageAnswer], seen: Mapping[str, ImageAnswer]) -> dict[str, float]:
        """1 minus the largest cosine with anything known."""
        queries = _stacked(images)  # (N, E)
        nearest = torch.full((len(queries),), -1.0)
        if seen:
            nearest = torch.maximum(nearest, (queries @ _stacked(seen).T).amax(dim=1))
        if self.index is not None and len(self.index):
            nearest = torch.maximum(nearest, self.index.search(queries, 1).scores[:, 0].float().cpu())
        return dict(zip(images, (1 - nearest).tolist(), strict=True))


def _stacked(answers: Mapping[str, ImageAnswer]) -> Tensor:
    return torch.stack([answer.embedding for answer in answers.values()])


def _first(some: SomeAnswers, why: str) -> Choice | None:
    """The first image that can be read, or else was not tried yet; None where there is none."""
    left = sorted(some.found) or some.waiting
    return _chosen(left[0], 0.0, why, some) if left else None


def _chosen(image_id: str, weight: float, why: str, some: SomeAnswers) -> Choice:
    limits = [f"{len(some.waiting)} more wait to be read" if some.waiting else ""]
    limits += [f"{some.unreadable} cannot be read" if some.unreadable else ""]
    return {
        "id": image_id,
        "weight": weight,
        "explanation": "; ".join([why, *filter(None, limits)]),
        "read": some.read,
        "waiting": len(some.waiting),
        "unreadable": some.unreadable,
    }
