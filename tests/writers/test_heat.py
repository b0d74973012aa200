"""A map keeps what has to be said about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_medclip.writers.heat import Heat, heats_of, min_max_scaled, number


def test_every_map_gets_its_own_prompt_and_score():
    maps = torch.arange(12.0).reshape(2, 2, 3)
    first, second = heats_of(maps, torch.tensor([1.5, -2.0]), ["nodule", "mass"], method="Chefer", units="cosine")
    assert (first.prompt, first.score, first.units, first.scaling) == ("nodule", 1.5, "cosine", "raw")
    assert (second.prompt, second.score_label, second.total) == ("mass", "-2 logit", 6 + 7 + 8 + 9 + 10 + 11)
    np.testing.assert_array_equal(second.values, maps[1].numpy())


def test_scaling_says_so_and_loses_the_unit():
    heat = Heat(np.array([[2.0, 4.0], [3.0, 2.0]]), "nodule", "Chefer", 1.0)
    scaled = min_max_scaled(heat)
    np.testing.assert_array_equal(scaled.values, [[0, 1], [0.5, 0]])
    assert "min-max scaled" in scaled.unit_label
    assert "logit" not in scaled.unit_label
    assert heat.unit_label == "logit"
    assert scaled.score_label == heat.score_label


def test_a_flat_map_scales_to_zero():
    assert not min_max_scaled(Heat(np.full((2, 2), 3.0), "nodule", "Chefer", 1.0)).values.any()


def test_nan_names_the_prompt():
    maps = torch.zeros(2, 2, 2)
    maps[1, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity for mass"):
        heats_of(maps, torch.zeros(2), ["nodule", "mass"], method="Chefer")
    with pytest.raises(ValueError, match="2 maps, 1 scores, 2 prompts"):
        heats_of(maps, torch.zeros(1), ["nodule", "mass"], method="Chefer")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123456, "0.00123"), (2.5, "2.5"), (1234.5, "1230"), (4.56e-7, "4.56e-07"), (-0.5, "-0.5")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text
