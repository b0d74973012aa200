"""Classification figures against sklearn, by hand, and with patients resampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_medclip.metrics import auc_by_tercile, classification, youden_threshold
from monai_medclip.metrics.classification import FIGURES, patient_numbers, patient_resamples, resampled_figures


def cases(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random((n, 2)) < 0.3).astype(float)
    return generator.normal(size=(n, 2)) + labels * [2.0, 0.5], labels


def test_hand_computed_figures():
    logits = [[2.0], [1.0], [-1.0], [0.5], [-2.0]]
    labels = [[1.0], [0.0], [1.0], [1.0], [0.0]]
    (finding,) = classification(logits, labels, ["nodule"]).findings
    assert (finding.positives, finding.negatives) == (3, 2)
    assert finding.auc == pytest.approx(4 / 6)  # pairs in the right order: 2 + 1 + 1 of 6
    assert finding.accuracy == pytest.approx(3 / 5)
    assert (finding.sensitivity, finding.specificity) == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    assert finding.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_unknown_labels_are_left_out():
    logits, labels = cases()
    hidden = labels.copy()
    hidden[:50, 0] = np.nan
    report = classification(logits, hidden, ["a", "b"])
    assert report.findings[0].auc == pytest.approx(roc_auc_score(labels[50:, 0], logits[50:, 0]))
    assert report.findings[1].auc == pytest.approx(roc_auc_score(labels[:, 1], logits[:, 1]))
    assert report.macro_auc == pytest.approx((report.findings[0].auc + report.findings[1].auc) / 2)


def test_a_finding_without_positives_has_no_auc_and_does_not_spoil_the_mean():
    logits, labels = cases()
    labels[:, 1] = 0
    report = classification(logits, labels, ["a", "b"], bootstrap=20)
    assert np.isnan(report.findings[1].auc)
    assert np.isnan(report.findings[1].sensitivity)
    assert report.findings[1].auc_interval is None
    assert report.macro_auc == report.findings[0].auc


def test_tensors_of_any_float_type_are_taken():
    logits, labels = cases()
    expected = classification(logits, labels, ["a", "b"]).macro_auc
    tensors = torch.tensor(logits, requires_grad=True), torch.tensor(labels, dtype=torch.bfloat16)
    assert classification(*tensors, ["a", "b"]).macro_auc == expected


def test_resampled_figures_equal_sklearns_with_weights():
    logits, labels = cases()
    scores = np.round(logits[:, 0], 1)  # with ties
    counts = patient_resamples(np.arange(200) // 4, 5, 0)
    auc, average = resampled_figures(scores, labels[:, 0], counts)
    for draw, weights in enumerate(counts):
        assert auc[draw] == pytest.approx(roc_auc_score(labels[:, 0], scores, sample_weight=weights))
        expected = average_precision_score(labels[:, 0], scores, sample_weight=weights)
        assert average[draw] == pytest.approx(expected)


def test_intervals_hold_the_figure_and_follow_the_seed():
    logits, labels = cases()
    one, same, other = (classification(logits, labels, ["a", "b"], bootstrap=300, generator=s) for s in (1, 1, 2))
    assert one == same
    assert one.macro_auc_interval != other.macro_auc_interval
    for finding in one.findings:
        assert finding.auc_interval.low < finding.auc < finding.auc_interval.high
    assert one.macro_auc_interval.low < one.macro_auc < one.macro_auc_interval.high


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_an_interval_per_finding_and_of_the_mean(figure):
    logits, labels = cases()
    report = classification(logits, labels, ["a", "b"], threshold=[1.0, 0.2], bootstrap=300)
    values = [getattr(one, figure) for one in report.findings]
    assert getattr(report, f"macro_{figure}") == pytest.approx(np.mean(values))
    flat = report.as_dict()
    for one in report.findings:
        low, high = getattr(one, f"{figure}_interval")
        assert low < getattr(one, figure) < high
        assert [flat[f"{one.name}_{figure}{end}"] for end in ("_low", "", "_high")] == [low, getattr(one, figure), high]
    low, high = getattr(report, f"macro_{figure}_interval")
    assert low < flat[f"macro_{figure}"] < high
    assert (flat[f"macro_{figure}_low"], flat[f"macro_{figure}_high"]) == (low, high)


def test_the_interval_of_accuracy_is_that_of_drawn_patients():
    logits, labels = cases(80)
    patients = np.repeat(np.arange(20), 4)
    (one, _) = classification(logits, labels, ["a", "b"], groups=patients, bootstrap=400, generator=5).findings
    drawn = np.random.default_rng(5).multinomial(20, np.full(20, 1 / 20), size=400)
    right = (logits[:, 0] >= 0) == (labels[:, 0] == 1)
    means = [np.repeat(right, counts).mean() for counts in drawn[:, patients]]
    assert one.accuracy_interval == pytest.approx(np.percentile(means, (2.5, 97.5)))


def test_without_a_bootstrap_there_are_figures_and_no_intervals():
    logits, labels = cases()
    flat = classification(logits, labels, ["a", "b"]).as_dict()
    assert {"macro_f1", "a_precision", "b_log_loss", "a_positives", "a_threshold"} <= set(flat)
    assert not [name for name in flat if name.endswith(("_low", "_high"))]


def test_precision_of_a_finding_that_is_never_called_does_not_spoil_the_mean():
    logits, labels = cases()
    report = classification(logits, labels, ["a", "b"], threshold=[0.0, 100.0], bootstrap=20)
    assert np.isnan(report.findings[1].precision)
    assert report.findings[1].precision_interval is None
    assert report.findings[1].f1 == 0
    assert report.macro_precision == report.findings[0].precision


def test_patients_are_numbered_whatever_their_names():
    assert patient_numbers(["b", "a", "b"], 3).tolist() == [1, 0, 1]
    assert patient_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="2 patients were given for 3 items"):
        patient_numbers(["a", "b"], 3)


def test_resampling_patients_widens_the_interval_of_repeated_images():
    logits, labels = cases(60)
    logits, labels = np.repeat(logits, 10, axis=0), np.repeat(labels, 10, axis=0)
    by_image = classification(logits, labels, ["a", "b"], bootstrap=300)
    by_patient = classification(logits, labels, ["a", "b"], bootstrap=300, groups=np.repeat(np.arange(60), 10))
    widths = [report.macro_auc_interval.high - report.macro_auc_interval.low for report in (by_image, by_patient)]
    assert widths[1] > 2 * widths[0]
    assert by_patient.groups == 60


def test_order_does_not_matter():
    logits, labels = cases()
    order = np.random.default_rng(0).permutation(200)
    assert classification(logits[order], labels[order], ["a", "b"]).as_dict() == pytest.approx(
        classification(logits, labels, ["a", "b"]).as_dict()
    )


def test_terciles_show_a_score_that_only_repeats_the_covariate():
    generator = np.random.default_rng(0)
    diameter, third = np.linspace(3, 30, 6000), np.arange(6000) // 2000
    labels = (generator.random(6000) < np.array([0.1, 0.5, 0.9])[third]).astype(float)
    report = auc_by_tercile(diameter, labels, diameter)
    assert report.auc == report.covariate_auc > 0.75
    for tercile in report.terciles:
        assert tercile.auc == pytest.approx(0.5, abs=0.05)
        assert tercile.items == 2000
    assert report.terciles[0].high < report.terciles[1].low
    assert report.as_dict()["tercile_2_auc"] == report.terciles[1].auc


def test_equal_covariates_stay_in_one_tercile():
    report = auc_by_tercile([0.1, 0.9, 0.2, 0.8], [0, 1, 0, 1], [5, 5, 5, 5])
    assert [tercile.items for tercile in report.terciles] == [4, 0, 0]


def test_youden_threshold_separates_what_can_be_separated():
    assert youden_threshold([0.1, 0.2, 0.7, 0.9, 5.0], [0, 0, 1, 1, np.nan]) == 0.7


@pytest.mark.parametrize(
    ("logits", "labels", "rule"),
    [
        ([[0.1, 0.2]], [[1.0]], r"must both be \(B, 1\)"),
        ([[np.nan]], [[1.0]], "NaN or infinity"),
        ([[0.5]], [[2.0]], "must be 0, 1 or NaN"),
    ],
)
def test_bad_input_is_named(logits, labels, rule):
    with pytest.raises(ValueError, match=rule):
        classification(logits, labels, ["nodule"])
