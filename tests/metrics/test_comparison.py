"""DeLong against its definition, clusters against copies of items, Holm against a worked example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from monai_medclip.metrics import delong, holm


def scores(items: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(items) < 0.4).astype(float)
    shared = generator.normal(size=items) + labels
    return (shared + generator.normal(size=items)).round(1), (shared + labels).round(1), labels  # with ties


def test_delong_is_the_covariance_of_structural_components() -> None:
    a, b, labels = scores()
    positive, negative = labels == 1, labels == 0
    components = []
    for one in (a, b):
        psi = (one[positive, None] > one[None, negative]) + 0.5 * (one[positive, None] == one[None, negative])
        components.append((psi.mean(1), psi.mean(0)))
    s10 = np.cov([components[0][0], components[1][0]])
    s01 = np.cov([components[0][1], components[1][1]])
    covariance = s10 / positive.sum() + s01 / negative.sum()
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = delong(a, b, labels)
    assert found.auc_a == pytest.approx(roc_auc_score(labels, a))
    assert found.auc_b == pytest.approx(roc_auc_score(labels, b))
    assert found.standard_error == pytest.approx(error)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.difference) / error))
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.959964 * error, rel=1e-5)
    assert (found.items, found.groups) == (60, 60)


def test_copies_of_a_patients_images_add_no_evidence() -> None:
    a, b, labels = scores()
    once = delong(a, b, labels)
    patients = np.repeat(np.arange(60), 3)
    thrice = delong(*(np.repeat(values, 3) for values in (a, b, labels)), groups=patients)
    assert thrice.standard_error == pytest.approx(once.standard_error)
    assert (thrice.items, thrice.groups) == (180, 60)
    naive = delong(*(np.repeat(values, 3) for values in (a, b, labels)))
    assert naive.standard_error < 0.7 * once.standard_error


def test_patients_with_both_kinds_of_images_follow_obuchowskis_sums() -> None:
    a, b, labels = scores()
    patients = np.arange(60) // 4
    positive, negative = labels == 1, labels == 0
    m, n, count = positive.sum(), negative.sum(), 15
    sums = []
    for one in (a, b):
        psi = (one[positive, None] > one[None, negative]) + 0.5 * (one[positive, None] == one[None, negative])
        theta = psi.mean()
        of_positives = [(psi.mean(1) - theta)[patients[positive] == k].sum() for k in range(count)]
        of_negatives = [(psi.mean(0) - theta)[patients[negative] == k].sum() for k in range(count)]
        sums.append((np.array(of_positives), np.array(of_negatives)))
    with_positive, with_negative = len(set(patients[positive])), len(set(patients[negative]))

    def covariance(r: int, s: int) -> float:
        s10 = with_positive / ((with_positive - 1) * m) * (sums[r][0] @ sums[s][0])
        s01 = with_negative / ((with_negative - 1) * n) * (sums[r][1] @ sums[s][1])
        mixed = count / (count - 1) * (sums[r][0] @ sums[s][1] + sums[s][0] @ sums[r][1])
        return s10 / m + s01 / n + mixed / (m * n)

    expected = np.sqrt(covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1))
    assert delong(a, b, labels, groups=patients).standard_error == pytest.approx(expected)


def test_false_alarms_are_as_rare_as_stated() -> None:
    generator = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        patients = np.repeat(np.arange(60), 2)
        labels = np.repeat(generator.random(60) < 0.5, 2).astype(float)
        patient = np.repeat(generator.normal(size=60), 2) + labels
        a, b = (patient + generator.normal(size=120) for _ in range(2))
        alarms += delong(a, b, labels, groups=patients).p_value < 0.05
    assert 0.02 <= alarms / 400 <= 0.09


def test_equal_scores_do_not_differ_and_unknown_labels_are_left_out() -> None:
    a, b, labels = scores()
    same = delong(a, 3 * a + 1, labels)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    unknown = labels.copy()
    unknown[:20] = np.nan
    a[:20] = np.nan
    assert delong(a, b, unknown) == delong(a[20:], b[20:], labels[20:])


def test_bad_input_is_refused() -> None:
    a, b, labels = scores()
    with pytest.raises(ValueError, match="one score, label and patient"):
        delong(a[1:], b, labels)
    with pytest.raises(ValueError, match="finite"):
        delong(np.full(60, np.inf), b, labels)
    with pytest.raises(ValueError, match=r"1 patient\(s\) with a positive item"):
        delong(a, b, labels, groups=np.where(labels == 1, 0, np.arange(60)))


def test_holm_by_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="from 0 to 1"):
        holm([0.5, np.nan])
