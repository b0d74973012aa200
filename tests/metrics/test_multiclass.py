"""A choice among classes: by hand, against sklearn, with patients resampled, and with classes that are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from monai_medclip.metrics import multiclass
from monai_medclip.metrics.multiclass import CLASS_FIGURES, FIGURES

NAMES = ("nevus", "melanoma", "keratosis", "vascular")


def cases(items: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, items, p=[0.5, 0.25, 0.15, 0.1])
    return generator.normal(size=(items, 4)) + 1.5 * np.eye(4)[labels], labels


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True)


def test_hand_computed_figures() -> None:
    logits = np.eye(3)[[0, 0, 1, 1, 0]]  # what is given
    report = multiclass(logits, [0, 0, 0, 1, 1], ["a", "b", "c"], on_empty="report")
    assert report.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 0))
    assert (report.accuracy, report.chance_accuracy) == (pytest.approx(3 / 5), pytest.approx(3 / 5))
    assert report.balanced_accuracy == report.macro_recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    a, b, c = report.classes
    assert (a.accuracy, a.precision, a.f1, a.specificity) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 1 / 2))
    assert (b.accuracy, b.precision, b.f1, b.specificity) == pytest.approx((1 / 2, 1 / 2, 1 / 2, 2 / 3))
    assert (a.auc, b.auc) == pytest.approx((7 / 12, 7 / 12))  # of 6 pairs 2 are right and 3 tie
    assert c.cases == 0


def test_figures_equal_sklearns() -> None:
    logits, labels = cases()
    report = multiclass(logits, labels, NAMES)
    given, probability, own = logits.argmax(1), softmax(logits), np.eye(4)[labels]
    assert report.confusion == tuple(map(tuple, confusion_matrix(labels, given).tolist()))
    expected = {
        "accuracy": accuracy_score(labels, given),
        "balanced_accuracy": balanced_accuracy_score(labels, given),
        "macro_recall": recall_score(labels, given, average="macro"),
        "macro_precision": precision_score(labels, given, average="macro"),
        "macro_specificity": np.mean([recall_score(labels == k, given == k, pos_label=0) for k in range(4)]),
        "macro_f1": f1_score(labels, given, average="macro"),
        "macro_auc": roc_auc_score(labels, probability, multi_class="ovr"),
        "macro_average_precision": average_precision_score(own, probability, average="macro"),
        "log_loss": log_loss(labels, probability),
        "chance_accuracy": np.bincount(labels).max() / len(labels),
    }
    assert {name: getattr(report, name) for name in FIGURES} == pytest.approx(expected)
    for k, one in enumerate(report.classes):
        assert (one.name, one.cases) == (NAMES[k], int((labels == k).sum()))
        assert one.auc == pytest.approx(roc_auc_score(own[:, k], probability[:, k]))
        assert one.average_precision == pytest.approx(average_precision_score(own[:, k], probability[:, k]))
        assert one.precision == pytest.approx(precision_score(labels, given, average=None)[k])
        assert one.f1 == pytest.approx(f1_score(labels, given, average=None)[k])


def test_intervals_are_those_of_drawn_patients_by_sklearn() -> None:
    logits, labels = cases(120)
    patients = np.arange(120) // 3
    report = multiclass(logits, labels, NAMES, groups=patients, bootstrap=60, generator=4)
    drawn = np.random.default_rng(4).multinomial(40, np.full(40, 1 / 40), size=60)[:, patients]
    given, probability = logits.argmax(1), softmax(logits)
    figures = {
        "macro_f1": lambda rows: f1_score(labels[rows], given[rows], average="macro", labels=np.unique(labels[rows])),
        "balanced_accuracy": lambda rows: balanced_accuracy_score(labels[rows], given[rows]),
        "macro_auc": lambda rows: np.mean(
            [roc_auc_score(labels[rows] == k, probability[rows, k]) for k in np.unique(labels[rows])]
        ),
        "chance_accuracy": lambda rows: np.bincount(labels[rows]).max() / len(rows),
        "log_loss": lambda rows: log_loss(labels[rows], probability[rows], labels=range(4)),
    }
    for name, figure in figures.items():
        values = [figure(np.repeat(np.arange(120), counts)) for counts in drawn]
        assert getattr(report, f"{name}_interval") == pytest.approx(np.percentile(values, (2.5, 97.5)))
    assert report.groups == 40


def test_every_figure_has_its_interval_and_flat_names() -> None:
    logits, labels = cases()
    report = multiclass(logits, labels, NAMES, bootstrap=200)
    flat = report.as_dict()
    for name in FIGURES:
        assert flat[f"{name}_low"] < flat[name] < flat[f"{name}_high"]
    for one in report.classes:
        for name in CLASS_FIGURES:
            low, high = getattr(one, f"{name}_interval")
            assert (flat[f"{one.name}_{name}_low"], flat[f"{one.name}_{name}_high"]) == (low, high)
            assert low <= getattr(one, name) <= high
    assert flat["melanoma_cases"] == (labels == 1).sum()
    assert all(isinstance(value, float) for value in flat.values())


def test_unknown_labels_are_left_out() -> None:
    logits, labels = cases()
    hidden = np.where(np.arange(240) < 60, -1, labels)
    patients = np.arange(240) // 4
    found = multiclass(logits, hidden, NAMES, groups=patients, bootstrap=30)
    assert (found.items, found.unknown, found.groups) == (180, 60, 45)
    alone = multiclass(logits[60:], labels[60:], NAMES, groups=patients[60:], bootstrap=30)
    assert found._replace(unknown=0) == alone


def test_logits_that_say_nothing_cost_ln_k_and_rank_at_chance() -> None:
    _, labels = cases()
    report = multiclass(np.zeros((240, 4)), labels, NAMES)
    assert report.log_loss == pytest.approx(math.log(4))
    assert (report.macro_auc, report.balanced_accuracy) == (0.5, 0.25)
    assert report.macro_precision == report.classes[0].precision  # all others are given to no item
    assert np.isnan(report.classes[1].precision)
    assert report.classes[1].f1 == 0


def test_probabilities_that_saturate_still_rank() -> None:
    logits = np.array([[100.0, 0.0], [200.0, 0.0], [300.0, 0.0], [400.0, 0.0]])  # all softmax to exactly 1
    assert multiclass(logits, [1, 1, 0, 0], ["a", "b"]).macro_auc == 1.0


def test_order_shift_and_tensors_do_not_matter() -> None:
    logits, labels = cases()
    expected = multiclass(logits, labels, NAMES).as_dict()
    order = np.random.default_rng(0).permutation(240)
    shifted = torch.tensor(logits[order] + 7.0, requires_grad=True), torch.tensor(labels[order])
    assert multiclass(*shifted, NAMES).as_dict() == pytest.approx(expected)


def test_a_class_without_a_case_is_refused_by_name_or_reported_as_nan() -> None:
    logits, labels = cases()
    labels = np.where(labels == 2, 0, labels)
    with pytest.raises(ValueError, match=r"'keratosis' of 4 classes: no case: an empty class"):
        multiclass(logits, labels, NAMES)
    report = multiclass(logits, labels, NAMES, bootstrap=20, on_empty="report")
    empty = report.classes[2]
    assert empty.cases == 0
    assert np.isnan([getattr(empty, name) for name in CLASS_FIGURES]).all()
    assert [getattr(empty, f"{name}_interval") for name in CLASS_FIGURES] == [None] * 6
    others = [one for one in report.classes if one.cases]
    for name in ("precision", "f1", "auc", "average_precision", "specificity"):
        assert getattr(report, f"macro_{name}") == pytest.approx(np.mean([getattr(one, name) for one in others]))
    assert report.balanced_accuracy == pytest.approx(np.mean([one.accuracy for one in others]))


def test_a_class_with_one_case_is_refused_by_name() -> None:
    logits, labels = cases()
    labels = np.where(labels == 3, 0, labels)
    labels[0] = 3
    with pytest.raises(ValueError, match=r"'vascular' of 4 classes: one case"):
        multiclass(logits, labels, NAMES)
    assert multiclass(logits, labels, NAMES, on_empty="report").classes[3].cases == 1


@pytest.mark.parametrize(
    ("logits", "labels", "names", "rule"),
    [
        ([[0.1, 0.2, 0.3]], [0], ["a", "b"], r"must be \(B, 2\)"),
        ([[0.1, 0.2]], [0, 1], ["a", "b"], r"must be \(B, 2\)"),
        ([[0.1, np.nan]], [0], ["a", "b"], "NaN or infinity"),
        ([[0.1, 0.2]], [2], ["a", "b"], r"labels hold \[2\]"),
        ([[0.1, 0.2]], [-2], ["a", "b"], r"labels hold \[-2\]"),
        ([[0.1, 0.2]], [0.5], ["a", "b"], "must be integers"),
        ([[0.1, 0.2]], [-1], ["a", "b"], "nothing to judge by"),
        ([[0.1]], [0], ["a"], "at least two"),
        ([[0.1, 0.2]], [0], ["a", "a"], "all different"),
    ],
)
def test_bad_input_is_named(logits, labels, names, rule) -> None:
    with pytest.raises(ValueError, match=rule):
        multiclass(logits, labels, names)


def test_options_and_patients_are_checked() -> None:
    logits, labels = cases()
    with pytest.raises(ValueError, match="on_empty='skip'"):
        multiclass(logits, labels, NAMES, on_empty="skip")
    with pytest.raises(ValueError, match="3 patients were given for 240 items"):
        multiclass(logits, labels, NAMES, groups=[1, 2, 3])
