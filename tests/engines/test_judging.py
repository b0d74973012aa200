"""Judging: what is chosen on validation stays whatever the test labels say, and figures are those of the metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from monai_medclip.engines import Embeddings, check_findings, judge, score_rows, thresholds
from monai_medclip.metrics import calibration, classification, fit_temperature, holm, subgroups

NAMES = ("nodule", "mass")
NAN = math.nan


def labeled(labels: np.ndarray, prefix: str = "i") -> Embeddings:
    """Two items per patient; nothing but labels, ids and patients is looked at."""
    count, empty = len(labels), torch.zeros(len(labels), 0)
    ids = tuple(f"{prefix}{n}" for n in range(count))
    patients = tuple(f"{prefix}p{n // 2}" for n in range(count))
    return Embeddings(empty, empty, torch.arange(count), torch.tensor(labels).float(), ids, patients)


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels that agree, mostly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 2)).astype(float)
    return rng.normal(size=(count, 2)) + 2 * labels - 1, labels


def test_figures_are_those_of_the_metrics_at_thresholds_and_temperatures_from_validation() -> None:
    (fit, known), (asked, truth) = drawn(60, 0), drawn(40, 1)
    test = labeled(truth)
    sexes = {"sex": ["f", "m"] * 20}
    found = judge(NAMES, fit, labeled(known), asked, test, covariates=sexes, bootstrap=20)
    cuts, groups = thresholds(fit, known), np.array(test.patients)
    expected = classification(asked, truth, NAMES, groups=groups, threshold=cuts, bootstrap=20)
    assert found.report == expected
    assert [one.threshold for one in found.report.findings] == cuts
    for f, name in enumerate(NAMES):
        one = found.calibrated[f]
        assert one.temperature == pytest.approx(fit_temperature(fit[:, f], known[:, f]))
        assert np.allclose(found.probabilities[:, f], expit(asked[:, f] / one.temperature))
        assert one.before == calibration(expit(asked[:, f]), truth[:, f], groups=groups, bootstrap=20)
        assert one.after == calibration(found.probabilities[:, f], truth[:, f], groups=groups, bootstrap=20)
        alone = subgroups(asked[:, f], truth[:, f], sexes, groups=groups, bootstrap=20)
        own = found.by_subgroup[name]
        assert [row._replace(adjusted_p_value=0.0) for row in own] == [
            row._replace(adjusted_p_value=0.0) for row in alone
        ]
    every = [row for rows in found.by_subgroup.values() for row in rows]
    assert [row.adjusted_p_value for row in every] == holm([row.p_value for row in every]).tolist()
    flat = found.as_dict()
    assert flat["nodule_auc"] == expected.findings[0].auc
    assert flat["calibration"]["mass"]["ece_after"] == found.calibrated[1].after.ece
    assert [row["value"] for row in flat["subgroups"]["mass"]] == ["f", "m"]


def test_thresholds_and_temperatures_know_nothing_of_the_test_labels() -> None:
    (fit, known), (asked, truth) = drawn(60, 0), drawn(40, 1)
    one = judge(NAMES, fit, labeled(known), asked, labeled(truth), bootstrap=0)
    other = judge(NAMES, fit, labeled(known), asked, labeled(1 - truth), bootstrap=0)
    assert [f.threshold for f in one.report.findings] == [f.threshold for f in other.report.findings]
    assert [f.temperature for f in one.calibrated] == [f.temperature for f in other.calibrated]
    assert np.array_equal(one.probabilities, other.probabilities)
    assert one.report.macro_auc == pytest.approx(1 - other.report.macro_auc)
    swapped = judge(NAMES, fit, labeled(1 - known), asked, labeled(truth), bootstrap=0)
    assert [f.threshold for f in one.report.findings] != [f.threshold for f in swapped.report.findings]


def test_youdens_threshold_is_the_lowest_score_that_is_called_and_zero_where_a_class_is_missing() -> None:
    logits = np.array([[-2.0, 5.0], [-1.0, 6.0], [1.0, 7.0], [3.0, 8.0]])
    labels = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, NAN], [1.0, 1.0]])
    assert thresholds(logits, labels) == [1.0, 0.0]


def test_without_a_temperature_the_probability_is_the_sigmoid_and_the_reason_is_told() -> None:
    logits = np.array([[-1.0], [1.0], [2.0], [-2.0]])
    val = labeled(np.ones((4, 1)))
    found = judge(["nodule"], logits, val, logits, labeled(np.array([[0.0], [1.0], [NAN], [0.0]])), bootstrap=0)
    (one,) = found.calibrated
    assert one.temperature is None
    assert "items of both classes" in one.why_not
    assert np.allclose(found.probabilities, expit(logits))
    assert one.before == one.after
    assert one.before.items == 3
    unknown = judge(["nodule"], logits, val, logits, labeled(np.full((4, 1), NAN)), bootstrap=0)
    assert unknown.calibrated[0].before is None
    assert set(unknown.calibrated[0].as_dict()) == {"temperature", "why_not"}


def test_rows_say_label_logit_probability_and_whether_it_is_called() -> None:
    fit, known = np.array([[-1.0], [1.0], [2.0], [-0.5]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    test = labeled(np.array([[1.0], [NAN]]))
    found = judge(["nodule"], fit, labeled(known), np.array([[-0.5], [-0.6]]), test, bootstrap=0)
    rows = score_rows(test, found)
    assert [list(row) for row in rows] == [
        ["id", "patient_id", "nodule label", "nodule logit", "nodule probability", "nodule called"]
    ] * 2
    assert found.report.findings[0].threshold == -0.5  # called from there on
    assert [row["nodule called"] for row in rows] == [1, 0]
    assert [row["nodule label"] for row in rows] == [1, ""]
    assert [row["id"] for row in rows] == ["i0", "i1"]
    assert rows[0]["patient_id"] == rows[1]["patient_id"] == "ip0"
    assert rows[0]["nodule logit"] == -0.5
    assert rows[0]["nodule probability"] == found.probabilities[0, 0]


def test_no_resamples_no_subgroups() -> None:
    logits, labels = drawn(20, 0)
    found = judge(NAMES, logits, labeled(labels), logits, labeled(labels), covariates={"sex": ["f"] * 20}, bootstrap=0)
    assert found.by_subgroup == {}
    assert found.report.macro_auc_interval is None


@pytest.mark.parametrize(
    ("fit", "known"), [((4, 2), (4, 1)), ((3, 1), (4, 1)), ((4, 1), (4, 2))], ids=["findings", "items", "labels"]
)
def test_validation_that_does_not_fit_is_an_error(fit: tuple[int, int], known: tuple[int, int]) -> None:
    asked = np.zeros((4, fit[1]))
    with pytest.raises(ValueError, match=r"validation logits .* must both be \(V, F\)"):
        judge(NAMES[: fit[1]], np.zeros(fit), labeled(np.ones(known)), asked, labeled(np.ones((4, fit[1]))))


def test_scores_that_are_not_finite_are_an_error() -> None:
    logits, labels = drawn(8, 0)
    broken = np.where(np.arange(8)[:, None] == 3, NAN, logits)
    with pytest.raises(ValueError, match="finite"):
        judge(NAMES, broken, labeled(labels), logits, labeled(labels))
    with pytest.raises(ValueError, match="logits hold NaN"):
        judge(NAMES, logits, labeled(labels), broken, labeled(labels), bootstrap=0)


def test_a_finding_that_no_item_has_is_refused_with_those_that_there_are() -> None:
    items = {"train": [{"label": [1.0, 0.0], "labels": ["Nodule"]}], "test": [{"label": [0.0, NAN], "labels": []}]}
    check_findings(["nodule"], items)
    with pytest.raises(ValueError, match=r"no item of 2 has the finding 'mass'.*\['Nodule'\]"):
        check_findings(["nodule", "mass"], items)
