"""Subgroups: figures of the subgroup alone, a planted weakness is found, and chance findings are not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_medclip.metrics import classification, subgroups


def cases(items: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels, sex and patients, two images each; scores of one sex say nothing."""
    generator = np.random.default_rng(seed)
    patients = np.repeat(np.arange(items // 2), 2)
    sex = np.where(patients % 2 == 0, "F", "M")
    labels = np.repeat(generator.random(items // 2) < 0.4, 2).astype(float)
    scores = generator.normal(size=items) + np.where(sex == "F", 2.0, 0.0) * labels
    return scores, labels, sex, patients


def test_each_row_is_the_subgroup_alone_and_against_the_rest() -> None:
    scores, labels, sex, patients = cases()
    women, men = subgroups(scores, labels, {"sex": sex.tolist()}, groups=patients, bootstrap=500)
    female = sex == "F"
    assert (women.covariate, women.value, women.items) == ("sex", "F", int(female.sum()))
    assert women.positives == labels[female].sum()
    assert women.auc == pytest.approx(roc_auc_score(labels[female], scores[female]))
    assert women.difference == pytest.approx(women.auc - men.auc) == pytest.approx(-men.difference)
    alone = classification(scores[female, None], labels[female, None], ["x"], groups=patients[female], bootstrap=500)
    low, high = alone.findings[0].auc_interval  # type: ignore[misc]
    assert women.auc_interval == pytest.approx((low, high), abs=0.01)
    assert men.difference_interval is not None
    assert men.difference_interval.high < 0
    assert women.adjusted_p_value == men.adjusted_p_value == pytest.approx(2 * 2 / 501)


def test_chance_differences_are_corrected_for_their_number() -> None:
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(40):
        labels = (generator.random(300) < 0.4).astype(float)
        scores = generator.normal(size=300) + labels
        covariates = {name: generator.integers(0, 3, 300).tolist() for name in ("view", "sex", "site")}
        rows = subgroups(scores, labels, covariates, bootstrap=200)
        assert all(row.adjusted_p_value >= row.p_value for row in rows)
        alarms += min(row.adjusted_p_value for row in rows) < 0.05
    assert alarms <= 6


def test_unknown_values_and_missing_classes_have_no_figures() -> None:
    scores, labels, sex, _ = cases()
    with_gaps = [None if number < 100 else value for number, value in enumerate(sex)]
    rows = subgroups(scores, labels, {"sex": with_gaps, "site": ["A"] * 600}, bootstrap=50)
    assert [row.value for row in rows] == ["F", "M", "A"]
    assert rows[0].items + rows[1].items == 500
    assert np.isnan([rows[2].difference, rows[2].p_value, rows[2].adjusted_p_value]).all()
    assert rows[2].auc == pytest.approx(roc_auc_score(labels, scores))
    (only_positives, _) = subgroups(scores, labels, {"label": labels.tolist()}, bootstrap=50)
    assert np.isnan(only_positives.auc)
    assert only_positives.auc_interval is None
    with pytest.raises(ValueError, match="covariate 'sex' has 3 values for 600 items"):
        subgroups(scores, labels, {"sex": ["F", "M", "F"]})
    with pytest.raises(ValueError, match="one finite score"):
        subgroups(scores[:5], labels, {})


def test_a_group_of_few_patients_has_an_auc_and_no_p_value() -> None:
    labels = np.array([1, 0, *([1, 0] * 20)], float)
    scores = np.array([2.0, 1.0, *np.random.default_rng(0).normal(size=40)])
    few, many = subgroups(scores, labels, {"age band": ["0 to 17"] * 2 + ["18 to 39"] * 40}, bootstrap=100)
    assert few.auc == 1.0  # as it would be in every resample that holds both
    assert np.isnan([few.p_value, few.adjusted_p_value, many.p_value]).all()
    assert few.difference_interval is many.difference_interval is None
