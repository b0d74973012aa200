"""Who the patients are: the view, sex, age band and site that items carry, for figures by subgroup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monai_medclip.data.labels import look_up

__all__ = ["AGE_BANDS", "age_band", "subgroup_values"]

Item = Mapping[str, Any]

AGE_BANDS = (18, 40, 60, 80)  # years at which the next band begins

_COLUMNS = {
    "view": ("view", "meta.projection", "meta.view"),
    "sex": ("sex", "meta.sex", "meta.gender"),
    "age": ("age", "meta.age", "meta.age_approx", "meta.age_years"),
    "site": ("site", "meta.site", "meta.hospital", "meta.institution"),
}
_SEXES = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male"}


def subgroup_values(items: Sequence[Item]) -> dict[str, list[str]]:
    """Covariates that an item list holds: name -> one value per item, empty where an item has none.

    ``view``, ``sex``, ``age band`` and ``site`` are looked for in the items' columns and in their ``meta``; those that
    no item has are left out. Sexes are written ``female`` and ``male`` whatever the abbreviation; ages are put into
    bands (`AGE_BANDS`).

    Args:
        items: as the readers make them.
    """
    found = {
        "view": [_first(item, _COLUMNS["view"]).upper() for item in items],
        "sex": [_sex(_first(item, _COLUMNS["sex"])) for item in items],
        "age band": [age_band(_first(item, _COLUMNS["age"])) for item in items],
        "site": [_first(item, _COLUMNS["site"]) for item in items],
    }
    return {name: values for name, values in found.items() if any(values)}


def age_band(age: Any) -> str:
    """``"40 to 59"`` for 47, also written ``"47"`` or DICOM's ``"047Y"``; empty for what is no age in years."""
    text = str(age).strip().upper().removesuffix("Y")
    try:
        years = float(text)
    except ValueError:
        return ""
    if not 0 <= years < 150:
        return ""
    edges = (0, *AGE_BANDS)
    low = max(edge for edge in edges if edge <= years)
    above = [edge for edge in edges if edge > years]
    return f"{low} to {above[0] - 1}" if above else f"{low} and older"


def _first(item: Item, columns: Iterable[str]) -> str:
    found = (look_up(item, column) for column in columns)
    return next((str(value).strip() for value in found if value not in (None, "", "?")), "")


def _sex(value: str) -> str:
    return _SEXES.get(value.lower(), value.lower())
