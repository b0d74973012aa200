import re

import pytest

from monai_medclip.data import PhantomPatient
from monai_medclip.data.phantom_words import ABSENT, IMPRESSION, NORMAL_IMPRESSION, PAIRS_ABSENT, PRESENT

KEYWORD = {
    "nodule": r"nodul",
    "mass": r"\bmass",
    "pleural effusion": r"effusion|pleural fluid|costophrenic",
    "consolidation": r"consolidation|airspace|pneumonia",
    "cardiomegaly": r"cardiomegaly|heart|cardiac",
    "pneumothorax": r"pneumothorax|pleural air|pleural line",
}
DENIAL = re.compile(r"\b(no|not|without|negative|free of|normal|neither|sharp|unremarkable)\b", re.IGNORECASE)


def _patients(count=150):
    return [PhantomPatient(5, k) for k in range(count)]


def _sentences(report):
    return re.split(r"(?<=[a-z])\. ", report.replace("IMPRESSION: ", ""))


@pytest.mark.parametrize("finding", list(KEYWORD))
def test_a_present_finding_is_said_and_an_absent_one_never_claimed(finding):
    for patient in _patients():
        present = finding in {lesion.finding for lesion in patient.findings}
        sentences = [s for s in _sentences(patient.report) if re.search(KEYWORD[finding], s, re.IGNORECASE)]
        sentences = [s for s in sentences if "abnormality" not in s]
        claims = [s for s in sentences if not DENIAL.search(s)]
        assert bool(claims) == present, (patient.index, patient.report)


def test_side_zone_and_size_are_told():
    for patient in _patients(60):
        for lesion in patient.findings:
            if lesion.side:
                assert lesion.side in patient.report.lower()


def test_sections_and_length():
    for patient in _patients(60):
        assert patient.report.startswith("FINDINGS: ")
        assert patient.report.count("IMPRESSION: ") == 1
        assert "{" not in patient.report
        assert 8 <= len(patient.report.split()) <= 120


def test_reports_are_varied_and_mostly_negate_something():
    reports = [patient.report for patient in _patients()]
    assert len(set(reports)) > 0.95 * len(reports)
    assert sum(bool(DENIAL.search(report)) for report in reports) > 0.8 * len(reports)


def test_every_finding_has_several_wordings():
    for words in (PRESENT, ABSENT, IMPRESSION):
        assert set(words) == set(KEYWORD)
        assert min(len(set(choices)) for choices in words.values()) >= 3
    assert min(len(choices) for choices in PAIRS_ABSENT.values()) >= 2
    assert len(NORMAL_IMPRESSION) >= 4


def test_without_all_findings_the_report_is_normal():
    patient = next(p for p in _patients() if len(p.findings) > 1)
    healthy = patient.report_without([lesion.finding for lesion in patient.findings])
    assert any(healthy.endswith(closing) for closing in NORMAL_IMPRESSION)
    assert patient.report_without() == patient.report
