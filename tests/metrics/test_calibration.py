"""Calibration: worked examples, and a temperature that was put in is found again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from monai_medclip.metrics import calibration, fit_temperature


def test_bins_by_a_worked_example() -> None:
    found = calibration([0.1, 0.2, 0.8, 0.9], [0, 1, 1, 1], bins=2, binning="uniform")
    assert [(one.items, one.predicted, one.observed) for one in found.bins] == [
        (2, pytest.approx(0.15), 0.5),
        (2, pytest.approx(0.85), 1.0),
    ]
    assert found.ece == pytest.approx(0.5 * 0.35 + 0.5 * 0.15)
    assert found.mce == pytest.approx(0.35)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.04 + 0.01) / 4)


def test_quantile_bins_hold_as_many_items_each_and_keep_ties_together() -> None:
    probabilities = np.linspace(0.001, 0.2, 100)
    found = calibration(probabilities, np.zeros(100), bins=5)
    assert [one.items for one in found.bins] == [20] * 5
    assert len(calibration(probabilities, np.zeros(100), bins=5, binning="uniform").bins) == 1
    tied = calibration([0.3] * 50 + [0.6] * 50, np.zeros(100), bins=10)
    assert [(one.low, one.high, one.items) for one in tied.bins] == [(0.3, 0.3, 50), (0.6, 0.6, 50)]


def test_intervals_are_those_of_resampled_patients() -> None:
    generator = np.random.default_rng(1)
    probabilities, patients = generator.random(60), np.arange(60) // 3
    labels = (generator.random(60) < probabilities**2).astype(float)
    labels[::7] = np.nan
    found = calibration(probabilities, labels, bins=3, binning="uniform", groups=patients, bootstrap=200)
    known = ~np.isnan(labels)
    draws = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=200)[:, patients][:, known]
    p, t = probabilities[known], labels[known]
    which = np.digitize(p, [1 / 3, 2 / 3])
    eces = [sum(abs((n * (t - p))[which == k].sum()) for k in range(3)) / n.sum() for n in draws]
    assert found.ece_interval == pytest.approx(np.quantile(eces, (0.025, 0.975)))
    assert found.brier_interval == pytest.approx(
        np.quantile([n @ (p - t) ** 2 / n.sum() for n in draws], (0.025, 0.975))
    )
    without = calibration(probabilities, labels, bins=3, binning="uniform")
    assert (without.ece, without.ece_interval) == (found.ece, None)
    with pytest.raises(ValueError, match="one patient per item"):
        calibration(probabilities, labels, groups=patients[1:], bootstrap=2)


def test_a_temperature_is_found_again_and_mends_the_error() -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(size=(5000, 4)) * 2
    labels = (generator.random(honest.shape) < expit(honest)).astype(float)
    logits = 3 * honest
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    before, after = (calibration(expit(logits / t).ravel(), labels.ravel()).ece for t in (1.0, temperature))
    assert after < 0.01 < 0.1 < before
    labels[:100] = np.nan
    assert fit_temperature(logits, labels) == pytest.approx(fit_temperature(logits[100:], labels[100:]))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([1.0, -1.0], [1, 0], "no temperature is best"),
        ([1.0, -1.0], [0, 1], "no temperature is best"),
        ([1.0, -1.0], [1, 1], "both classes"),
        ([1.0, np.nan], [1, 0], "finite"),
        ([1.0], [1, 0], "one label per number"),
    ],
)
def test_no_temperature_without_evidence(logits: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


def test_bad_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibration([1.2, 0.3], [1, 0])
    with pytest.raises(ValueError, match="binning='width'"):
        calibration([0.2, 0.3], [1, 0], binning="width")
