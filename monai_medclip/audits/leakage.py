"""Is the answer in the input? What text alone, image alone, both, and mismatched pairs tell, beside the majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_medclip.audits.logistic import fit_logistic
from monai_medclip.audits.result import AuditResult
from monai_medclip.audits.text_baseline import checked_labels, holds_answer, label_table, text_scores, texts_of
from monai_medclip.metrics import ClassificationReport, FindingReport, Interval, classification
from monai_medclip.metrics.classification import (
    as_array,
    column_means,
    patient_numbers,
    patient_resamples,
    percentile_interval,
    resampled_figures,
)

__all__ = ["INPUT_KINDS", "another_patients", "leakage"]

Array = NDArray[np.float64]
Item = Mapping[str, Any]
Sections = tuple[str, ...]

INPUT_KINDS: tuple[Sections, ...] = (
    ("text",),
    ("findings",),
    ("impression",),
    ("indication",),
    ("indication", "findings"),  # what the published multimodal probe reads
)
COLUMNS = ("input", "leaky", "finding", "auc", "auc_low", "auc_high", "accuracy", "items", "positives")
_WORDS = {"text": "whole text"}


class _Input(NamedTuple):
    """What one kind of input tells."""

    name: str
    leaky: bool
    scores: Array  # (M, F) logits of the test items, NaN where an item has no such input
    report: ClassificationReport  # of the test items that have one

    @property
    def figure(self) -> str:
        """AUC and its interval in words."""
        return _figure(self.report.macro_auc, self.report.macro_auc_interval)


class _Excess(NamedTuple):
    """Macro AUC of one input less that of another, on the test items that have both."""

    value: float
    interval: Interval | None

    @property
    def is_sure(self) -> bool:
        """The interval lies above 0; without one, the difference itself."""
        return (self.value if self.interval is None else self.interval.low) > 0


class _Sides(NamedTuple):
    """Training and test items with what every baseline needs of them."""

    train: Sequence[Item]
    test: Sequence[Item]
    names: tuple[str, ...]
    bootstrap: int
    seed: int

    def judged(self, name: str, scores: Array, *, leaky: bool = False) -> _Input:
        """The report of the test items that have scores."""
        told = _there(scores)
        kept = [item for item, there in zip(self.test, told, strict=True) if there]
        report = classification(
            scores[told],
            label_table(kept, self.names),
            self.names,
            groups=_patients(kept),
            bootstrap=self.bootstrap,
            generator=self.seed,
        )
        return _Input(name, leaky, scores, report)


def leakage(
    train: Sequence[Item],
    test: Sequence[Item],
    names: Sequence[str],
    *,
    image_train: ArrayLike | None = None,
    image_test: ArrayLike | None = None,
    text_train: ArrayLike | None = None,
    text_test: ArrayLike | None = None,
    model_reads: Sequence[str] | None = None,
    sections_tested: Sequence[Sequence[str]] = INPUT_KINDS,
    bootstrap: int = 1000,
    seed: int = 0,
) -> AuditResult:
    """Macro AUC over the findings, and each finding's, of everything that could explain a probe's figure.

    The inputs: none (the majority class); the words of each kind of section alone (TF-IDF); the image alone, and image
    and text together (logistic regression on the embeddings); and the latter with another patient's text in the test
    items, then in the training items too. Kinds of sections that a class of training items or every test item lacks
    have no row, and the verdict names them.

    It warns if the model reads text and (1) that text holds findings or impression (`leaky`), or (2) the words alone
    rank better than the image alone: the interval of the difference, on the same test items and the same resamples of
    patients, lies above 0. A model that reads the image alone is never warned of; the rows say what it is spared.

    Args:
        train: N items with ``label`` (F values of 1, 0, NaN) and ``patient_id``, and, if any, ``text``, ``sections``.
        test: M items, likewise.
        names: F findings in the order of the labels.
        image_train: (N, E) embeddings, in the order of the items; None: without the rows that need the image.
        image_test: (M, E).
        text_train: (N, E) embeddings of what the model reads, likewise.
        text_test: (M, E).
        model_reads: sections that the model at hand is fed beside the image, empty for none. None: ``("text",)`` if
            there are text embeddings, else none.
        sections_tested: kinds of text input (`report_text`), each a list of sections.
        bootstrap: resamples of patients for the 95 % intervals; 0 gives none.
        seed: of the resamples, the folds, and who gets whose text.

    Returns:
        Rows with the columns input, leaky, finding ("macro" or a name), auc (0 to 1, NaN without both classes on
        test), auc_low, auc_high, accuracy (of the majority class, which its AUC of 0.5 does not show; None for the
        others, which are fitted to rank), items and positives (None for "macro"), on test.

    Raises:
        ValueError: no test item, an unknown section, labels that do not fit the names, a finding with fewer than two
            training patients of a class, embeddings that do not fit the items, or test items of a single patient when
            pairs are to be shuffled.
    """
    if not len(train) or not len(test):
        raise ValueError(f"{len(train)} training and {len(test)} test items: give some of both.")
    truth = checked_labels(train, names)
    sides = _Sides(train, test, tuple(names), bootstrap, seed)
    images = _embeddings("image", image_train, image_test, sides)
    texts = _embeddings("text", text_train, text_test, sides)
    reads = tuple(("text",) if texts else ()) if model_reads is None else tuple(model_reads)
    kinds = list(dict.fromkeys([*map(tuple, sections_tested), *([reads] if reads else [])]))
    alone = {kind: _text_only(kind, sides) for kind in kinds}
    told = {kind: one for kind, one in alone.items() if one is not None}
    seen = _image_only(images, truth, sides) if images else None
    both = _pairs(images, texts, truth, sides, leaky=_leaky(reads or ("text",), sides)) if images and texts else ()
    majority, inputs = _majority(truth, sides), [*told.values(), *([seen] if seen else []), *both]
    rows = _rows(majority, votes=True) + [row for one in inputs for row in _rows(one)]
    read, missing = told.get(reads), [_name(kind) for kind, one in alone.items() if one is None]
    excess = _excess(read, seen, sides) if read and seen else None
    leaks = bool(reads) and _leaky(reads, sides)
    verdict = [_on_text(reads, leaks, told, excess), _on_images(seen, both), _on_gaps(majority, missing)]
    return AuditResult(
        "leakage",
        " ".join(sentence for sentence in verdict if sentence),
        tuple(rows),
        leaks or (excess is not None and excess.is_sure),
    )


def another_patients(patients: Sequence[str], *, seed: int) -> NDArray[np.int_]:
    """For each of N items the position (N,) of an item of another patient, drawn uniformly with replacement.

    Raises:
        ValueError: there is one patient only.
    """
    numbers = patient_numbers(patients, len(patients))
    if len(np.unique(numbers)) < 2:
        raise ValueError(f"all {len(numbers)} items are of one patient: there is no other whose text they could get.")
    generator = np.random.default_rng(seed)
    chosen = np.arange(len(numbers))
    while len(own := np.flatnonzero(numbers[chosen] == numbers)):
        chosen[own] = generator.integers(len(numbers), size=len(own))
    return chosen


def _majority(truth: Array, sides: _Sides) -> _Input:
    """The class that most training items have, for every test item: it ranks none above another."""
    votes = np.where(np.nanmean(truth, axis=0) >= 0.5, 1.0, -1.0)
    return sides.judged("majority class", np.tile(votes, (len(sides.test), 1)))


def _text_only(kind: Sections, sides: _Sides) -> _Input | None:
    """None where no test item, or fewer than two training patients of a class, have such a text."""
    told = [item for item, text in zip(sides.train, texts_of(sides.train, kind), strict=True) if text]
    if not any(texts_of(sides.test, kind)) or not _fits(told, sides.names):
        return None
    scores = text_scores(told, sides.test, sides.names, kind)
    return sides.judged(f"{_name(kind)} alone", scores, leaky=_leaky(kind, sides))


def _image_only(images: tuple[Array, Array], truth: Array, sides: _Sides) -> _Input:
    return sides.judged("image alone", _probe(images[0], truth, sides)(images[1]))


def _pairs(
    images: tuple[Array, Array], texts: tuple[Array, Array], truth: Array, sides: _Sides, *, leaky: bool
) -> tuple[_Input, ...]:
    """Image and text of one patient; with another patient's text in the test items; and in the training items too."""
    swapped = [texts[k][another_patients(_patients(side), seed=sides.seed)] for k, side in enumerate(sides[:2])]
    matched = np.hstack([images[1], texts[1]])
    mismatched = np.hstack([images[1], swapped[1]])
    probe = _probe(np.hstack([images[0], texts[0]]), truth, sides)
    blind = _probe(np.hstack([images[0], swapped[0]]), truth, sides)
    return (
        sides.judged("image + text", probe(matched), leaky=leaky),
        sides.judged("image + another patient's text, in test", probe(mismatched), leaky=False),
        sides.judged("image + another patient's text, in training and test", blind(mismatched), leaky=False),
    )


