"""A forced choice: hand-computed shares, ties, classes, and intervals that follow patients."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_medclip.audits.choices import chosen, draw_patients, is_sentence, mean_choice, or_none


def counts(patients: list[str], bootstrap: int = 200) -> np.ndarray:
    return draw_patients(patients, len(patients), bootstrap, 0)


def test_both_classes_count_alike_and_a_tie_is_half_right():
    choice = chosen([0.2, 0.1, -0.1, 0.0, -0.3, 9.0], [1, 1, 1, 1, 0, math.nan], counts(list("abcdef")))
    assert (choice.positives, choice.negatives) == (4, 1)
    assert (choice.right_positive, choice.right_negative) == (2.5 / 4, 1.0)
    assert choice.accuracy == (2.5 / 4 + 1) / 2
    assert choice.auc == 1.0


def test_always_the_same_answer_is_chance_whatever_the_prevalence():
    choice = chosen(np.full(50, 0.3), [1] * 45 + [0] * 5, counts([str(n) for n in range(50)]))
    assert (choice.accuracy, choice.auc, choice.by_chance) == (0.5, 0.5, True)


def test_rounding_noise_is_no_answer():
    noise = np.random.default_rng(0).normal(0, 1e-8, 40)
    choice = chosen(noise, [1] * 20 + [0] * 20, counts([str(n) for n in range(40)]))
    assert (choice.accuracy, choice.auc) == (0.5, 0.5)
    assert choice.interval == (0.5, 0.5)


def test_intervals_follow_patients_not_images():
    scores, truth = np.tile([1.0, -1.0, 1.0, -1.0], 25), np.tile([1, 1, 0, 0], 25)
    many = chosen(scores, truth, counts([str(n) for n in range(100)]))
    few = chosen(scores, truth, counts([str(n % 4 + n // 50 * 4) for n in range(100)]))
    assert many.accuracy == few.accuracy == 0.5
    assert few.interval.high - few.interval.low > 2 * (many.interval.high - many.interval.low)


def test_a_missing_class_gives_no_figure():
    choice = chosen([1.0, 1.0], [1, 1], counts(["a", "b"]))
    assert choice.right_positive == 1.0
    assert choice.columns() == dict.fromkeys(["accuracy", "low", "high", "auc", "auc low", "auc high"])
    assert mean_choice([choice]) is None


def test_the_mean_is_over_findings_with_both_classes_and_resamples_stay_paired():
    drawn = counts([str(n) for n in range(40)])
    truth = np.array([1] * 20 + [0] * 20)
    right, wrong = chosen(truth - 0.5, truth, drawn), chosen(0.5 - truth, truth, drawn)
    mean = mean_choice([right, wrong, chosen([1.0] * 40, [1] * 40, drawn)])
    assert (mean.accuracy, mean.auc, mean.positives) == (0.5, 0.5, 40)
    assert mean.interval == (0.5, 0.5)  # what one gains in a resample, the other loses
    assert mean.told() == "50 % (50 % to 50 %)"


def test_no_resample_gives_no_interval():
    choice = chosen([1.0, -1.0], [1, 0], counts(["a", "b"], 0))
    assert (choice.accuracy, choice.interval, choice.told()) == (1.0, None, "100 %")


def test_patients_must_fit():
    with pytest.raises(ValueError, match="patients has 1 entries for 2 images"):
        draw_patients(["a"], 2, 10, 0)


def test_words_and_numbers_for_tables():
    assert (or_none(math.nan), or_none(0.5)) == (None, 0.5)
    assert is_sentence("The lungs are clear.")
    assert not is_sentence("nodule")
