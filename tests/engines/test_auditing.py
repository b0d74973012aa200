"""Audits by name: each is given the split that it may look at, and those without what they need are left out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from monai_medclip.audits import leakage, negation_audit, prompt_audit, prompt_figures
from monai_medclip.engines import AUDITS, Auditor, EmbeddingStore, audit_clip
from monai_medclip.engines.auditing import log_audits

from .store_cases import FINDINGS, NAMES, patients, store, tokenizer


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    folder = tmp_path_factory.mktemp("data")
    return store(folder, {split: patients(folder, split, n) for split, n in (("train", 12), ("val", 6), ("test", 8))})


@pytest.fixture(scope="module")
def auditor(asked: EmbeddingStore) -> Auditor:
    return Auditor(asked, FINDINGS, tokenizer, bootstrap=20, seed=3)


def test_every_audit_runs_by_its_name_in_the_order_asked_for(auditor: Auditor) -> None:
    names = ("prompts", *(name for name in AUDITS if name != "prompts"))
    found = auditor(names)
    assert tuple(found) == names
    assert {name: one.name for name, one in found.items()} == {name: name for name in names}
    assert auditor.names == NAMES


def test_an_unknown_name_is_refused_before_anything_runs(auditor: Auditor) -> None:
    with pytest.raises(ValueError, match=r"no audit is called \['leaks'\]: choose from duplicates, leakage"):
        auditor(["leakage", "leaks"])


def test_leakage_is_asked_of_the_kept_items_and_what_the_model_reads(asked: EmbeddingStore, auditor: Auditor) -> None:
    train, test = asked["train"], asked["test"]
    expected = leakage(
        asked.kept("train"),
        asked.kept("test"),
        NAMES,
        image_train=train.image,
        image_test=test.image,
        text_train=asked.texts("train", ("findings",)),
        text_test=asked.texts("test", ("findings",)),
        model_reads=("findings",),
        bootstrap=20,
        seed=3,
    )
    found = auditor(["leakage"], model_reads=("findings",))["leakage"]
    assert str(found) == str(expected)
    assert found.warning
    assert not auditor(["leakage"])["leakage"].warning  # a model that reads the image alone


def test_negation_is_asked_on_test_and_prompts_on_validation(asked: EmbeddingStore, auditor: Auditor) -> None:
    found = auditor(["negation", "prompts"])
    for name, split, ask in (("negation", "test", negation_audit), ("prompts", "val", prompt_figures)):
        items = asked[split]
        expected = ask(
            asked.clip,
            tokenizer,
            items.image,
            items.label,
            FINDINGS,
            patients=items.patients,
            bootstrap=20,
            generator=3,
        )
        assert str(found[name]) == str(prompt_audit(expected) if name == "prompts" else expected)


def test_without_findings_only_duplicates_are_looked_for(
    asked: EmbeddingStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = Auditor(asked, (), tokenizer)(list(AUDITS))
    assert list(found) == ["duplicates"]
    assert "The audit 'leakage' needs findings with labels, and there are none: it is left out." in caplog.text


def test_audits_that_ask_in_words_are_left_out_without_prompts_or_a_shared_space(
    asked: EmbeddingStore, tmp_path: Path
) -> None:
    asking = ["duplicates", "negation", "laterality", "prompts"]
    unasked = Auditor(asked, (), tokenizer, names=NAMES, bootstrap=20)
    assert list(unasked(asking)) == ["duplicates"]
    assert unasked(["leakage"])["leakage"].rows
    pooled = store(tmp_path, asked.items, space="pooled")
    assert list(Auditor(pooled, FINDINGS, tokenizer, bootstrap=20)(asking)) == ["duplicates"]


def test_an_audit_that_refuses_the_items_says_why_and_leaves_the_others(auditor: Auditor) -> None:
    found = auditor(["leakage", "negation"], model_reads=("impression",))
    assert found["leakage"].warning
    assert "It could not be run, so nothing is known: none of the 24 reports on 'train'" in found["leakage"].verdict
    assert found["negation"].rows


def test_audits_without_their_split_are_left_out(
    asked: EmbeddingStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test_only = store(tmp_path, {"train": [], "val": [], "test": asked.items["test"]})
    with caplog.at_level(logging.INFO):
        found = Auditor(test_only, FINDINGS, tokenizer, bootstrap=20)(["leakage", "shortcuts", "prompts", "negation"])
    assert list(found) == ["negation"]
    assert "The audit 'leakage' needs items on train, and there are none" in caplog.text
    assert "The audit 'prompts' needs items on val, and there are none" in caplog.text


def test_audits_alone_write_their_verdicts(auditor: Auditor, tmp_path: Path) -> None:
    path = audit_clip(auditor, ["duplicates", "leakage"], output_dir=str(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    found = auditor(["duplicates", "leakage"])
    assert list(metrics["audits"]) == ["duplicates", "leakage"]
    for name, one in found.items():
        assert metrics["audits"][name]["verdict"] == one.verdict
        assert one.verdict in path.read_text(encoding="utf-8").replace("&#x27;", "'")
    assert np.allclose(
        [row["auc"] for row in metrics["audits"]["leakage"]["rows"]], [row["auc"] for row in found["leakage"].rows]
    )
    assert path == tmp_path / "report.html"


def test_of_long_tables_the_means_are_printed(auditor: Auditor, caplog: pytest.LogCaptureFixture) -> None:
    found = auditor(["leakage"])
    with caplog.at_level(logging.INFO):
        log_audits(found)
    lines = caplog.text.splitlines()
    assert any("macro" in line for line in lines)
    assert not any("nodule" in line and "0." in line for line in lines[1:])
