"""Leakage: a planted answer is named by its input, and mismatched pairs take it away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_medclip.audits import AuditResult, leakage
from monai_medclip.audits.leakage import COLUMNS, another_patients

NAMES = ("diseased",)
COMPLAINTS = ("cough", "fever", "dyspnea", "chest pain")


def items(count: int, *, first: int = 0, told: float = 1.0) -> list[dict]:
    """Every second patient is diseased; the findings say so in a share of the reports, the indication never."""
    made = []
    for number in range(first, first + count):
        sick = bool(number % 2)
        said = sick if (number // 2 * 7) % 10 < 10 * told else not sick
        sections = {
            "indication": COMPLAINTS[number // 2 % 4],
            "findings": "There is an opacity." if said else "The lungs are clear.",
        }
        item = {"id": f"i{number}", "patient_id": f"p{number}", "label": [float(sick)], "sections": sections}
        made.append({**item, "text": "\n".join(sections.values())})
    return made


def embeddings(of: list[dict], shift: float, seed: int) -> np.ndarray:
    """Noise (N, 4), moved by the first label in its first column."""
    noise = np.random.default_rng(seed).normal(size=(len(of), 4))
    noise[:, 0] += shift * np.array([item["label"][0] for item in of])
    return noise


def macro(result: AuditResult) -> dict[str, dict]:
    return {row["input"]: row for row in result.rows if row["finding"] == "macro"}


@pytest.fixture(scope="module")
def full() -> AuditResult:
    """Text that tells everything, an image that tells something."""
    train, test = items(120), items(80, first=120)
    return leakage(
        train,
        test,
        NAMES,
        image_train=embeddings(train, 1.0, 0),
        image_test=embeddings(test, 1.0, 1),
        text_train=torch.tensor(embeddings(train, 8.0, 2)),
        text_test=torch.tensor(embeddings(test, 8.0, 3)),
        bootstrap=100,
    )


def test_rows_are_one_table(full):
    assert {tuple(row) for row in full.rows} == {COLUMNS}
    assert [row["input"] for row in full.rows if row["finding"] == "macro"] == [
        "majority class",
        "whole text alone",
        "findings alone",
        "indication alone",
        "indication + findings alone",
        "image alone",
        "image + text",
        "image + another patient's text, in test",
        "image + another patient's text, in training and test",
    ]
    for row in full.rows:
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        assert (row["accuracy"] is None) == (row["input"] != "majority class")
        assert row["positives"] == (None if row["finding"] == "macro" else 40)
        assert row["items"] == 80


def test_an_input_that_holds_the_answer_is_named(full):
    rows = macro(full)
    assert {name for name, row in rows.items() if row["leaky"]} == {
        "whole text alone",
        "findings alone",
        "indication + findings alone",
        "image + text",
    }
    assert rows["findings alone"]["auc"] == 1.0
    assert rows["indication alone"]["auc"] == 0.5
    assert full.warning
    assert full.verdict.startswith(
        "The words of the whole text alone give AUC 1.000 [1.000, 1.000]: a probe that reads them is read the answer."
    )
    assert "Not tested, as too few items have it: impression." in full.verdict


def test_the_majority_ranks_nothing(full):
    row = macro(full)["majority class"]
    assert (row["auc"], row["auc_low"], row["auc_high"], row["accuracy"]) == (0.5, 0.5, 0.5, 0.5)
    train, test = items(40), items(40, first=40)
    rare = [item for item in test if not item["label"][0]] + test[1:8:2]
    found = macro(leakage(train[:20] + train[20::2], rare, NAMES, bootstrap=0))
    assert found["majority class"]["accuracy"] == 20 / 24


def test_another_patients_text_takes_its_share_away(full):
    rows = macro(full)
    image, both = rows["image alone"]["auc"], rows["image + text"]["auc"]
    assert 0.65 < image < 0.85  # a shift of one standard deviation: 0.76
    assert both > 0.99
    assert rows["image + another patient's text, in test"]["auc"] < 0.65  # the probe listens to the wrong patient
    trained = rows["image + another patient's text, in training and test"]["auc"]
    assert trained == pytest.approx(image, abs=0.08)  # what is left is the image's


def test_no_item_gets_a_text_of_its_own_patient():
    patients = ["a"] * 90 + ["b", "c"] * 5
    chosen = another_patients(patients, seed=0)
    assert all(patients[other] != own for own, other in zip(patients, chosen, strict=True))
    np.testing.assert_array_equal(chosen, another_patients(patients, seed=0))
    assert (chosen != another_patients(patients, seed=1)).any()
    with pytest.raises(ValueError, match="all 3 items are of one patient"):
        another_patients(["a"] * 3, seed=0)


def test_a_model_of_the_image_alone_is_not_warned_of():
    train, test = items(60), items(40, first=60)
    images = {"image_train": embeddings(train, 1.0, 0), "image_test": embeddings(test, 1.0, 1)}
    found = leakage(train, test, NAMES, **images, bootstrap=20)
    assert not found.warning
    assert "alone would give AUC 1.000 [1.000, 1.000]; the model reads no text." in found.verdict
    assert leakage(train, test, NAMES, **images, model_reads=("findings",), bootstrap=20).warning


def test_a_clean_input_warns_only_where_it_surely_beats_the_image():
    train, test = items(120), items(80, first=120)
    for item in train + test:
        item["sections"]["indication"] = "known mass" if item["label"][0] and int(item["id"][1:]) % 4 == 1 else "cough"

    def audit(shift: float, bootstrap: int = 200) -> AuditResult:
        images = {"image_train": embeddings(train, shift, 0), "image_test": embeddings(test, shift, 1)}
        given = {"model_reads": ("indication",), "sections_tested": (), "bootstrap": bootstrap}
        return leakage(train, test, NAMES, **images, **given)

    weak, equal, strong = audit(0.0), audit(0.8), audit(3.0)
    assert macro(weak)["indication alone"]["auc"] == 0.75  # half of the diseased are told: 0.5 + 0.5 / 2
    assert not macro(weak)["indication alone"]["leaky"]
    assert weak.warning
    assert "more than the image alone gives" in weak.verdict
    assert 0.68 < macro(equal)["image alone"]["auc"] < 0.75  # worse, but the interval of the difference holds 0
    assert not equal.warning
    assert audit(0.8, bootstrap=0).warning  # nothing says how sure it is
    assert not strong.warning
    assert "they are neither findings nor impression." in strong.verdict


def test_a_leaky_input_that_tells_nothing_still_warns_and_says_so():
    train, test = items(120, told=0.5), items(80, first=120, told=0.5)
    found = leakage(train, test, NAMES, model_reads=("findings",), bootstrap=100)
    assert macro(found)["findings alone"]["auc"] < 0.65
    assert found.warning
    assert "though they hold what the reader of the image found" in found.verdict


def test_text_rows_alone_and_none_at_all():
    train, test = items(40), items(20, first=40)
    found = leakage(train, test, NAMES, bootstrap=20)
    assert "image alone" not in macro(found)
    assert "Without image embeddings the image alone was not tested." in found.verdict
    bare = [[{key: item[key] for key in ("id", "patient_id", "label")} for item in side] for side in (train, test)]
    nothing = leakage(*bare, NAMES, bootstrap=20)
    assert list(macro(nothing)) == ["majority class"]
    assert not nothing.warning
    assert nothing.verdict.startswith("The model reads no text, and there is none to test.")
    features = {"text_train": embeddings(train, 0, 0), "text_test": embeddings(test, 0, 1)}
    hidden = leakage(*bare, NAMES, **features, bootstrap=20)
    assert "too few items have it to test it alone" in hidden.verdict


def test_headings_are_read_where_there_are_no_sections():
    train, test = (
        [{**i, "sections": None, "text": f"INDICATION: Cough. FINDINGS: {i['sections']['findings']}"} for i in side]
        for side in (items(40), items(20, first=40))
    )
    found = macro(leakage(train, test, NAMES, bootstrap=0))
    assert found["findings alone"]["auc"] == 1.0
    assert found["indication alone"]["auc"] == 0.5
    assert found["findings alone"]["auc_low"] is None


def test_a_finding_with_one_class_on_test_has_no_figure_and_is_named():
    train, test = items(40), items(20, first=40)
    for item in train + test:
        item["label"] = [item["label"][0], 1 - item["label"][0] if item in train else math.nan]
    found = leakage(train, test, ("diseased", "healthy"), bootstrap=20)
    figures = {row["finding"]: row for row in found.rows if row["input"] == "findings alone"}
    assert figures["macro"]["auc"] == figures["diseased"]["auc"] == 1.0
    assert math.isnan(figures["healthy"]["auc"])
    assert figures["healthy"]["items"] == 0
    assert "No AUC for healthy: the test items have one class only." in found.verdict


def test_bad_input_is_named():
    train, test = items(20), items(10, first=20)
    with pytest.raises(ValueError, match="'diseased' has 1 training patients with it and 10 without"):
        leakage([*train[::2], train[1]], test, NAMES)
    with pytest.raises(ValueError, match="'diseased' has 0 training patients with it"):
        leakage(train[::2], test, NAMES)
    with pytest.raises(ValueError, match=r"item i0 has 1 labels for the 2 findings"):
        leakage(train, test, ("diseased", "mass"))
    with pytest.raises(ValueError, match=r"sections=\('history',\): give a list of some of"):
        leakage(train, test, NAMES, sections_tested=[("history",)])
    with pytest.raises(ValueError, match="20 training and 0 test items"):
        leakage(train, [], NAMES)
    with pytest.raises(ValueError, match="image embeddings of one side only"):
        leakage(train, test, NAMES, image_train=embeddings(train, 1, 0))
    with pytest.raises(ValueError, match=r"text embeddings \(20, 4\) and \(9, 4\) for 20 training and 10 test items"):
        leakage(train, test, NAMES, text_train=embeddings(train, 1, 0), text_test=embeddings(test[:9], 1, 0))
