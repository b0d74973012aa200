"""Judging scores, wherever they came from: figures at thresholds from validation, calibration, and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from ..metrics import (
    CalibrationReport,
    ClassificationReport,
    Subgroup,
    calibration,
    classification,
    fit_temperature,
    holm,
    subgroups,
    youden_threshold,
)
from .embedding import Embeddings

__all__ = ["Calibrated", "Judged", "check_findings", "judge", "score_rows", "thresholds"]

Array = NDArray[np.float64]


class Calibrated(NamedTuple):
    """What one temperature does to one finding's probabilities on the test items."""

    temperature: float | None  # None where validation allows none; the probabilities are then those before
    why_not: str  # empty with a temperature
    before: CalibrationReport | None  # None without a known label on test
    after: CalibrationReport | None

    def as_dict(self) -> dict[str, Any]:
        """Temperature and errors, before and after."""
        flat: dict[str, Any] = {"temperature": self.temperature, "why_not": self.why_not}
        for moment, report in (("before", self.before), ("after", self.after)):
            if report is not None:
                flat |= {f"{name}_{moment}": getattr(report, name) for name in ("ece", "mce", "brier")}
                for name in ("ece", "brier"):
                    interval = getattr(report, f"{name}_interval")
                    if interval is not None:
                        flat[f"{name}_{moment}_low"], flat[f"{name}_{moment}_high"] = interval
        return flat


class Judged(NamedTuple):
    """Everything that is said of F findings' scores on the test items."""

    names: tuple[str, ...]  # F
    logits: Array  # (N, F) of the test items
    probabilities: Array  # (N, F) sigmoid of the logits, at the temperature that validation chose
    report: ClassificationReport  # thresholds from validation
    calibrated: tuple[Calibrated, ...]  # F
    by_subgroup: dict[str, tuple[Subgroup, ...]]  # finding -> rows

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {
            **self.report.as_dict(),
            "calibration": {name: one.as_dict() for name, one in zip(self.names, self.calibrated, strict=True)},
            "subgroups": {name: [row._asdict() for row in rows] for name, rows in self.by_subgroup.items()},
        }


def judge(
    names: Sequence[str],
    val_logits: ArrayLike,
    val: Embeddings,
    test_logits: ArrayLike,
    test: Embeddings,
    *,
    covariates: Mapping[str, Sequence[Any]] | None = None,
    bootstrap: int = 1000,
) -> Judged:
    """Judges scores on test; thresholds and temperatures are chosen on validation.

    Args:
        names: F findings.
        val_logits: (V, F), higher supports the finding.
        val: the validation items' labels.
        test_logits: (N, F).
        test: the test items' labels and patients.
        covariates: name -> one value per test item (``data.subgroup_values``).
        bootstrap: resamples of patients for the 95 % intervals; 0 gives none, and no subgroups.

    Raises:
        ValueError: shapes that do not agree, or scores that are not finite.
    """
    fit, asked = np.asarray(val_logits, np.float64), np.asarray(test_logits, np.float64)
    known, truth, patients = val.label.double().numpy(), test.label.double().numpy(), np.array(test.patients)
    report = classification(asked, truth, names, groups=patients, threshold=thresholds(fit, known), bootstrap=bootstrap)
    calibrated = tuple(
        _calibrated(fit[:, f], known[:, f], asked[:, f], truth[:, f], patients, bootstrap) for f in range(len(names))
    )
    temperature = np.array([one.temperature or 1.0 for one in calibrated])
    rows = {
        name: subgroups(asked[:, f], truth[:, f], covariates, groups=patients, bootstrap=bootstrap)
        for f, name in enumerate(names)
        if covariates and bootstrap
    }
    return Judged(tuple(names), asked, expit(asked / temperature), report, calibrated, _corrected(rows))


def _corrected(rows: Mapping[str, tuple[Subgroup, ...]]) -> dict[str, tuple[Subgroup, ...]]:
    """Subgroups with p values corrected over all findings: `subgroups` knows of one."""
    adjusted = iter(holm([row.p_value for found in rows.values() for row in found if np.isfinite(row.p_value)]))
    return {
        name: tuple(
            row._replace(adjusted_p_value=float(next(adjusted))) if np.isfinite(row.p_value) else row for row in found
        )
        for name, found in rows.items()
    }


def check_findings(names: Sequence[str], items: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Refuses findings that no item has.

    Args:
        names: F findings in the order of the labels.
        items: split -> items with ``label`` and, if any, ``labels``.

    Raises:
        ValueError: a finding that is in no item's labels; those that are known are listed.
    """
    everyone = [item for found in items.values() for item in found]
    for f, name in enumerate(names):
        if not any(len(item.get("label", ())) > f and item["label"][f] == 1 for item in everyone):
            known = sorted({str(label) for item in everyone for label in item.get("labels", ())})
            raise ValueError(
                f"no item of {len(everyone)} has the finding {name!r}: is it written as in the labels? They are "
                f"{known[:40]}."
            )


def thresholds(logits: ArrayLike, labels: ArrayLike) -> list[float]:
    """Youden's threshold of each finding, (V, F) -> F; 0 where a class is missing. For validation items only.

    Raises:
        ValueError: shapes that do not agree, or scores that are not finite.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if scores.ndim != 2 or scores.shape != truth.shape or not np.isfinite(scores).all():
        raise ValueError(
            f"validation logits {scores.shape} and labels {truth.shape} must both be (V, F), and the logits finite: "
            "read the manifest with the findings that were scored, and look at the network's inputs and weights."
        )
    return [
        youden_threshold(scores[:, f], truth[:, f]) if {0.0, 1.0} <= set(truth[:, f]) else 0.0
        for f in range(scores.shape[1])
    ]


def score_rows(test: Embeddings, judged: Judged) -> list[dict[str, Any]]:
    """One row per test item for a CSV: of each finding its label, logit, probability, and whether it is called."""
    cuts = [one.threshold for one in judged.report.findings]
    rows = []
    for number, (item, patient) in enumerate(zip(test.ids, test.patients, strict=True)):
        row: dict[str, Any] = {"id": item, "patient_id": patient}
        for f, name in enumerate(judged.names):
            label, logit = float(test.label[number, f]), float(judged.logits[number, f])
            row |= {f"{name} label": "" if label != label else int(label), f"{name} logit": logit}
            row |= {f"{name} probability": float(judged.probabilities[number, f])}
            row |= {f"{name} called": int(logit >= cuts[f])}
        rows.append(row)
    return rows


def _calibrated(
    fit: Array, known: Array, asked: Array, truth: Array, patients: NDArray[np.str_], bootstrap: int
) -> Calibrated:
    temperature, why_not = None, ""
    try:
        temperature = fit_temperature(fit, known)
    except ValueError as error:
        why_not = str(error)
    if np.isnan(truth).all():
        return Calibrated(temperature, why_not, None, None)
    before, after = (
        calibration(expit(asked / t), truth, groups=patients, bootstrap=bootstrap) for t in (1.0, temperature or 1.0)
    )
    return Calibrated(temperature, why_not, before, after)
