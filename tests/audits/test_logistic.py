"""Logistic regression: scikit-learn's at a fixed strength, chosen over folds that keep patients whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_medclip.audits import STRENGTHS, fit_logistic
from monai_medclip.audits.logistic import _folds

NAMES = ("nodule", "mass")


def data(items: int = 80, width: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features on different scales, labels in which the first two have a say, two items per patient."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(items, width)) * [1, 50, 1, 0.01, 1] + [0, 3, -2, 0, 7]
    noise = rng.normal(size=(items, 2))
    labels = np.stack([features[:, 0] + noise[:, 0] > 0, features[:, 1] / 50 + noise[:, 1] > 0.5], axis=1)
    return features, labels.astype(float), np.arange(items) // 2


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_at_a_fixed_strength_it_is_scikit_learn_on_standardized_features(class_weight: str | None) -> None:
    features, labels, groups = data()
    labels[::7, 1] = np.nan
    found = fit_logistic(features, labels, NAMES, groups=groups, strengths=(0.1,), class_weight=class_weight)
    for f in range(2):
        known = ~np.isnan(labels[:, f])
        scaler = StandardScaler().fit(features[known])
        line = LogisticRegression(C=0.1, class_weight=class_weight, max_iter=1000)
        line.fit(scaler.transform(features[known]), labels[known, f])
        expected = line.decision_function(scaler.transform(features))
        assert np.allclose(found.scores(features)[:, f], expected, atol=1e-8)
    assert found.strength == (0.1, 0.1)
    assert (found.weight.shape, found.bias.shape) == ((2, 5), (2,))


def test_the_strength_is_among_those_to_choose_from_and_a_needless_column_changes_nothing() -> None:
    features, labels, groups = data()
    found = fit_logistic(features, labels, NAMES, groups=groups)
    assert set(found.strength) <= set(STRENGTHS)
    constant = np.concatenate([features, np.full((len(features), 1), 3.0)], axis=1)
    again = fit_logistic(constant, labels, NAMES, groups=groups)
    assert np.allclose(again.scores(constant), found.scores(features))
    assert np.allclose(again.weight[:, -1], 0)


def test_noise_is_regularized_and_signal_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([0.0, 1.0], 60)[:, None]
    # One column of signal that a weak line would drown in the noise of the others, or one that is all there is.
    among_noise = np.concatenate([labels + 0.7 * rng.normal(size=(120, 1)), rng.normal(size=(120, 100))], axis=1)
    alone = labels + 0.01 * rng.normal(size=(120, 1))
    assert fit_logistic(among_noise, labels, ["a"]).strength[0] < 1.0
    assert fit_logistic(alone, labels, ["a"]).strength[0] == min(STRENGTHS)  # all rank alike: the simplest


def test_a_patient_is_never_on_both_sides_of_a_fold() -> None:
    _, labels, groups = data()
    rng = np.random.default_rng(1)
    order = rng.permutation(len(groups))
    groups, truth = groups[order], labels[order, 0].astype(int)
    folds = _folds(truth, groups, 5, seed=0)
    assert len(folds) == 5
    for fit, ask in folds:
        assert not set(groups[fit]) & set(groups[ask])
        assert len(fit) + len(ask) == len(groups)
        assert set(truth[fit]) == set(truth[ask]) == {0, 1}
    assert sorted(np.concatenate([ask for _, ask in folds])) == list(range(len(groups)))


def test_a_twin_image_cannot_vouch_for_its_twin() -> None:
    """Noise that both images of a patient share: to learn it by heart pays only where folds split them."""
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 2.0
    columns = np.concatenate([(labels + rng.normal(size=60))[:, None], rng.normal(size=(60, 60))], axis=1)
    twins, truth, groups = columns.repeat(2, axis=0), labels.repeat(2)[:, None], np.arange(60).repeat(2)
    whole, split = fit_logistic(twins, truth, ["a"], groups=groups), fit_logistic(twins, truth, ["a"])
    assert whole.strength[0] < split.strength[0]


def test_the_same_seed_gives_the_same_fit_and_rows_may_come_in_any_order() -> None:
    features, labels, groups = data()
    one, two = (fit_logistic(features, labels, NAMES, groups=groups, seed=3) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    order = np.random.default_rng(0).permutation(len(features))
    fixed = fit_logistic(features, labels, NAMES, groups=groups, strengths=(0.1,))
    shuffled = fit_logistic(features[order], labels[order], NAMES, groups=groups[order], strengths=(0.1,))
    assert np.allclose(fixed.weight, shuffled.weight, atol=1e-5)


def test_patients_with_both_classes_leave_the_middle_strength() -> None:
    features, _, _ = data(8)
    labels = np.tile([0.0, 1.0], 4)[:, None]  # every patient has both: no fold of theirs is without
    assert fit_logistic(features, labels, ["a"], groups=np.arange(8) // 2).strength == (STRENGTHS[2],)


def test_one_patient_of_a_class_is_too_few_to_choose_and_enough_to_fit() -> None:
    features, labels, groups = data()
    labels[:, 1] = 0
    labels[:2, 1] = 1  # both of one patient
    with pytest.raises(ValueError, match=r"finding 'mass' has 2 positive and 78 negative .* at least 2 patients"):
        fit_logistic(features, labels, NAMES, groups=groups)
    assert fit_logistic(features, labels, NAMES, groups=groups, strengths=(1.0,)).strength == (1.0, 1.0)
    labels[:, 1] = 0
    with pytest.raises(ValueError, match=r"finding 'mass' has 0 positive and 80 negative .* at least 1 patients"):
        fit_logistic(features, labels, NAMES, groups=groups, strengths=(1.0,))


def test_what_does_not_fit_is_named() -> None:
    features, labels, groups = data(8)
    with pytest.raises(ValueError, match=r"features \(8, 5\) and labels \(8, 2\) must be \(N, D\) and \(N, 1\)"):
        fit_logistic(features, labels, ["nodule"])
    with pytest.raises(ValueError, match="groups has 7 entries for 8 items"):
        fit_logistic(features, labels, NAMES, groups=groups[:7])
    with pytest.raises(ValueError, match="finding 'mass' has the labels"):
        fit_logistic(features, labels - [[0, 1]], NAMES)
    features[3, 0] = np.inf
    with pytest.raises(ValueError, match="features of 1 of 8 items hold NaN or infinity"):
        fit_logistic(features, labels, NAMES)


def test_features_may_be_standardized_by_items_that_nobody_has_labeled() -> None:
    generator = np.random.default_rng(4)
    everyone = generator.normal(size=(200, 3)) * [1.0, 10.0, 0.1] + 5
    few, labels = everyone[:4], np.array([[1.0], [0.0], [1.0], [0.0]])
    found = fit_logistic(few, labels, ["nodule"], strengths=[1.0], scale_by=everyone)
    scaled = (few - everyone.mean(axis=0)) / everyone.std(axis=0)
    line = LogisticRegression(max_iter=1000).fit(scaled, labels[:, 0])
    assert found.scores(few)[:, 0] == pytest.approx(line.decision_function(scaled), abs=1e-6)
