"""Zero-shot classification of embedded items: the prompt rule is chosen on validation and judged on test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..metrics import ClassificationReport, classification
from ..networks import CLIP, PROMPT_RULES, as_findings, prompt_directions
from ..outputs import TokenBatch
from .embedding import Embeddings
from .judging import thresholds

__all__ = ["ZeroShot", "evaluate_zero_shot"]

logger = logging.getLogger(__name__)


class ZeroShot(NamedTuple):
    """Zero-shot figures on the test items."""

    names: tuple[str, ...]  # F findings
    rule: str  # prompt rule with the best macro AUC on validation
    validation: dict[str, float]  # macro AUC on validation of every rule that the findings have prompts for
    report: ClassificationReport  # test items, by the chosen rule, thresholds from validation
    name_pair: ClassificationReport  # test items, by the bare names: ``X`` against ``no X``
    logits: Tensor  # (N, F) of the test items, by the chosen rule
    val_logits: Tensor  # (V, F) of the validation items, by the chosen rule

    def as_dict(self) -> dict[str, Any]:
        """Flat figures of the chosen rule, beside them those of the name pair and of validation."""
        own = {"rule": self.rule, **self.report.as_dict()}
        return own | {"name_pair": self.name_pair.as_dict(), "validation_macro_auc": self.validation}


def evaluate_zero_shot(
    clip: CLIP,
    val: Embeddings,
    test: Embeddings,
    findings: Sequence[Any],
    tokenizer: Callable[[list[str]], TokenBatch],
    *,
    bootstrap: int = 1000,
) -> ZeroShot:
    """Chooses the prompt rule, and a threshold per finding, on validation; judges them on test.

    Args:
        clip: the network that made the embeddings.
        val: items to choose on.
        test: items to judge on.
        findings: F findings in the order of the items' labels, by name, as Finding, or as a config's mapping.
        tokenizer: list of texts -> TokenBatch.
        bootstrap: resamples of patients for the 95 % intervals, always the same ones; 0 gives no intervals.

    Raises:
        ValueError: when labels do not fit the findings, or no finding has both classes on validation.
    """
    names = tuple(finding.name for finding in as_findings(findings))
    _check_labels(names, {"val": val, "test": test})
    directions = _directions(clip, findings, tokenizer)
    logits = {rule: _logits(clip, val, found, rule) for rule, found in directions.items()}
    validation = {rule: classification(scores, val.label, names).macro_auc for rule, scores in logits.items()}
    finite = {rule: value for rule, value in validation.items() if np.isfinite(value)}
    if not finite:
        raise ValueError(f"None of {list(names)} has both classes on validation: no prompt rule can be chosen there.")
    best = max(finite, key=lambda rule: finite[rule])

    def judged(rule: str) -> ClassificationReport:
        cuts = thresholds(logits[rule], val.label)
        scores, patients = _logits(clip, test, directions[rule], rule), np.array(test.patients)
        return classification(scores, test.label, names, groups=patients, threshold=cuts, bootstrap=bootstrap)

    asked = _logits(clip, test, directions[best], best)
    return ZeroShot(names, best, validation, judged(best), judged("name_pair"), asked, logits[best])


def _directions(clip: CLIP, findings: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]:
    """(F, E) for every rule that all findings have prompts for; the rules of names always are among them."""
    known = as_findings(findings)
    without = {"positive": [one.name for one in known if not one.positive]}
    without["positive_minus_normal"] = without["positive"]
    without["positive_minus_negative"] = [one.name for one in known if not (one.positive and one.negative)]
    for rule, lacking in without.items():
        if lacking:
            logger.info("Prompt rule '%s' is left out: %s have no prompts for it.", rule, lacking)
    rules = [rule for rule in PROMPT_RULES if not without.get(rule)]
    return {rule: prompt_directions(clip, known, tokenizer, rule).cpu() for rule in rules}


def _logits(clip: CLIP, items: Embeddings, directions: Tensor, rule: str) -> Tensor:
    """What ``ZeroShotClassifier`` gives for the same images, (N, F)."""
    scale, bias = clip.logit_scale.detach().cpu(), clip.logit_bias.detach().cpu()
    logits = scale * items.image @ directions.T
    return logits + bias if rule in ("positive", "name") else logits


def _check_labels(names: Sequence[str], data: Mapping[str, Embeddings]) -> None:
    for split, part in data.items():
        if part.label.shape[1] != len(names):
            raise ValueError(
                f"The {split} items have {part.label.shape[1]} labels each for {len(names)} findings {list(names)}: "
                "read the manifest with the same findings."
            )
