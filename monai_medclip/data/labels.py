"""From a manifest row to its 0/1 labels: label names, and rules such as ``meta.Texture_value <= 3``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["LIDC_FINDINGS", "as_findings", "label_names", "label_vector", "look_up", "matches_rule"]

# The questions that the LIDC-IDRI ratings answer (1 to 5; calcification 6 = absent), as thresholds on the ratings.
LIDC_FINDINGS: dict[str, str] = {
    "malignant": "malignant",  # the readers' majority, as the manifest labels it
    "calcification": "meta.Calcification_value < 6",  # 6 = absent
    "subsolid": "meta.Texture_value <= 3",  # 1 ground-glass, 3 part-solid, 5 solid
    "poorly defined margin": "meta.Margin_value <= 2",  # 1 poorly defined, 5 sharp
    "spiculation": "meta.Spiculation_value >= 3",  # 1 none, 5 marked
}

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(r"^\s*([\w.\- ]+?)\s*(<=|>=|==|!=|<|>)\s*(.+?)\s*$")


def label_names(cell: str) -> list[str]:
    """Split a ``;``-separated cell into label names, in order, without empty ones."""
    return [name.strip() for name in cell.split(";") if name.strip()]


def as_findings(findings: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Findings as ``{name: label name or rule}``; a plain list of names asks for the labels of those names."""
    if isinstance(findings, str):
        raise ValueError(f"findings={findings!r} is one string: give a list of label names or a mapping name -> rule.")
    return dict(findings) if isinstance(findings, Mapping) else {name: name for name in findings}


def label_vector(item: Mapping[str, Any], findings: Mapping[str, str], *, empty_labels: str = "unknown") -> list[float]:
    """Labels of one item.

    A value of `findings` with a comparison in it is a rule (see `matches_rule`); any other value is a label name,
    looked for among ``item["labels"]`` without regard to case, ``_`` and ``-``.

    Args:
        item: an item with ``"labels"`` (list of names) and the columns and ``"meta"`` that rules name.
        findings: ``{finding: label name or rule}``, F of them.
        empty_labels: what an item without any label name is: ``"unknown"`` (NaN) or ``"negative"`` (0).

    Returns:
        F floats: 1 present, 0 absent, NaN unknown (also where a rule's column is missing or empty).
    """
    present = {_plain(name) for name in item.get("labels", ())}
    absent = math.nan if not present and empty_labels == "unknown" else 0.0

    def value(asked: str) -> float:
        if _is_rule(asked):
            return matches_rule(item, asked)
        return 1.0 if _plain(asked) in present else absent

    return [value(asked) for asked in findings.values()]


def matches_rule(item: Mapping[str, Any], rule: str) -> float:
    """Whether an item satisfies a rule: comparisons joined by ``and``, each ``column operator value``.

    ``meta.KEY`` reads the item's meta. Two sides that both read as numbers compare as numbers, else as text, for which
    only ``==`` and ``!=`` exist. Nothing is evaluated as code.

    Returns:
        1 or 0, or NaN if a column is missing or empty and no other comparison has already failed.

    Raises:
        ValueError: a comparison that cannot be read, or an order asked of text.
    """
    answers = [_compare(item, part) for part in re.split(r"\s+and\s+", rule.strip())]
    return 0.0 if 0.0 in answers else sum(answers) / len(answers)  # NaN if any is unknown


def look_up(item: Mapping[str, Any], column: str) -> Any:
    """The value of ``column`` or ``meta.key`` in an item, or None where there is none."""
    if column in item:
        return item[column]
    head, _, key = column.partition(".")
    inner = item.get(head)
    return inner.get(key) if key and isinstance(inner, Mapping) else None


def _is_rule(asked: str) -> bool:
    return _COMPARISON.match(asked) is not None


def _compare(item: Mapping[str, Any], comparison: str) -> float:
    match = _COMPARISON.match(comparison)
    if match is None:
        raise ValueError(f"Cannot read the rule {comparison!r}: write 'column <= value', joined by ' and '.")
    column, sign, wanted = match[1], match[2], match[3].strip("'\"")
    found = look_up(item, column)
    if found is None or found == "":
        return math.nan
    left, right = _number(found), _number(wanted)
    if left is not None and right is not None:
        return float(_OPERATORS[sign](left, right))
    if sign not in ("==", "!="):
        raise ValueError(f"The rule {comparison!r} orders {found!r}, which is not a number: use == or !=.")
    return float(_OPERATORS[sign](str(found), wanted))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().lower()
