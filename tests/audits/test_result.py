"""What an audit hands over reads as a verdict and a table, and goes into a result file as it is."""

from __future__ import annotations

import json
import math

from monai_medclip.audits import AuditResult

ROWS = ({"input": "image alone", "auc": 0.71239, "items": 12}, {"input": "none", "auc": math.nan, "items": None})


def test_plain_text_is_the_verdict_above_an_aligned_table() -> None:
    assert str(AuditResult("leakage", "Nothing leaks.", ROWS, warning=False)).splitlines() == [
        "Nothing leaks.",
        "input        auc    items",
        "image alone  0.712  12",
        "none         -      -",
    ]


def test_a_warning_comes_first() -> None:
    assert str(AuditResult("leakage", "It leaks.", (), warning=True)) == "WARNING: It leaks."


def test_the_result_file_holds_verdict_warning_and_rows() -> None:
    found = AuditResult("leakage", "It leaks.", ROWS[:1], warning=True).as_dict()
    assert json.loads(json.dumps(found)) == {"verdict": "It leaks.", "warning": True, "rows": [dict(ROWS[0])]}
    assert found["rows"][0] is not ROWS[0]  # a copy
