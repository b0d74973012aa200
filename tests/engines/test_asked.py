"""What may be asked: prompts and reports within bounds, names of findings in any case."""

from __future__ import annotations

import pytest

from monai_medclip.engines.asked import asked_findings, checked_report, checked_sentences
from monai_medclip.findings import Finding

KNOWN = (Finding("pleural effusion", ("Fluid.",), ("No fluid.",)),)


def test_a_known_name_is_that_finding_and_other_words_get_prompts_of_their_own() -> None:
    named, free, sentence = asked_findings([" Pleural Effusion ", "rib fracture", "The heart is large."], KNOWN)
    assert named is KNOWN[0]
    assert "No rib fracture." in free.negative
    assert sentence.positive == ("The heart is large.",)


@pytest.mark.parametrize("prompts", [[], ["a"] * 17, [""], [" \t"], ["x" * 301], ["a\x00b"], ["a\u202eb"]])
def test_prompts_out_of_bounds_are_refused(prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="prompt"):
        asked_findings(prompts, KNOWN)


def test_reports_are_bounded_in_characters_and_sentences() -> None:
    assert checked_report("A nodule.") == "A nodule."
    assert checked_sentences("A nodule.  No mass.") == [(0, 9), (11, 19)]
    for report in ("", "  ", "x" * 20_001):
        with pytest.raises(ValueError, match="report"):
            checked_report(report)
    with pytest.raises(ValueError, match="65 sentences"):
        checked_sentences("A nodule. " * 65)