def _probe(features: Array, truth: Array, sides: _Sides) -> Any:
    return fit_logistic(features, truth, sides.names, groups=_patients(sides.train), seed=sides.seed).scores


def _excess(one: _Input, other: _Input, sides: _Sides) -> _Excess:
    both = _there(one.scores) & _there(other.scores)
    kept = [item for item, there in zip(sides.test, both, strict=True) if there]
    truth, numbers = label_table(kept, sides.names), patient_numbers(_patients(kept), len(kept))
    drawn = patient_resamples(numbers, sides.bootstrap, sides.seed)
    counts = np.vstack([np.ones((1, len(kept))), drawn])  # the items themselves, then the resamples of patients
    aucs = [
        column_means(np.array([resampled_figures(score, label, counts)[0] for score, label in zip(side.T, truth.T)]))
        for side in (one.scores[both], other.scores[both])
    ]
    differences = aucs[0] - aucs[1]  # (1 + R,)
    return _Excess(float(differences[0]), percentile_interval(differences[1:]))


def _embeddings(
    what: str, train: ArrayLike | None, test: ArrayLike | None, sides: _Sides
) -> tuple[Array, Array] | None:
    if train is None and test is None:
        return None
    if train is None or test is None:
        raise ValueError(f"{what} embeddings of one side only: give {what}_train and {what}_test, or neither.")
    fit, ask = as_array(train), as_array(test)
    if fit.ndim != 2 or ask.shape != (len(sides.test), fit.shape[1]) or len(fit) != len(sides.train):
        raise ValueError(
            f"{what} embeddings {fit.shape} and {ask.shape} for {len(sides.train)} training and {len(sides.test)} test "
            "items: give one row per item, of one length on both sides."
        )
    return fit, ask


