"""Report grounding: each sentence of a report gets its own map on the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_medclip.explainers.base import Explainer, uncompiled
from monai_medclip.findings import Finding
from monai_medclip.outputs import TokenBatch

__all__ = ["Grounding", "ReportGrounding"]


class Grounding(NamedTuple):
    """Where in one image each sentence of its report lies."""

    sentences: tuple[str, ...]  # S sentences, in the order given
    spans: Tensor  # (S, 2) int64 characters of the original report, end exclusive
    scores: Tensor  # (1, S) float32, logits (or cosines) of image and sentence
    heatmap: Tensor  # (1, S, *spatial) float32; high supports the sentence


class ReportGrounding:
    """Asks one image for all sentences of a report at once.

    The sentences become the directions of a zero-shot classifier (its positive rule), so an explainer that needs one
    forward pass of the image for a finding needs one for the whole report; each map equals the one of its sentence
    asked alone.

    Args:
        explainer: any explainer of classifiers.
        tokenizer: list of texts -> TokenBatch, the CLIP's own; a sentence longer than its limit is cut.
    """

    def __init__(self, explainer: Explainer, tokenizer: Callable[[list[str]], TokenBatch]) -> None:
        """See the class."""
        self.explainer = explainer
        self.tokenizer = tokenizer

    def __call__(self, clip: Any, image: Tensor, sentences: Sequence[str], spans: Sequence[Sequence[int]]) -> Grounding:
        """Ground the sentences of one report.

        Args:
            clip: a CLIP, also compiled.
            image: (1, C, *spatial), as it takes it.
            sentences: S texts as the network should read them, none blank.
            spans: S pairs (start, end), where each sentence stands in the original report; handed on as they are.

        Raises:
            TypeError: the explainer cannot explain this CLIP.
            ValueError: more than one image, no sentence, a blank one, or not one span each.
        """
        if len(image) != 1:
            raise ValueError(f"A report is grounded on one image, not on {len(image)}: pass them one by one.")
        if not sentences or len(spans) != len(sentences) or not all(sentence.strip() for sentence in sentences):
            raise ValueError(
                f"{len(sentences)} sentences and {len(spans)} spans: give at least one sentence, none blank, and a "
                "(start, end) for each."
            )
        findings = [Finding(sentence, positive=(sentence,), negative=()) for sentence in sentences]
        network = uncompiled(clip)  # torch.compile's wrapper has no classifier to give
        classifier = network.classifier(findings, self._tokens, rule="positive")
        heatmap, scores = self.explainer.explain(classifier, image)
        places = torch.tensor([[int(place) for place in span] for span in spans], dtype=torch.int64).view(-1, 2)
        return Grounding(tuple(sentences), places, scores, heatmap)

    def _tokens(self, texts: list[str]) -> TokenBatch:
        """The tokenizer without its length check: a sentence of a report is cut where a prompt would be refused."""
        return self.tokenizer(texts)
