"""One class out of many by words: which of the lesion types is it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.labels import look_up
from ..metrics import MulticlassReport, multiclass
from ..networks import CLIP, as_findings, prompt_directions
from ..outputs import TokenBatch
from .embedding import Embeddings

__all__ = ["choose_class", "class_logits", "class_numbers"]


def class_logits(
    clip: CLIP, image: Tensor, classes: Sequence[Any], tokenizer: Callable[[list[str]], TokenBatch]
) -> Tensor:
    """Logits (N, K) whose softmax is the probability of each class: cosines to the class prompts over tau.

    Several prompts of a class are an ensemble: their unit embeddings are averaged and brought to unit length again.

    Args:
        clip: the network.
        image: (N, E) unit embeddings.
        classes: K classes, by name, as Finding, or as a config's mapping with ``name`` and ``positive`` prompts.
        tokenizer: list of texts -> TokenBatch.

    References:
        MedGrad E-CLIP, Eq. 2.
    """
    directions = prompt_directions(clip, classes, tokenizer, "positive").cpu()
    return clip.logit_scale.detach().cpu() * image @ directions.T


def class_numbers(items: Sequence[Mapping[str, Any]], names: Sequence[str], *, column: str = "labels") -> Tensor:
    """Which class each item has: (N,) int64, -1 where it names none.

    Args:
        items: as the readers make them.
        names: K classes.
        column: where items name their class, such as ``"meta.diagnosis"``: a name, or a list of which one is a class.

    Raises:
        ValueError: a class named twice, or an item with two of the classes.
    """
    places = {_plain(name): number for number, name in enumerate(names)}
    if len(places) < len(names):
        raise ValueError(f"the classes {list(names)} name one twice: capitals, '_' and '-' make no difference.")
    found = []
    for item in items:
        told = look_up(item, column) or ()
        labels = [_plain(label) for label in ([told] if isinstance(told, str) else told)]
        own = sorted({places[label] for label in labels if label in places})
        if len(own) > 1:
            raise ValueError(
                f"item {item['id']} has the classes {[names[number] for number in own]}, and one is to be chosen: ask "
                "for them as findings, or drop one of them from the list."
            )
        found.append(own[0] if own else -1)
    return torch.tensor(found, dtype=torch.int64)


def choose_class(
    clip: CLIP,
    test: Embeddings,
    items: Sequence[Mapping[str, Any]],
    classes: Sequence[Any],
    tokenizer: Callable[[list[str]], TokenBatch],
    *,
    bootstrap: int = 1000,
    on_empty: str = "raise",
    column: str = "labels",
) -> tuple[MulticlassReport, Tensor]:
    """Judges the choice on test items: the report, and the logits (N, K).

    Args:
        clip: the network.
        test: embeddings of the items.
        items: they say the class.
        classes: see `class_logits`.
        tokenizer: list of texts -> TokenBatch.
        bootstrap: resamples of patients for the 95 % intervals.
        on_empty: ``"raise"`` where a class has fewer than two cases, or ``"report"``: its figures are then NaN.
        column: see `class_numbers`.

    Raises:
        ValueError: what `class_numbers` refuses; a class without a case or with one case, for ``"raise"``.
    """
    names = [one.name for one in as_findings(classes)]
    logits = class_logits(clip, test.image, classes, tokenizer)
    truth = class_numbers(items, names, column=column)
    report = multiclass(
        logits.numpy(), truth.numpy(), names, groups=np.array(test.patients), bootstrap=bootstrap, on_empty=on_empty
    )
    return report, logits


def _plain(name: str) -> str:
    return " ".join(str(name).lower().replace("_", " ").replace("-", " ").split())