def _fits(items: Sequence[Item], names: Sequence[str]) -> bool:
    """Whether these training items could fit a baseline of every finding."""
    try:
        checked_labels(items, names)
    except ValueError:
        return False
    return True


def _rows(one: _Input, *, votes: bool = False) -> list[dict[str, Any]]:
    """The macro figure and each finding's; with the accuracy for one that votes and does not rank."""
    report = one.report
    macro = ("macro", report.macro_auc, report.macro_auc_interval, report.macro_accuracy, report.items, None)
    each = [(f.name, f.auc, f.auc_interval, f.accuracy, _known(f), f.positives) for f in report.findings]
    rows = []
    for finding, auc, interval, accuracy, items, positives in (macro, *each):
        low, high = interval or (None, None)
        values = (one.name, one.leaky, finding, auc, low, high, accuracy if votes else None, items, positives)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _known(found: FindingReport) -> int:
    return found.positives + found.negatives


def _on_text(reads: Sections, leaks: bool, told: Mapping[Sections, _Input], excess: _Excess | None) -> str:
    if not reads:
        best = max(told.items(), key=lambda pair: np.nan_to_num(pair[1].report.macro_auc), default=None)
        if best is None:
            return "The model reads no text, and there is none to test."
        return f"The words of the {_name(best[0])} alone would give AUC {best[1].figure}; the model reads no text."
    if reads not in told:
        held = "findings or impression" if leaks else "neither findings nor impression"
        return f"The model reads the {_name(reads)}, which holds {held}; too few items have it to test it alone."
    report = told[reads].report
    said = f"The words of the {_name(reads)} alone give AUC {told[reads].figure}"
    if not leaks:
        said += "; they are neither findings nor impression."
    elif (report.macro_auc_interval.low if report.macro_auc_interval else report.macro_auc) > 0.5:
        said += ": a probe that reads them is read the answer."
    else:
        said += ", though they hold what the reader of the image found."
    if excess is not None and excess.is_sure:
        said += f" That is {_figure(excess.value, excess.interval)} more than the image alone gives."
    return said


def _on_images(seen: _Input | None, both: Sequence[_Input]) -> str:
    if seen is None:
        return "Without image embeddings the image alone was not tested."
    said = f"The image alone gives {seen.figure}"
    if both:
        said += f", image and text {both[0].figure}, and {both[1].figure} with another patient's text"
    return said + "."


def _on_gaps(majority: _Input, missing: Sequence[str]) -> str:
    """What has no figure, and why."""
    single = [found.name for found in majority.report.findings if not (found.positives and found.negatives)]
    parts = [f"No AUC for {', '.join(single)}: the test items have one class only."] if single else []
    if missing:
        parts.append(f"Not tested, as too few items have it: {', '.join(missing)}.")
    return " ".join(parts)


def _there(scores: Array) -> NDArray[np.bool_]:
    """Which items have a score for every finding, (M,)."""
    return np.asarray(np.isfinite(scores).all(axis=1), dtype=bool)


def _leaky(kind: Sections, sides: _Sides) -> bool:
    return holds_answer([*sides.train, *sides.test], kind)


def _patients(items: Sequence[Item]) -> list[str]:
    return [str(item["patient_id"]) for item in items]


def _name(kind: Sequence[str]) -> str:
    return " + ".join(_WORDS.get(name, name) for name in kind)


def _figure(value: float, interval: Interval | None) -> str:
    if np.isnan(value):
        return "unknown"
    return f"{value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")
