"""Options as MONAI Label's clients send them."""

from __future__ import annotations

import pytest

from monai_medclip.app.limits import Refused
from monai_medclip.app.options import choice, number, prompts_of, text


def test_a_list_is_a_choice_that_the_client_left_alone() -> None:
    request = {"method": ["recommended", "Chefer"], "prompt": " nodule ", "none": None, "empty": []}
    assert choice(request, "method", ("recommended", "Chefer")) == "recommended"
    assert (text(request, "prompt"), text(request, "none", "x"), text(request, "empty", "y")) == ("nodule", "x", "y")


def test_an_unknown_word_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match="recommended, Chefer"):
        choice({"method": "LIME"}, "method", ("recommended", "Chefer"))


@pytest.mark.parametrize(("given", "found"), [("", 0.25), (0.5, 0.5), ("0.75", 0.75), (None, 0.25)])
def test_numbers_come_as_numbers_texts_or_nothing(given: object, found: float) -> None:
    assert number({"threshold": given}, "threshold", 0.25, low=0, high=1) == found


@pytest.mark.parametrize("given", ["high", "nan", 2, "-1"])
def test_what_is_no_number_in_range_is_refused(given: object) -> None:
    with pytest.raises(Refused, match="from 0 to 1"):
        number({"threshold": given}, "threshold", 0.25, low=0, high=1)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["nodule", "mass"], ["nodule", "mass"]),
        ('["nodule", "mass"]', ["nodule", "mass"]),
        ("nodule; mass\n", ["nodule", "mass"]),
        ("", None),
        (None, None),
    ],
)
def test_prompts_come_in_several_forms(given: object, found: list[str] | None) -> None:
    assert prompts_of({"prompts": given}) == found


@pytest.mark.parametrize("given", [[1], {"a": 1}, "[nodule"])
def test_prompts_that_are_no_texts_are_refused(given: object) -> None:
    with pytest.raises(Refused, match="prompts"):
        prompts_of({"prompts": given})
