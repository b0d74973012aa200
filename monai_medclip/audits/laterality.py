"""Does the model tell left from right? A finding with its side against the same with the other side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_medclip.audits.choices import CLEAR, Choice, chosen, draw_patients, in_percent, mean_choice, or_none
from monai_medclip.audits.known_sides import KnownSides, known_sides
from monai_medclip.audits.result import AuditResult
from monai_medclip.findings import Finding
from monai_medclip.metrics.classification import Interval, percentile_interval
from monai_medclip.networks import CLIP, prompt_directions
from monai_medclip.networks.zero_shot import as_findings
from monai_medclip.outputs import TokenBatch

__all__ = ["LATERALITY_TEMPLATES", "laterality_audit"]

Item = Mapping[str, Any]
Tokenizer = Callable[[list[str]], TokenBatch]
Sides = Mapping[str, Mapping[str, str]]

LATERALITY_TEMPLATES: tuple[str, ...] = (
    "{Side} {finding}.",
    "{Side}-sided {finding}.",
    "There is a {side} {finding}.",
    "{Side} {finding} is present.",
    "{finding} on the {side}.",
)


class _Asked(NamedTuple):
    """One finding, left against right."""

    name: str
    choice: Choice
    swapped: float  # share of the items with a side whose answer turns around in the mirror; NaN without mirrors
    swapped_interval: Interval | None
    swapped_draws: NDArray[np.float64]  # (R,)


def laterality_audit(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    items: Sequence[Item],
    findings: Sequence[Finding | str | Mapping[str, Any]],
    *,
    sides: Sides | None = None,
    flipped: Tensor | None = None,
    templates: Sequence[str] = LATERALITY_TEMPLATES,
    bootstrap: int = 1000,
    generator: np.random.Generator | int = 0,
) -> AuditResult:
    """Which text is nearer to an image with a left effusion, "left pleural effusion" or "right pleural effusion"?

    The texts of all templates are averaged per side. Images of both sides count the same, so that a model which always
    says one side gets 0.5. In the mirror an answer must turn around: a model that reads the side from anything but the
    image's geometry keeps it. (The heart lies on the right in a mirrored chest, which no model has been trained on.)

    Args:
        clip: the network that embedded the images.
        tokenizer: list of texts -> TokenBatch.
        image: (N, E) unit embeddings of the items.
        items: N items with ``id`` and, for the intervals, ``patient_id``.
        findings: by name, as Finding, or as a config's mapping; only their names are used.
        sides: item id -> finding -> "left" or "right"; None: `known_sides`.
        flipped: (N, E) embeddings of the same images, mirrored left to right; None leaves that test out.
        templates: with ``{side}`` or ``{Side}``, and ``{finding}``.
        bootstrap: resamples of patients; 0 gives no intervals.
        generator: numpy generator or its seed.

    Returns:
        One row per finding and one for their mean: how many images have it on the ``left`` and the ``right``, how often
        the answer is right on each, ``accuracy`` as their mean (0 to 1, chance 0.5) with its interval, and the share of
        answers that are ``swapped`` in the mirror. Without any known side there is no row, and the verdict says so. It
        warns where the mean may be chance, or is below 0.75, or where fewer than 0.75 are swapped.

    Raises:
        ValueError: shapes that do not agree, or a side other than left and right.
    """
    names = tuple(finding.name for finding in as_findings(findings))
    if len(image) != len(items) or (flipped is not None and flipped.shape != image.shape):
        mirrors = None if flipped is None else tuple(flipped.shape)
        raise ValueError(f"image {tuple(image.shape)} and flipped {mirrors} must have one row per item ({len(items)}).")
    known = (
        known_sides(items, names) if sides is None else KnownSides("the caller", {k: dict(v) for k, v in sides.items()})
    )
    truth = _truth(items, names, known)  # (N, F)
    aside = int(np.isnan(truth).all(axis=1).sum())
    counts = draw_patients(
        [str(item.get("patient_id", item["id"])) for item in items], len(items), bootstrap, generator
    )
    asked = [
        _ask(clip, tokenizer, image, flipped, truth[:, f], name, templates, counts)
        for f, name in enumerate(names)
        if not np.isnan(truth[:, f]).all()
    ]
    mean = mean_choice([one.choice for one in asked])
    if mean is None:
        verdict = (
            f"No finding is known to lie on the left in some of these {len(items)} images and on the right in others: "
            "whether the model tells left from right is unknown."
        )
        return AuditResult("laterality", verdict, tuple(_row(one) for one in asked), False)
    both = [one for one in asked if one.choice.positives and one.choice.negatives]
    total = _total(mean, both)
    warning = mean.by_chance or mean.accuracy < CLEAR or total.swapped < CLEAR
    rows = tuple(_row(one) for one in [*asked, total])
    return AuditResult("laterality", _verdict(total, both, known.source, aside, len(items)), rows, warning)


def _truth(items: Sequence[Item], names: Sequence[str], known: KnownSides) -> NDArray[np.float64]:
    """1 for left, 0 for right, NaN where no side is known."""
    values = {"left": 1.0, "right": 0.0}
    truth = np.full((len(items), len(names)), np.nan)
    for n, item in enumerate(items):
        for f, name in enumerate(names):
            side = known.by_id.get(str(item["id"]), {}).get(name)
            if side is not None and side not in values:
                raise ValueError(
                    f"item {item['id']} has {name} on side {side!r}: use 'left' or 'right', or leave it out."
                )
            truth[n, f] = values[side] if side is not None else np.nan
    return truth


def _ask(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    flipped: Tensor | None,
    truth: NDArray[np.float64],
    name: str,
    templates: Sequence[str],
    counts: NDArray[np.float64],
) -> _Asked:
    left, right = (
        tuple(one.format(side=side, Side=side.capitalize(), finding=name) for one in templates)
        for side in ("left", "right")
    )
    direction = prompt_directions(clip, [Finding(name, left, right)], tokenizer, "positive_minus_negative")[0]
    score = _along(image, direction)
    choice = chosen(score, truth, counts)
    if flipped is None:
        return _Asked(name, choice, float("nan"), None, np.full(len(counts), np.nan))
    known = ~np.isnan(truth)
    turned = (score * _along(flipped, direction) < 0)[known].astype(np.float64)
    drawn = counts[:, known].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.where(drawn > 0, counts[:, known] @ turned / drawn, np.nan)
    return _Asked(name, choice, float(turned.mean()), percentile_interval(draws), draws)


def _along(image: Tensor, direction: Tensor) -> NDArray[np.float64]:
    scores = image.detach().cpu().double() @ direction.cpu().double()
    return torch.Tensor.numpy(scores).astype(np.float64)


def _total(mean: Choice, asked: Sequence[_Asked]) -> _Asked:
    draws = np.mean([one.swapped_draws for one in asked], axis=0)
    swapped = float(np.mean([one.swapped for one in asked]))
    return _Asked("mean", mean, swapped, percentile_interval(draws), draws)


def _row(one: _Asked) -> dict[str, Any]:
    swapped = one.swapped_interval
    return {
        "finding": one.name,
        "left": one.choice.positives,
        "right": one.choice.negatives,
        "correct left": or_none(one.choice.right_positive),
        "correct right": or_none(one.choice.right_negative),
        **one.choice.columns(),
        "swapped": or_none(one.swapped),
        "swapped low": swapped.low if swapped else None,
        "swapped high": swapped.high if swapped else None,
    }


def _verdict(total: _Asked, asked: Sequence[_Asked], source: str, aside: int, items: int) -> str:
    choice = total.choice
    tells = "tells left from right" if choice.accuracy >= CLEAR else "hardly tells left from right"
    words = (
        f"The model {'does not tell left from right' if choice.by_chance else tells}: of two sides it names the "
        f"finding's in {choice.told()}, both sides counted alike (chance 50 %, mean of {len(asked)} finding(s))."
    )
    if not np.isnan(total.swapped):
        words += f" In mirrored images {in_percent(total.swapped)} of its answers turn around, as they must."
    origin = "the reports' sentences, which are no ground truth" if source == "reports" else source
    return f"{words} Sides are from {origin}; {aside} of {items} images have none and were left out."
