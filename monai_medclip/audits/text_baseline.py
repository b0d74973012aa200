"""What the words of a report tell without its image: TF-IDF and logistic regression on any of its sections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

from monai_medclip.metrics.classification import ClassificationReport, classification
from monai_medclip.transforms.report import SECTION_HEADINGS, split_sections

__all__ = [
    "TextBaseline",
    "cross_validated_text_auc",
    "holds_answer",
    "report_text",
    "text_only_auc",
    "text_scores",
]

Array = NDArray[np.float64]
Item = Mapping[str, Any]

WHOLE = "text"  # a whole report; also what `split_sections` calls prose without a heading
ANSWERS = ("findings", "impression", WHOLE)  # where a report says what the image shows
_WORD = re.compile(r"(?u)\b\w\w+\b")  # scikit-learn's: two characters or more


class TextBaseline(NamedTuple):
    """What some sections of the reports give away by themselves."""

    sections: tuple[str, ...]
    leaky: bool  # they hold findings or impression, where the report says the answer
    report: ClassificationReport  # of the items judged
    scores: Array  # (M, F) logits of the items judged; under cross-validation 0 where the label is unknown
    ids: tuple[str, ...]  # M items judged: those with a word in these sections
    fitted: int  # items that a model was fitted on; under cross-validation all of them
    without_text: int  # items left out of the judgment, since these sections are empty

    def __str__(self) -> str:
        """One line: AUC, its interval, and of how many reports."""
        low_high = self.report.macro_auc_interval
        spread = f" [{low_high.low:.3f}, {low_high.high:.3f}]" if low_high else ""
        kind = " + ".join(self.sections) + (" (leaky)" if self.leaky else "")
        return f"{kind}: text-only macro AUC {self.report.macro_auc:.3f}{spread} of {len(self.ids)} items"


def report_text(item: Item, sections: Sequence[str]) -> str:
    """The named sections of an item's report, in the order asked for, joined by a space; empty ones are left out.

    Args:
        item: with ``sections`` (name -> text), or with ``text`` that is split at its headings (`split_sections`). A
            text without headings is only ``"text"``.
        sections: of indication, comparison, technique, findings, impression; ``"text"`` is the whole ``item["text"]``.

    Returns:
        The text; empty where the report has none of these sections.

    Raises:
        ValueError: a section that is unknown, or none asked for.
    """
    known = (WHOLE, *SECTION_HEADINGS)
    unknown = [name for name in sections if name not in known]
    if isinstance(sections, str) or unknown or not sections:
        raise ValueError(f"sections={sections!r}: give a list of some of {list(known)}.")
    parts = _sections_of(item)
    found = [
        body
        for name in sections
        for body in ([_whole(item)] if name == WHOLE else [b for title, b in parts.items() if _base(title) == name])
    ]
    return " ".join(body for body in found if body.strip())


def holds_answer(items: Sequence[Item], sections: Sequence[str]) -> bool:
    """Whether these sections say what the image shows: a probe that reads them is read the answer.

    Findings and impression do. A whole text does where it contains a findings, an impression, or prose without a
    heading; one that a reader put together from the indication alone does not.
    """
    if set(sections) & {"findings", "impression"}:
        return True
    return WHOLE in sections and any(_tells(item) for item in items)


def text_scores(
    train_items: Sequence[Item], test_items: Sequence[Item], names: Sequence[str], sections: Sequence[str]
) -> Array:
    """Logits (M, F) of M test items by TF-IDF of word unigrams and logistic regression, scikit-learn's defaults.

    On the IU reports bigrams besides rank no better at this strength. Items without a word in these sections, and those
    whose label is unknown, are not fitted on; a test item without a word has NaN.

    Args:
        train_items: with ``label`` (F values of 1, 0, NaN), ``patient_id``, and ``text`` or ``sections``.
        test_items: with ``text`` or ``sections``.
        names: F findings in the order of the labels.
        sections: see `report_text`.

    Raises:
        ValueError: an unknown section, labels that do not fit the names, or a finding with fewer than two training
            patients of a class among the items that have such a text.
    """
    words, fitted = _told(train_items, sections)
    truth = checked_labels(fitted, names)
    asked = texts_of(test_items, sections)
    told = asked != ""
    scores = np.full((len(test_items), len(names)), np.nan)
    for f in range(len(names) if told.any() else 0):
        known = ~np.isnan(truth[:, f])
        scores[told, f] = _model().fit(words[known], truth[known, f]).decision_function(asked[told])
    return scores


def text_only_auc(
    train_items: Sequence[Item],
    test_items: Sequence[Item],
    names: Sequence[str],
    sections: Sequence[str] = (WHOLE,),
    bootstrap: int = 1000,
    *,
    seed: int = 0,
) -> TextBaseline:
    """How well the words alone rank the findings of held-out items, with patient-bootstrap intervals.

    Args:
        train_items: see `text_scores`.
        test_items: likewise, with ``id``, ``label`` and ``patient_id``.
        names: F findings in the order of the labels.
        sections: see `report_text`.
        bootstrap: resamples of patients; 0 gives no intervals.
        seed: of the resamples.

    Returns:
        AUC from 0 to 1, of the test items that have such a text; NaN for a finding of which they have one class.

    Raises:
        ValueError: see `text_scores`; or no test item has such a text.
    """
    scores = text_scores(train_items, test_items, names, sections)
    _, judged = _told(test_items, sections)
    told, fitted = np.isfinite(scores).all(axis=1), int((texts_of(train_items, sections) != "").sum())
    return _judged(judged, scores[told], names, sections, fitted, len(test_items), bootstrap, seed)


def cross_validated_text_auc(
    items: Sequence[Item],
    names: Sequence[str],
    sections: Sequence[str] = (WHOLE,),
    folds: int = 5,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> TextBaseline:
    """How well the words alone rank the findings, each item judged by a model that saw none of its patient.

    Args:
        items: see `text_scores`, with ``id``.
        names: F findings in the order of the labels.
        sections: see `report_text`; items without a word in them are left out.
        folds: of patients, with the classes in proportion; fewer where a class has fewer patients.
        bootstrap: resamples of patients; 0 gives no intervals.
        seed: of the folds and the resamples.

    Returns:
        AUC from 0 to 1 over the logits of all folds together.

    Raises:
        ValueError: see `text_scores`; fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"folds={folds}: each item is judged by a model of the other folds, so give two or more.")
    words, told = _told(items, sections)
    truth = checked_labels(told, names)
    patients = np.array([str(item["patient_id"]) for item in told])
    scores = np.zeros(truth.shape)
    for f, name in enumerate(names):
        known = np.flatnonzero(~np.isnan(truth[:, f]))
        for fit, ask in _folds(truth[known, f], patients[known], name, folds, seed):
            model = _model().fit(words[known[fit]], truth[known[fit], f])
            scores[known[ask], f] = model.decision_function(words[known[ask]])
    return _judged(told, scores, names, sections, len(told), len(items), bootstrap, seed)


