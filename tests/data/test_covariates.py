from __future__ import annotations

import pytest

from monai_medclip.data import age_band, subgroup_values


def test_values_are_found_in_columns_and_meta_and_written_alike() -> None:
    items = [
        {"view": "pa", "sex": "F", "meta": {"age_approx": "55", "hospital": "north"}},
        {"view": "AP", "meta": {"sex": "male", "age": "017Y"}},
        {"view": "?", "meta": {"gender": "w"}},
    ]
    assert subgroup_values(items) == {
        "view": ["PA", "AP", ""],
        "sex": ["female", "male", "female"],
        "age band": ["40 to 59", "0 to 17", ""],
        "site": ["north", "", ""],
    }


def test_what_no_item_has_is_left_out() -> None:
    assert subgroup_values([{"view": "", "meta": {}}, {"id": "a"}]) == {}


@pytest.mark.parametrize(
    ("age", "band"),
    [
        (0, "0 to 17"),
        (17.9, "0 to 17"),
        (18, "18 to 39"),
        ("080Y", "80 and older"),
        ("006M", ""),
        ("", ""),
        (-1, ""),
        (float("nan"), ""),
    ],
)
def test_ages_fall_into_bands(age: object, band: str) -> None:
    assert age_band(age) == band
