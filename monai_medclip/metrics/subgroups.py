"""Does it work as well for everybody: AUC by subgroup, against the rest, corrected for how many were compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_medclip.metrics.classification import (
    Interval,
    as_array,
    auc_or_nan,
    patient_resamples,
    percentile_interval,
    resampled_figures,
)
from monai_medclip.metrics.comparison import holm

__all__ = ["Subgroup", "subgroups"]

FEWEST = 5  # patients per class, in the group and in the rest, below which the bootstrap cannot tell a difference


class Subgroup(NamedTuple):
    """One value of one covariate; figures are NaN and None where a class is missing in it or in the rest."""

    covariate: str
    value: str
    items: int  # with a known label
    positives: int
    auc: float
    auc_interval: Interval | None
    difference: float  # its AUC minus that of all other items
    difference_interval: Interval | None
    # Two-sided, by the bootstrap, of no difference; not below 2 / (resamples + 1). NaN, as the difference's interval is
    # None, where a class has fewer than five patients in the group or in the rest.
    p_value: float
    adjusted_p_value: float  # by Holm, over all rows that have one


def subgroups(
    scores: ArrayLike,
    labels: ArrayLike,
    covariates: Mapping[str, Sequence[Any]],
    *,
    groups: ArrayLike | None = None,
    bootstrap: int = 2000,
    generator: np.random.Generator | int = 0,
) -> tuple[Subgroup, ...]:
    """One finding's AUC in every subgroup and against the rest, with intervals from resampling patients.

    Args:
        scores: (B,) higher supports the finding.
        labels: (B,) of 1, 0 or NaN (unknown: left out).
        covariates: such as ``{"sex": [...], "view": [...], "age band": [...]}``, B values each; items whose value
            is None or empty are in no subgroup of that covariate, nor in its rest.
        groups: (B,) patients; the bootstrap resamples them. None: every item is its own.
        bootstrap: number of resamples.
        generator: numpy generator or its seed.

    Returns:
        Rows by covariate and value, in order of first appearance. A covariate with a single value has nothing to be
        compared with: its row has no difference.

    Raises:
        ValueError: lengths that do not agree, or scores that are not finite.
    """
    score, truth = as_array(scores), as_array(labels)
    patients = np.unique(np.arange(len(score)) if groups is None else as_array(groups, None), return_inverse=True)[1]
    if score.ndim != 1 or truth.shape != score.shape or len(patients) != len(score) or not np.isfinite(score).all():
        raise ValueError(f"one finite score, label and patient per item: not {score.shape}, {truth.shape}.")
    counts = patient_resamples(patients, bootstrap, generator)  # (R, B)
    rows = []
    for name, given in covariates.items():
        if len(given) != len(score):
            raise ValueError(f"covariate {name!r} has {len(given)} values for {len(score)} items.")
        values = np.array(["" if value is None else str(value) for value in given])
        for value in dict.fromkeys(values[values != ""].tolist()):
            rows.append(
                _row(name, value, values == value, (values != value) & (values != ""), score, truth, counts, patients)
            )
    tested = [number for number, row in enumerate(rows) if np.isfinite(row.p_value)]
    for number, adjusted in zip(tested, holm([rows[number].p_value for number in tested]), strict=True):
        rows[number] = rows[number]._replace(adjusted_p_value=float(adjusted))
    return tuple(rows)


def _row(
    name: str,
    value: str,
    inside: NDArray[np.bool_],
    outside: NDArray[np.bool_],
    scores: NDArray[np.float64],
    truth: NDArray[np.float64],
    counts: NDArray[np.float64],
    patients: NDArray[np.int_],
) -> Subgroup:
    known = inside & ~np.isnan(truth)
    rest = outside & ~np.isnan(truth)
    auc, other = auc_or_nan(scores[known], truth[known]), auc_or_nan(scores[rest], truth[rest])
    draws = resampled_figures(scores[known], truth[known], counts[:, known])[0]
    differences = draws - resampled_figures(scores[rest], truth[rest], counts[:, rest])[0]
    differences = differences[np.isfinite(differences)]
    p_value = np.nan
    classes = [patients[side & (truth == label)] for side in (known, rest) for label in (0, 1)]
    enough = min(len(np.unique(of_class)) for of_class in classes) >= FEWEST
    if enough and len(differences):
        below, above = (differences <= 0).sum(), (differences >= 0).sum()
        p_value = float(min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1)))
    return Subgroup(
        name,
        value,
        int(known.sum()),
        int(truth[known].sum()),
        auc,
        percentile_interval(draws),
        auc - other,
        percentile_interval(differences) if enough else None,
        p_value,
        np.nan,
    )
