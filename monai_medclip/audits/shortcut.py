"""Is it the image that decides? What the same straight line reaches on inputs that show no anatomy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from monai_medclip.audits.logistic import LogisticFit, fit_logistic
from monai_medclip.audits.result import AuditResult
from monai_medclip.audits.shortcut_features import METADATA, ShortcutInput, shortcut_inputs
from monai_medclip.audits.text_baseline import label_table
from monai_medclip.metrics.classification import ClassificationReport, Interval, classification
from monai_medclip.transforms import CheckedDataset

__all__ = ["judge_shortcuts", "shortcuts"]

NAME = "shortcuts"
UNTESTED = "No input without anatomy could be tested on these items, so nothing is known about shortcuts."
MODEL = "the model"
MACRO = "macro"
UNPROVEN = "leaves unproven"  # column: what a model that does no better has not shown
REACHED = 0.9  # share of the model's lead over chance from which on a figure shows nothing that the input does not
PARTLY = 0.5  # share that is worth a sentence
NEARLY_DECIDED = 0.9  # AUC without anatomy that is a warning before any model is known

Array = NDArray[np.float64]
Row = Mapping[str, Any]


def shortcuts(
    train: CheckedDataset,
    test: CheckedDataset,
    names: Sequence[str],
    *,
    encoder: nn.Module | None = None,
    size_column: str | None = None,
    metadata: Sequence[str] = METADATA,
    image_key: str = "image",
    fit: Callable[..., LogisticFit] = fit_logistic,
    bootstrap: int = 1000,
    seed: int = 0,
) -> AuditResult:
    """Fits a logistic regression to every input that shows no anatomy, and asks it on the test items.

    The inputs are 24 x 24 pixels (of volumes the mean over slices), the size of the file, intensity statistics, the
    histogram, an untrained copy of the encoder, padding, the patient's data, and the size of the lesion where it is
    known. What a model does not do better than the best of them, it need not have seen in the image. Two may stand in
    the table without being rivals, see `shortcut_inputs`: no verdict rests on them.

    Args:
        train: items with images, ``label`` (F values) and ``patient_id``; random transforms are not applied.
        test: likewise.
        names: F findings in the order of the labels; those without two patients of each class in train are left out.
        encoder: whose architecture is asked with random weights; None leaves that input out.
        size_column: where items hold a lesion's size, see `shortcut_inputs`.
        metadata: columns of the patient and the view.
        image_key: entry that is fed as the image.
        fit: `fit_logistic`, or a partial of it with the probe's own ``strengths`` or ``class_weight``; a config makes
            one by ``"_mode_": "callable"``.
        bootstrap: resamples of patients for the 95 % intervals; 0 gives none.
        seed: of folds, resamples and random weights.

    Returns:
        One row per input: ``input``, ``reads``, ``leaves unproven`` (None for what is no rival), ``macro AUC``, ``macro
        low``, ``macro high`` and the same three of each finding, 0 to 1 and None where there is none. See
        `judge_shortcuts` for the model.

    Raises:
        ValueError: labels that do not fit the names.
    """
    labels, truth = label_table(train.data, names), label_table(test.data, names)
    groups, asked = _patients(train), _patients(test)
    fittable = [f for f in range(len(names)) if _has_both_classes(labels[:, f], groups)]
    known = [names[f] for f in fittable]
    inputs = shortcut_inputs(
        train, test, encoder=encoder, size_column=size_column, metadata=metadata, image_key=image_key, seed=seed
    )
    rows = []
    for one in inputs if known else ():
        line = fit(one.train, labels[:, fittable], known, groups=groups, seed=seed)
        report = classification(
            line.scores(one.test), truth[:, fittable], known, groups=asked, bootstrap=bootstrap, generator=seed
        )
        rows.append(_row(one, report, names))
    return _unjudged(tuple(rows), names)


def judge_shortcuts(result: AuditResult, model: ClassificationReport) -> AuditResult:
    """Sets the model's own figures beside the inputs without anatomy and says in words what fell to which.

    A finding has fallen to an input that is above chance and whose AUC reaches the lower end of the model's interval,
    or nine tenths of its lead over chance; from half of the lead on it is named. The best of several inputs is taken,
    and the two intervals are not paired: on few test items both err towards a warning.

    Args:
        result: of `shortcuts`.
        model: a probe's or zero-shot model's figures on the same test items, with intervals.

    Returns:
        The audit with the model as the first row; it warns when a finding has fallen.

    Raises:
        ValueError: findings of the model that the audit does not have.
    """
    names = [one.name for one in model.findings]
    unknown = [name for name in names if result.rows and f"{name} AUC" not in result.rows[0]]
    if unknown:
        raise ValueError(f"the audit has no finding {unknown}: run it with the names of the model's findings.")
    verdicts = [_verdict(one.name, one.auc, one.auc_interval, result.rows) for one in model.findings]
    text = " ".join(verdict.text for verdict in verdicts if verdict.text) or _nothing_fell(model, result.rows)
    own = _figures(model, names)
    columns = list(result.rows[0]) if result.rows else []
    first = {"input": MODEL, "reads": "the whole image", **own}
    rows = ({column: first.get(column) for column in columns}, *result.rows) if columns else ()
    return AuditResult(NAME, text, rows, any(verdict.fallen for verdict in verdicts))


class _Verdict(NamedTuple):
    text: str  # empty where there is nothing to say
    fallen: bool


def _verdict(name: str, auc: float, interval: Interval | None, rows: Sequence[Row]) -> _Verdict:
    best = _best(name, rows)
    if best is None or auc != auc:
        return _Verdict("", False)
    reached, low = float(best[f"{name} AUC"]), min(auc, auc if interval is None else interval.low)
    above = float(best[f"{name} low"] or reached) > 0.5
    what = f"{best['input']} (AUC {reached:.3f})"
    if low <= 0.5:
        beside = f", while {what} alone is above it" if above else ""
        return _Verdict(f"{name}: the model (AUC {auc:.3f}) is not above chance{beside}.", above)
    share = (reached - 0.5) / (auc - 0.5)
    if above and (reached >= low or share >= REACHED):
        better = "better than" if reached > auc else "as well as"
        text = f"{name} is decided by {what} {better} by the model ({auc:.3f}): "
        return _Verdict(text + f"this figure is no evidence of {best[UNPROVEN]}.", True)
    if share >= PARTLY:
        lead = f"{share:.0%} of the model's lead over chance (AUC {auc:.3f})"
        return _Verdict(f"{name}: {what} reaches {lead}; only the rest is evidence of {best[UNPROVEN]}.", False)
    return _Verdict("", False)


def _nothing_fell(model: ClassificationReport, rows: Sequence[Row]) -> str:
    best = _best(MACRO, rows)
    if best is None:
        return UNTESTED
    if model.macro_auc != model.macro_auc:
        return "The model has no AUC on these items, since a class is missing: there is nothing to compare."
    nearest = f"the best of them, {best['input']}, has {best[f'{MACRO} AUC']:.3f}"
    return f"No input without anatomy comes near the model's macro AUC of {model.macro_auc:.3f}; {nearest}."


def _unjudged(rows: tuple[Row, ...], names: Sequence[str]) -> AuditResult:
    """The verdict while no model is known."""
    best = {name: found for name in names if (found := _best(name, rows)) is not None}
    if not best:
        return AuditResult(NAME, UNTESTED, rows, False)
    parts = [f"{name} {found[f'{name} AUC']:.3f} by {found['input']}" for name, found in best.items()]
    near = [name for name, found in best.items() if found[f"{name} AUC"] >= NEARLY_DECIDED]
    text = f"A logistic regression on inputs that show no anatomy in detail reaches these AUCs: {'; '.join(parts)}."
    warning = f" {', '.join(near)}: such an input nearly decides it." if near else ""
    return AuditResult(NAME, text + warning, rows, bool(near))


def _best(name: str, rows: Sequence[Row]) -> Row | None:
    """The input with the largest AUC for a finding, among the model's rivals."""
    rivals = [row for row in rows if row[UNPROVEN] and row[f"{name} AUC"] is not None]
    return max(rivals, key=lambda row: float(row[f"{name} AUC"]), default=None)


def _row(one: ShortcutInput, report: ClassificationReport, names: Sequence[str]) -> Row:
    about = {"input": one.name, "reads": one.reads, UNPROVEN: one.unproven or None}
    return {**about, **_figures(report, names)}


def _figures(report: ClassificationReport, names: Sequence[str]) -> dict[str, float | None]:
    """The macro AUC and that of each finding with their intervals; None for findings that the report lacks."""
    known = {one.name: (one.auc, one.auc_interval) for one in report.findings}
    told = {MACRO: (report.macro_auc, report.macro_auc_interval), **{name: known.get(name) for name in names}}
    figures: dict[str, float | None] = {}
    for name, pair in told.items():
        auc, interval = pair or (float("nan"), None)
        figures[f"{name} AUC"] = None if auc != auc else float(auc)
        figures[f"{name} low"], figures[f"{name} high"] = interval or (None, None)
    return figures


def _patients(dataset: CheckedDataset) -> NDArray[np.str_]:
    return np.array([str(item["patient_id"]) for item in dataset.data])


def _has_both_classes(truth: Array, patients: NDArray[np.str_]) -> bool:
    return min(len(np.unique(patients[truth == value])) for value in (0, 1)) >= 2