def texts_of(items: Sequence[Item], sections: Sequence[str]) -> NDArray[np.object_]:
    """`report_text` of N items (N,); empty where it holds no word of two characters, so that nothing can be read."""
    texts = [report_text(item, sections) for item in items]
    return np.array([text if _WORD.search(text) else "" for text in texts], dtype=object)


def checked_labels(items: Sequence[Item], names: Sequence[str]) -> Array:
    """Labels (N, F) of items to fit on.

    Raises:
        ValueError: an item whose labels do not fit the names, labels other than 0, 1 and NaN, a finding that is unknown
            in every item, or one with fewer than two patients of a class; item or finding are named.
    """
    truth = label_table(items, names)
    patients = np.array([str(item["patient_id"]) for item in items])
    for f, name in enumerate(names):
        counts = [len(np.unique(patients[truth[:, f] == value])) for value in (0, 1)]
        if not any(counts):
            raise ValueError(f"finding {name!r} is unknown in all {len(items)} training items: check its name.")
        if min(counts) < 2:
            raise ValueError(
                f"finding {name!r} has {counts[1]} training patients with it and {counts[0]} without: a baseline needs "
                "at least two of each. Add cases, or leave the finding out."
            )
    return truth


def label_table(items: Sequence[Item], names: Sequence[str]) -> Array:
    """Labels (N, F) of 1, 0 and NaN; a ValueError names an item whose labels are others."""
    for item in items:
        label = item.get("label")
        if label is None or len(label) != len(names):
            held = "no labels" if label is None else f"{len(label)} labels"
            raise ValueError(f"item {item.get('id')} has {held} for the {len(names)} findings {list(names)}.")
    truth = np.array([[float(value) for value in item["label"]] for item in items]).reshape(len(items), len(names))
    if not (np.isnan(truth) | np.isin(truth, (0, 1))).all():
        raise ValueError(f"labels must be 0, 1 or NaN (unknown), not {np.unique(truth)[:5]}.")
    return truth


def _model() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))


def _told(items: Sequence[Item], sections: Sequence[str]) -> tuple[NDArray[np.object_], list[Item]]:
    """The texts that hold a word, and their items."""
    texts = texts_of(items, sections)
    told = [item for item, text in zip(items, texts, strict=True) if text]
    if not told:
        raise ValueError(f"none of {len(items)} items has a word in {' + '.join(sections)}: ask for other sections.")
    return texts[texts != ""], told


def _folds(
    truth: Array, patients: NDArray[Any], name: str, folds: int, seed: int
) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    fewest = min(len(np.unique(patients[truth == value])) for value in (0, 1))
    splitter = StratifiedGroupKFold(min(folds, fewest), shuffle=True, random_state=seed)
    found = list(splitter.split(truth[:, None], truth.astype(int), patients))
    if any(len(np.unique(truth[fit])) < 2 for fit, _ in found):
        raise ValueError(f"finding {name!r}: no {len(found)} folds of patients hold both classes. Give fewer folds.")
    return found


def _judged(
    judged: Sequence[Item],
    scores: Array,
    names: Sequence[str],
    sections: Sequence[str],
    fitted: int,
    items: int,
    bootstrap: int,
    seed: int,
) -> TextBaseline:
    patients = [str(item["patient_id"]) for item in judged]
    truth = label_table(judged, names)
    report = classification(scores, truth, names, groups=patients, bootstrap=bootstrap, generator=seed)
    ids = tuple(str(item["id"]) for item in judged)
    leaky = holds_answer(judged, sections)
    return TextBaseline(tuple(sections), leaky, report, scores, ids, fitted, items - len(judged))


def _sections_of(item: Item) -> Mapping[str, str]:
    given = item.get("sections")
    if isinstance(given, Mapping) and given:
        return given
    return {title: section.text for title, section in split_sections(_whole(item)).items()}


def _tells(item: Item) -> bool:
    """Whether the whole text holds a findings, an impression, or prose without a heading."""
    words = _plain(_whole(item))
    answers = [_plain(body) for title, body in _sections_of(item).items() if _base(title) in ANSWERS]
    return any(answer and answer in words for answer in answers)


def _whole(item: Item) -> str:
    return str(item.get("text") or "")


def _base(title: str) -> str:
    return title.split()[0]  # the second section of a name is "findings 2"


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
