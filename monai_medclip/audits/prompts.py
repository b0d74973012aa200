"""How much a figure depends on wording: every single prompt of a finding beside the ensemble and the prompt rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from monai_medclip.audits.choices import draw_patients, is_sentence, or_none
from monai_medclip.audits.result import AuditResult
from monai_medclip.findings import Finding
from monai_medclip.metrics.classification import (
    Interval,
    as_array,
    auc_or_nan,
    percentile_interval,
    resampled_figures,
)
from monai_medclip.networks import CLIP, PROMPT_RULES, prompt_directions
from monai_medclip.networks.zero_shot import as_findings, encode_prompts
from monai_medclip.outputs import TokenBatch

__all__ = ["GENERIC_TEMPLATES", "PromptFigures", "prompt_audit", "prompt_figures"]

Array = NDArray[np.float64]
Tokenizer = Callable[[list[str]], TokenBatch]

GENERIC_TEMPLATES: tuple[str, ...] = (
    "{}",
    "There is {}.",
    "{} is present.",
    "Findings consistent with {}.",
    "An image that shows {}.",
)
SPREAD = 0.05  # AUC between the best and the worst wording, above which a single prompt's figure says little


class PromptFigures(NamedTuple):
    """One finding's AUC by every way to ask for it; NaN where a class is missing."""

    finding: str
    positives: int
    negatives: int
    prompts: tuple[str, ...]  # P single prompts: the finding's own, then the generic ones
    auc: tuple[float, ...]  # P, 0 to 1
    rules: dict[str, float]  # prompt rule -> AUC; "positive" is the ensemble; rules without prompts are not in it
    ensemble_interval: Interval | None
    spread_interval: Interval | None  # of best minus worst; both were found on these images, so it is not below 0

    @property
    def worst(self) -> int:
        """Which single prompt has the lowest AUC."""
        return int(np.argmin(self.auc))

    @property
    def best(self) -> int:
        """Which single prompt has the highest AUC."""
        return int(np.argmax(self.auc))

    @property
    def spread(self) -> float:
        """Highest minus lowest AUC of the single prompts, 0 to 1."""
        return self.auc[self.best] - self.auc[self.worst]


def prompt_figures(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Tensor,
    label: ArrayLike,
    findings: Sequence[Finding | str | Mapping[str, Any]],
    *,
    patients: Sequence[str] | None = None,
    templates: Sequence[str] = GENERIC_TEMPLATES,
    bootstrap: int = 1000,
    generator: np.random.Generator | int = 0,
) -> tuple[PromptFigures, ...]:
    """AUC of every single prompt, of the ensemble and of the prompt rules, for each of F findings.

    Args:
        clip: the network that embedded the images.
        tokenizer: list of texts -> TokenBatch.
        image: (N, E) unit embeddings.
        label: (N, F) of 1, 0 or NaN (unknown: left out of that finding).
        findings: by name, as Finding, or as a config's mapping; their positive prompts are asked one by one.
        patients: N, resampled for the intervals; None: every image is its own.
        templates: further prompts, each with one ``{}`` for the name; left out where the name is a sentence.
        bootstrap: resamples; 0 gives no intervals.
        generator: numpy generator or its seed.

    Raises:
        ValueError: shapes that do not agree.
    """
    known, truth = as_findings(findings), as_array(label)
    if truth.shape != (len(image), len(known)):
        raise ValueError(f"label {truth.shape} must be ({len(image)}, {len(known)}), one column per finding.")
    counts = draw_patients(patients, len(image), bootstrap, generator)
    embedded: Array = as_array(image)
    return tuple(
        _figures(clip, tokenizer, embedded, truth[:, f], one, templates, counts) for f, one in enumerate(known)
    )


