"""What training changed: the tables hold the metrics' own figures of each network on each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_medclip.engines import (
    EmbeddingStore,
    Moment,
    before_after_section,
    choose_class,
    evaluate_zero_shot,
    judge_moment,
)
from monai_medclip.engines.before_after import moments_as_dict
from monai_medclip.metrics import clip_score, in_batch_top1
from monai_medclip.writers import figure_text

from .store_cases import FINDINGS, case, clip, patients, store, tokenizer

CLASSES = ({"name": "nodule", "positive": ["spot"]}, {"name": "mass", "positive": ["lump"]})


def with_one_class(items: list[dict]) -> list[dict]:
    """Items that have both findings count as the first."""
    return [{**item, "labels": item["labels"][:1]} for item in items]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddingStore, EmbeddingStore]:
    """The same items before training, when images are turned around, and after."""
    folder = tmp_path_factory.mktemp("data")
    items = {split: with_one_class(patients(folder, split, 8)) for split in ("train", "val", "test")}
    untrained = clip()
    untrained.image_projection.weight.data.neg_()
    return store(folder, items, untrained), store(folder, items)


@pytest.fixture(scope="module")
def moments(stores: tuple[EmbeddingStore, EmbeddingStore]) -> list[Moment]:
    options = {"classes": CLASSES, "batch_size": 16, "bootstrap": 20}
    return [
        judge_moment(name, one, split, FINDINGS, tokenizer, **options)
        for name, one in zip(("before training", "after training"), stores, strict=True)
        for split in ("train", "test")
    ]


def test_a_moment_holds_the_figures_of_the_functions_themselves(
    stores: tuple[EmbeddingStore, EmbeddingStore], moments: list[Moment]
) -> None:
    after, found = stores[1], moments[3]
    test = after["test"]
    asked = evaluate_zero_shot(after.clip, after["val"], test, FINDINGS, tokenizer, bootstrap=20)
    assert found.asked is not None
    assert found.asked.report == asked.report
    chosen, _ = choose_class(after.clip, test, after.kept("test"), CLASSES, tokenizer, bootstrap=20)
    assert found.chosen == chosen
    groups = np.array(test.patients)
    assert found.score == clip_score(test.image, test.text, test.positives, patients=groups, bootstrap=20)
    assert found.in_batch == in_batch_top1(
        test.image, test.text, batch_size=16, logit_scale=float(after.clip.logit_scale.detach())
    )


def test_turned_images_turn_the_clip_score_around(moments: list[Moment]) -> None:
    before, after = moments[1].score, moments[3].score
    assert before.score == pytest.approx(-after.score)
    assert after.score > 0


def test_the_tables_have_a_row_per_network_and_split(moments: list[Moment]) -> None:
    section = before_after_section(moments)
    assert [len(table.rows) for table in section.tables] == [4, 4, 4]
    names = ["before training, train", "before training, test", "after training, train", "after training, test"]
    findings, classes, pairs = (table.checked() for table in section.tables)
    for table in (findings, classes, pairs):
        assert [row[0] for row in table.rows] == names
    asked, chosen, score, batch = moments[3].asked, moments[3].chosen, moments[3].score, moments[3].in_batch
    assert findings.rows[3][1] == figure_text(asked.report.macro_auc, asked.report.macro_auc_interval)
    assert findings.columns[1] == "AUC"
    assert classes.rows[3][1] == figure_text(chosen.accuracy, chosen.accuracy_interval)
    assert pairs.rows[3][1] == figure_text(score.score, score.score_interval)
    assert list(pairs.rows[3][3:]) == [batch.accuracy, batch.chance, batch.loss, batch.loss_chance]
    assert batch.chance == 1 / 16
    assert "batch of 16" in pairs.columns[3]


def test_without_findings_classes_or_a_full_batch_their_figures_are_left_out(
    stores: tuple[EmbeddingStore, EmbeddingStore],
) -> None:
    found = judge_moment("the network", stores[1], "test", (), tokenizer, batch_size=17, bootstrap=0)
    assert (found.asked, found.chosen, found.in_batch) == (None, None, None)
    (pairs,) = before_after_section([found]).tables
    assert pairs.checked().rows[0][3:] == [None] * 4
    assert found.as_dict()["zero_shot"] == found.as_dict()["classes"] == found.as_dict()["in_batch_top1"] == {}


def test_the_result_file_is_by_network_and_split(moments: list[Moment]) -> None:
    found = moments_as_dict(moments)
    assert {name: list(splits) for name, splits in found.items()} == {
        "before training": ["train", "test"],
        "after training": ["train", "test"],
    }
    assert found["before training"]["test"] == moments[1].as_dict()
    assert found["after training"]["train"]["clip_score"] == moments[2].score.as_dict()


def test_an_item_of_two_classes_is_refused(tmp_path: Path) -> None:
    items = [case(tmp_path, f"i{n}", "spot", "Spot.", labels=["nodule", "mass"]) for n in range(3)]
    both = store(tmp_path, {"test": items})
    with pytest.raises(ValueError, match="and one is to be chosen"):
        judge_moment("the network", both, "test", (), tokenizer, classes=CLASSES, bootstrap=0)
