"""Glossary: the terms of a report in words that need no statistics, and only those that it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from monai_medclip.writers.figures_page import Section
from monai_medclip.writers.tables import Table, cell_text

__all__ = ["glossary", "terms_in"]


# In alphabetical order, which is the order on the page.
_MEANINGS = {
    "accuracy": "Share of images that were called rightly. Where a finding is rare, always saying no scores high.",
    "AUC": "Area under the ROC curve: how often an image with the finding scores higher than one without it. "
    "1 is perfect, 0.5 is guessing.",
    "average precision": "Mean precision while going down the images from the highest score. 1 is perfect; guessing "
    "gets the share of images that have the finding.",
    "balanced accuracy": "Mean of the accuracies within each class, so that rare classes count as much as frequent "
    "ones. Guessing gets 0.5 with two classes.",
    "baseline": "What a far simpler method reaches on the same images.",
    "Brier score": "Mean squared gap between probability and truth; 0 is best.",
    "calibration": "Whether probabilities mean what they say: of the images given 80 %, 80 in 100 should have the "
    "finding. The calibration error (ECE) is the mean gap; 0 is best.",
    "ceiling": "The best figure that any model could reach here, for example because reports repeat.",
    "chance": "What a model reaches that knows nothing and guesses.",
    "confusion matrix": "Counts of images by true class (rows) and by the class that the model chose (columns).",
    "cosine": "How alike two embeddings are: 1 the same, 0 unrelated, -1 opposite.",
    "de-duplicated": "Retrieval in which every wording stands once, so that a repeated report counts once.",
    "embedding": "The list of numbers by which the model stands for an image or a text.",
    "F1": "Harmonic mean of precision and sensitivity; 1 is perfect.",
    "few-shot": "How well a probe does after it has seen only a few labeled cases.",
    "interval": "95 % interval, in brackets: where the figure stays in 95 of 100 repetitions with patients drawn "
    "anew from those at hand. A wide one says that there were few patients.",
    "leakage": "The input holds the answer, such as a report that names the finding; the figure then says nothing "
    "about images.",
    "log loss": "Penalty for probabilities that are far from the truth; 0 is best, confident errors cost most.",
    "macro": "Mean over the findings, each counting the same however rare.",
    "median rank": "Half of the queries find their right answer at this place or before; 1 is best.",
    "MRR": "Mean reciprocal rank: the mean of 1 / place of the right answer; 1 is best.",
    "precision": "Of the images that were called positive, the share that has the finding.",
    "probe": "A small classifier trained on the embeddings of a model that itself stays as it is.",
    "prompt": "The words by which a finding is asked for.",
    "recall@k": "Share of queries whose right answer is among the first k that were found.",
    "ROC curve": "Sensitivity against false alarms for every threshold that one could choose.",
    "sensitivity": "Of the images with the finding, the share that was called positive.",
    "shortcut": "Something that goes with the answer and is no anatomy: image size, view, brightness, padding.",
    "specificity": "Of the images without the finding, the share that was called negative.",
    "strict": "Retrieval in which only the image's very own report is right, even if another reads the same.",
    "threshold": "The score from which on an image is called positive.",
    "tie-aware": "Retrieval in which any report with the same wording is right.",
    "zero-shot": "The model is asked in words and has been shown no label.",
}
# How text names a term, where that is more than the term itself and its plural; without regard to case.
_PATTERNS = {
    "Brier score": "Brier",
    "calibration": r"calibrat\w+|ECE",
    "de-duplicated": "de-?duplicated",
    "few-shot": "few-shot|cases per class",
    "interval": r"intervals?|\[-?\d[\d.]*, -?\d[\d.]*\]",
    "leakage": r"leak\w*",
    "log loss": "log loss|cross-entropy",
    "precision": "(?<!average )precision",
    "recall@k": r"recall ?@ ?\w+|R@\d+",
    "ROC curve": "ROC",
    "tie-aware": "tie[- ]aware",
}


def glossary(terms: Iterable[str]) -> Section:
    """The section that explains terms, in alphabetical order.

    Args:
        terms: of those that are known; see `terms_in`.

    Raises:
        ValueError: no term, or one that is not known.
    """
    asked = set(terms)
    unknown = sorted(asked - set(_MEANINGS))
    if unknown or not asked:
        raise ValueError(f"no meaning is known for {unknown}: choose at least one of {', '.join(_MEANINGS)}.")
    rows = [[term, meaning] for term, meaning in _MEANINGS.items() if term in asked]
    return Section("What the words mean", tables=[Table(["term", "meaning"], rows, "Terms used on this page")])


def terms_in(sections: Sequence[Section], summary: Sequence[str] = ()) -> tuple[str, ...]:
    """The known terms that a page's words use, in alphabetical order.

    Args:
        sections: of the page; titles, paragraphs, tables and captions are searched.
        summary: the page's first paragraphs.
    """
    words = "\n".join([*summary, *(word for section in sections for word in _words(section))])
    return tuple(term for term in _MEANINGS if re.search(_pattern(term), words, re.IGNORECASE))


def _pattern(term: str) -> str:
    return rf"(?<!\w)(?:{_PATTERNS.get(term, re.escape(term) + 's?')})(?!\w)"


def _words(section: Section) -> Iterator[str]:
    yield from (section.title, *section.paragraphs)
    for table in section.tables:
        yield from (table.caption, *map(str, table.columns), *(cell_text(cell) for row in table.rows for cell in row))
    for picture in section.pictures:
        yield from (picture.caption, picture.alt)
