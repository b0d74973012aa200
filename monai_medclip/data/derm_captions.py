"""A dermatologist's criteria become a caption: one clause per criterion, which training may put in another order."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CRITERIA", "LESION_COLORS", "criteria_caption"]

LESION_COLORS = ("white", "red", "light brown", "dark brown", "blue-gray", "black")  # the ABCD rule's six, PH2's order


def _scored(noun: str, *grades: str) -> dict[str, str]:
    """Words for a structure that is absent, present, or of some grade."""
    return {"absent": f"{noun} absent", "present": f"{noun} present", **{grade: f"{grade} {noun}" for grade in grades}}


# The seven-point checklist in Derm7pt's words, PH2's words for the same structures, and what PH2 scores besides.
CRITERIA: dict[str, dict[str, str]] = {
    "asymmetry": {words: words for words in ("fully symmetric", "symmetric in one axis", "fully asymmetric")},
    "pigment_network": _scored("pigment network", "typical", "atypical"),
    "streaks": _scored("streaks", "regular", "irregular"),
    "pigmentation": _scored(
        "pigmentation", "diffuse regular", "localized regular", "diffuse irregular", "localized irregular"
    ),
    "dots_and_globules": _scored("dots and globules", "regular", "irregular", "typical", "atypical"),
    "regression_structures": {
        **_scored("regression structures"),
        "blue areas": "blue areas of regression",
        "white areas": "white areas of regression",
        "combinations": "blue and white areas of regression",
    },
    "blue_whitish_veil": _scored("blue-whitish veil"),
    "vascular_structures": {
        **_scored("vascular structures"),
        **{kind: f"{kind} vessels" for kind in ("arborizing", "comma", "hairpin", "dotted", "linear irregular")},
        "wreath": "wreath-like vessels",
        "within regression": "vessels within regression",
    },
    "colors": {},  # any of LESION_COLORS, joined by " and "
}


def criteria_caption(
    diagnosis: str | None, criteria: Mapping[str, str], *, kind: str = "Dermoscopic image", lesion: str = "skin lesion"
) -> str:
    """Readable words such as "Dermoscopic image of melanoma, atypical pigment network, irregular streaks.".

    Clauses are separated by a comma, the diagnosis is the first. What is absent comes last: `clause_spans` keeps
    clauses after a negation together with it, so that `ShuffleSentencesd` with ``unit="clause"`` and ``keep_first``
    moves each present criterion by itself and the absent ones as one clause, and never turns one into its opposite.

    Args:
        diagnosis: such as ``"clark nevus"``; None leaves it to the image.
        criteria: names and values of `CRITERIA`; an empty value was not scored and is not mentioned.
        kind: what the image is.
        lesion: what stands for an unnamed diagnosis.

    Raises:
        ValueError: a criterion or a value that has no words.
    """
    clauses = [(value == "absent", _words(name, value)) for name, value in _ordered(criteria).items() if value]
    clauses.sort(key=lambda clause: clause[0])
    return ", ".join([f"{kind} of {diagnosis or f'a {lesion}'}", *(words for _, words in clauses)]) + "."


def _ordered(criteria: Mapping[str, str]) -> dict[str, str]:
    if unknown := [name for name in criteria if name not in CRITERIA]:
        raise ValueError(f"criteria {unknown} have no words: use some of {list(CRITERIA)}.")
    return {name: criteria[name] for name in CRITERIA if name in criteria}


def _words(name: str, value: str) -> str:
    if name == "colors":
        known: Mapping[str, str] = dict.fromkeys(LESION_COLORS, "")
        if all(color in known for color in value.split(" and ")):
            return f"{value} color" + ("s" if " and " in value else "")
    else:
        known = CRITERIA[name]
        if value in known:
            return known[value]
    raise ValueError(f"criterion {name!r} is {value!r}: use one of {list(known)}.")
