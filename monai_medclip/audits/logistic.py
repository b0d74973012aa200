"""What a straight line through any features can tell: logistic regression, its strength chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

__all__ = ["STRENGTHS", "LogisticFit", "fit_logistic"]

Array = NDArray[np.float64]
Fold = tuple[NDArray[np.int_], NDArray[np.int_]]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C on standardized features: larger is less regularized


class LogisticFit(NamedTuple):
    """One line per finding; standardization is part of it, so it takes features as they are."""

    names: tuple[str, ...]  # F findings
    weight: Array  # (F, D)
    bias: Array  # (F,)
    strength: tuple[float, ...]  # F, the C that cross-validation chose

    def scores(self, features: ArrayLike) -> Array:
        """Logits (N, F) of features (N, D)."""
        return np.asarray(features, np.float64) @ self.weight.T + self.bias


def fit_logistic(
    features: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    groups: ArrayLike | None = None,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    class_weight: str | None = None,
    scale_by: ArrayLike | None = None,
    seed: int = 0,
) -> LogisticFit:
    """Fits each finding by itself; the strength with the best mean AUC over folds of patients is taken.

    Args:
        features: (N, D), finite.
        labels: (N, F) of 1, 0 or NaN (unknown: left out of that finding).
        names: F findings.
        groups: (N,) patients, who stay in one fold. None: every item is its own.
        strengths: scikit-learn's C to choose from; a single one is taken as it is, and the middle one where patients
            with both classes are too entangled for any fold to hold both.
        folds: of the cross-validation; fewer where a class has fewer patients.
        class_weight: ``"balanced"`` or None, as scikit-learn's.
        scale_by: (M, D) features, whose labels nobody needs, to standardize by: a few items' own deviations mean
            nothing. None: the items that are fitted on.
        seed: of the folds.

    Raises:
        ValueError: shapes that do not agree, features that are not finite, or a finding with fewer than two patients of
            a class: it cannot be cross-validated. With a single strength one patient of each is enough. Labels other
            than 1, 0 and NaN.
    """
    table, truth = np.asarray(features, np.float64), np.asarray(labels, np.float64)
    if table.ndim != 2 or truth.shape != (len(table), len(names)):
        raise ValueError(f"features {table.shape} and labels {truth.shape} must be (N, D) and (N, {len(names)}).")
    if not np.isfinite(table).all():
        bad = int((~np.isfinite(table)).any(axis=1).sum())
        raise ValueError(f"the features of {bad} of {len(table)} items hold NaN or infinity: embed them again.")
    patients = np.arange(len(table)) if groups is None else np.asarray(groups)
    if len(patients) != len(table):
        raise ValueError(f"groups has {len(patients)} entries for {len(table)} items: give one patient per item.")
    scaler = None if scale_by is None else StandardScaler().fit(np.asarray(scale_by, np.float64))
    fits = [
        _fit(table, truth[:, f], patients, name, strengths, folds, class_weight, scaler, seed)
        for f, name in enumerate(names)
    ]
    weight, bias, strength = zip(*fits, strict=True)
    return LogisticFit(tuple(names), np.stack(weight), np.array(bias), tuple(strength))


def _fit(
    table: Array,
    truth: Array,
    patients: NDArray[np.generic],
    name: str,
    strengths: Sequence[float],
    folds: int,
    class_weight: str | None,
    scaler: StandardScaler | None,
    seed: int,
) -> tuple[Array, float, float]:
    known = ~np.isnan(truth)
    other = np.setdiff1d(truth[known], (0, 1))
    if len(other):
        raise ValueError(f"finding {name!r} has the labels {other[:3].tolist()}: write 1, 0, or NaN for unknown.")
    x, y, groups = table[known], truth[known].astype(int), patients[known]
    fewest, needed = min(len(np.unique(groups[y == value])) for value in (0, 1)), min(2, len(strengths))
    if fewest < needed:
        raise ValueError(
            f"finding {name!r} has {int((y == 1).sum())} positive and {int((y == 0).sum())} negative training items, "
            f"with {fewest} patients in the smaller class: a probe needs at least {needed} patients of each. Add "
            "cases, or leave the finding out."
        )
    scaler = StandardScaler().fit(x) if scaler is None else scaler
    scaled = scaler.transform(x)
    line = LogisticRegression(class_weight=class_weight, max_iter=1000, warm_start=True)
    parts = _folds(y, groups, min(folds, fewest), seed) if len(strengths) > 1 else []
    strength = _best_strength(line, scaled, y, parts, sorted(strengths))
    model = line.set_params(C=strength, warm_start=False).fit(scaled, y)
    weight = model.coef_[0] / scaler.scale_
    return weight, float(model.intercept_[0] - weight @ scaler.mean_), float(strength)


def _folds(y: NDArray[np.int_], groups: NDArray[np.generic], folds: int, seed: int) -> list[Fold]:
    """Rows to fit on and rows to ask, by folds of patients that hold both classes in proportion.

    scikit-learn's ``StratifiedGroupKFold`` takes seconds for thousands of patients; here a patient counts as positive
    with one positive item.
    """
    patients, member = np.unique(groups, return_inverse=True)
    positive = np.zeros(len(patients), int)
    np.maximum.at(positive, member, y)
    if min(np.bincount(positive, minlength=2)) < folds:
        return []
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(positive[:, None], positive)
    found = [(np.flatnonzero(np.isin(member, fit)), np.flatnonzero(np.isin(member, ask))) for fit, ask in splits]
    return [fold for fold in found if all(len(np.unique(y[rows])) == 2 for rows in fold)]


def _best_strength(
    line: LogisticRegression, x: Array, y: NDArray[np.int_], folds: Sequence[Fold], strengths: Sequence[float]
) -> float:
    """The one with the best mean AUC over the folds; the middle one without folds."""
    if not folds:
        return strengths[len(strengths) // 2]
    aucs = np.zeros((len(folds), len(strengths)))
    for number, (fit, ask) in enumerate(folds):
        for place, strength in enumerate(strengths):  # each starts from the one before
            model = line.set_params(C=strength).fit(x[fit], y[fit])
            aucs[number, place] = roc_auc_score(y[ask], model.decision_function(x[ask]))
    return strengths[int(aucs.mean(axis=0).argmax())]
