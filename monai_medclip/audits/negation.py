"""Does the model hear "no"? A finding against its own denial, on images that have it and images that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_medclip.audits.choices import (
    CLEAR,
    Choice,
    chosen,
    draw_patients,
    in_percent,
    is_sentence,
    mean_choice,
    or_none,
)
from monai_medclip.audits.result import AuditResult
from monai_medclip.findings import Finding
from monai_medclip.metrics.classification import as_array
from monai_medclip.networks import CLIP, prompt_directions
from monai_medclip.networks.zero_shot import as_findings, encode_prompts
from monai_medclip.outputs import TokenBatch

__all__ = ["NEGATION_TEMPLATES", "negation_audit"]

Tokenizer = Callable[[list[str]], TokenBatch]
Row = dict[str, Any]

NEGATION_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("{}.", "No {}."),
    ("There is {}.", "There is no {}."),
    ("{} is present.", "No evidence of {}."),
    ("{} is seen.", "No {} is seen."),
    ("Positive for {}.", "Negative for {}."),
)


class _Asked(NamedTuple):
    """One finding, asked by every pair of templates."""

    name: str
    choice: Choice  # by the ensemble of the pairs
    single: tuple[float, ...]  # balanced accuracy of each pair alone
    cosine: float  # mean over the pairs, of the two texts' embeddings


def negation_audit(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    label: ArrayLike,
    findings: Sequence[Finding | str | Mapping[str, Any]],
    *,
    patients: Sequence[str] | None = None,
    templates: Sequence[tuple[str, str]] = NEGATION_TEMPLATES,
    bootstrap: int = 1000,
    generator: np.random.Generator | int = 0,
) -> AuditResult:
    """Which text is nearer to an image, "pleural effusion" or "no pleural effusion"?

    The texts of all templates are averaged, for and against. The choice is right if the finding wins on an image that
    has it, and its denial on an image that does not; both count the same, so that a model which always prefers one gets
    0.5. The cosine of a pair is 1.0 for a text encoder that does not hear "no". The AUC of the difference tells a model
    that is deaf from one that is tilted towards one side.

    Args:
        clip: the network that embedded the images.
        tokenizer: list of texts -> TokenBatch.
        image: (N, E) unit embeddings.
        label: (N, F) of 1, 0 or NaN (unknown: left out of that finding).
        findings: F findings; only their names are used, so give names that a template can deny.
        patients: N, resampled for the intervals; None: every image is its own.
        templates: pairs that assert and deny, each with one ``{}``.
        bootstrap: resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        One row per finding, but for those whose name is a sentence, and one for their mean. ``correct with`` and
        ``correct without`` are shares of the images with and without the finding, ``accuracy`` their mean (0 to 1,
        chance 0.5) with its interval; ``worst pair`` and ``best pair`` are the accuracies of single templates.
        It warns where the mean may be chance, or is below 0.75.

    Raises:
        ValueError: shapes that do not agree, or no template.
    """
    names = tuple(finding.name for finding in as_findings(findings))
    truth = as_array(label)
    if truth.shape != (len(image), len(names)):
        raise ValueError(f"label {truth.shape} must be ({len(image)}, {len(names)}), one column per finding.")
    if not templates:
        raise ValueError("no template was given: use NEGATION_TEMPLATES, or pairs such as ('{}.', 'No {}.').")
    counts = draw_patients(patients, len(image), bootstrap, generator)
    asked = [
        _ask(clip, tokenizer, image, truth[:, f], name, templates, counts)
        for f, name in enumerate(names)
        if not is_sentence(name)
    ]
    mean = mean_choice([one.choice for one in asked])
    if mean is None:
        verdict = "No finding is both present and absent in these images: whether the model hears 'no' is unknown."
        return AuditResult("negation", verdict, tuple(_row(one) for one in asked), False)
    both = [one for one in asked if one.choice.positives and one.choice.negatives]
    single = tuple(np.mean([one.single for one in both], axis=0).tolist())
    total = _Asked("mean", mean, single, float(np.mean([one.cosine for one in both])))
    warning = mean.by_chance or mean.accuracy < CLEAR
    return AuditResult("negation", _verdict(total, both), tuple(_row(one) for one in [*asked, total]), warning)


def _ask(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    truth: NDArray[np.float64],
    name: str,
    templates: Sequence[tuple[str, str]],
    counts: NDArray[np.float64],
) -> _Asked:
    said, denied = (tuple(template.format(name) for template in side) for side in zip(*templates, strict=True))
    ensemble = prompt_directions(clip, [Finding(name, said, denied)], tokenizer, "positive_minus_negative")
    texts = encode_prompts(clip, [*said, *denied], tokenizer)
    pro, con = texts[: len(said)], texts[len(said) :]  # (T, E) each
    directions = torch.cat([ensemble, pro - con]).cpu().double()  # (1 + T, E)
    scores = (image.detach().cpu().double() @ directions.T).numpy()  # (N, 1 + T)
    single = [chosen(scores[:, t], truth, counts[:0]).accuracy for t in range(1, scores.shape[1])]
    return _Asked(name, chosen(scores[:, 0], truth, counts), tuple(single), float((pro * con).sum(dim=1).mean()))


def _row(one: _Asked) -> Row:
    return {
        "finding": one.name,
        "with": one.choice.positives,
        "without": one.choice.negatives,
        "correct with": or_none(one.choice.right_positive),
        "correct without": or_none(one.choice.right_negative),
        **one.choice.columns(),
        "worst pair": or_none(min(one.single)),
        "best pair": or_none(max(one.single)),
        "cosine": or_none(one.cosine),
    }


def _verdict(total: _Asked, asked: Sequence[_Asked]) -> str:
    choice = total.choice
    hears = "hears negation" if choice.accuracy >= CLEAR else "hardly hears negation"
    words = (
        f"The model {'does not hear negation' if choice.by_chance else hears}: a finding's text and its denial have "
        f"cosine {total.cosine:.2f}, and the choice between them is right in {choice.told()}, images with and without "
        f"the finding counted alike (chance 50 %, mean of {len(asked)} finding(s))."
    )
    if choice.accuracy < CLEAR and choice.auc >= CLEAR:
        side = "the finding" if choice.right_positive > choice.right_negative else "the denial"
        return (
            f"{words} The difference of the two ranks images well (AUC {choice.auc:.2f}) but is tilted towards {side}: "
            "such pairs need a threshold from validation."
        )
    worst = min(asked, key=lambda one: one.choice.accuracy)
    return words if choice.by_chance else f"{words} Worst is {worst.name} with {in_percent(worst.choice.accuracy)}."