def prompt_audit(figures: Sequence[PromptFigures]) -> AuditResult:
    """How far the AUC moves when only the wording of the question changes.

    Args:
        figures: of `prompt_figures`, on validation embeddings: who reads this table is tempted to choose by it.

    Returns:
        One row per finding: how many single prompts there are, the lowest, median and highest AUC among them, their
        standard deviation, the spread (highest minus lowest) with its interval, the ensemble's AUC with its interval,
        and one column per prompt rule. It warns where the mean spread is above 0.05.
    """
    rows = tuple(_row(one) for one in figures)
    judged = [one for one in figures if one.positives and one.negatives]
    if not judged:
        verdict = "No finding is both present and absent in these images: how much the wording matters is unknown."
        return AuditResult("prompts", verdict, rows, False)
    return AuditResult("prompts", _verdict(judged), rows, float(np.mean([one.spread for one in judged])) > SPREAD)


def _figures(
    clip: CLIP,
    tokenizer: Tokenizer,
    image: Array,
    truth: Array,
    finding: Finding,
    templates: Sequence[str],
    counts: Array,
) -> PromptFigures:
    known = ~np.isnan(truth)
    answer, seen, weights = truth[known], image[known], counts[:, known]
    generic = [] if is_sentence(finding.name) else [template.format(finding.name) for template in templates]
    prompts = tuple(dict.fromkeys([*finding.positive, *generic]))
    single = seen @ as_array(encode_prompts(clip, prompts, tokenizer)).T  # (N, P)
    auc = tuple(auc_or_nan(single[:, p], answer) for p in range(len(prompts)))
    by_rule = {rule: seen @ direction for rule, direction in _rules(clip, tokenizer, finding).items()}
    ends = [resampled_figures(single[:, p], answer, weights)[0] for p in (int(np.argmax(auc)), int(np.argmin(auc)))]
    return PromptFigures(
        finding.name,
        int((answer == 1).sum()),
        int((answer == 0).sum()),
        prompts,
        auc,
        {rule: auc_or_nan(scores, answer) for rule, scores in by_rule.items()},
        percentile_interval(resampled_figures(by_rule["positive"], answer, weights)[0]),
        percentile_interval(ends[0] - ends[1]),
    )


def _rules(clip: CLIP, tokenizer: Tokenizer, finding: Finding) -> dict[str, Array]:
    """Direction (E,) of every rule that the finding has prompts for."""
    rules = [rule for rule in PROMPT_RULES if rule != "positive_minus_negative" or finding.negative]
    return {rule: as_array(prompt_directions(clip, [finding], tokenizer, rule))[0] for rule in rules}


def _row(one: PromptFigures) -> dict[str, Any]:
    ensemble, spread, judged = one.ensemble_interval, one.spread_interval, bool(one.positives and one.negatives)
    return {
        "finding": one.finding,
        "with": one.positives,
        "without": one.negatives,
        "prompts": len(one.prompts),
        "lowest": or_none(one.auc[one.worst]),
        "median": or_none(float(np.median(one.auc))),
        "highest": or_none(one.auc[one.best]),
        "sd": or_none(float(np.std(one.auc))),
        "spread": or_none(one.spread),
        "spread low": spread.low if spread else None,
        "spread high": spread.high if spread else None,
        "ensemble": or_none(one.rules["positive"]),
        "ensemble low": ensemble.low if ensemble else None,
        "ensemble high": ensemble.high if ensemble else None,
        **{rule: or_none(one.rules.get(rule, np.nan)) for rule in PROMPT_RULES if rule != "positive"},
        "worst prompt": one.prompts[one.worst] if judged else None,
        "best prompt": one.prompts[one.best] if judged else None,
    }


def _verdict(figures: Sequence[PromptFigures]) -> str:
    widest = max(figures, key=lambda one: one.spread)
    median = float(np.mean([np.median(one.auc) for one in figures]))
    ensemble = float(np.mean([one.rules["positive"] for one in figures]))
    spread = float(np.mean([one.spread for one in figures]))
    return (
        f"Wording alone moves the AUC by {spread:.2f} on average, and most for {widest.finding}: "
        f"{widest.auc[widest.worst]:.2f} by {widest.prompts[widest.worst]!r}, {widest.auc[widest.best]:.2f} by "
        f"{widest.prompts[widest.best]!r}. The ensemble reaches {ensemble:.2f} where a single prompt's median is "
        f"{median:.2f} (means over {len(figures)} finding(s))."
    )
