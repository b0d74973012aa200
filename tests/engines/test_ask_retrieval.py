"""Asked for the other side: ranks are the metrics' own, mistakes really are, and nobody finds their own report."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_medclip.engines import Auditor, EmbeddingStore, RetrievalAnswer, ask_retrieval, build_gallery
from monai_medclip.index import draft_report, similar_cases
from monai_medclip.metrics import retrieval, retrieval_breakdown, retrieval_ranks
from monai_medclip.writers import IMAGE_QUERY, TEXT_QUERY, WrongAnswer

from .store_cases import FINDINGS, case, counted, patients, store, tokenizer


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    folder = tmp_path_factory.mktemp("data")
    return store(folder, {split: patients(folder, split, n) for split, n in (("train", 10), ("val", 4), ("test", 8))})


@pytest.fixture(scope="module")
def answer(asked: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> RetrievalAnswer:
    """With the test items in the gallery, where each finds itself first unless it is kept out."""
    return ask_retrieval(
        asked,
        output_dir=str(tmp_path_factory.mktemp("answer")),
        index_dir=str(tmp_path_factory.mktemp("index")),
        gallery=("train", "test"),
        cases=3,
        similar=3,
        approximate="hnsw",
        auditor=Auditor(asked, FINDINGS, tokenizer, bootstrap=20),
        audits=["duplicates"],
        bootstrap=20,
    )


@pytest.fixture(scope="module")
def metrics(answer: RetrievalAnswer) -> dict[str, Any]:
    return json.loads(answer.metrics_file.read_text())


def test_figures_are_those_of_the_functions_themselves(
    asked: EmbeddingStore, answer: RetrievalAnswer, metrics: dict
) -> None:
    test = asked["test"]
    groups = np.array(test.patients)
    expected = retrieval(test.image, test.text, test.positives, ks=(1, 5, 10), patients=groups, bootstrap=20)
    assert answer.report == expected
    flat = expected.as_dict()
    assert {name: metrics["retrieval"][name] for name in flat} == pytest.approx(flat)
    ranks = retrieval_ranks(test.image, test.text, test.positives)
    items = asked.kept("test")
    covariates = {
        "view": [item["view"].upper() for item in items],
        "sex": [{"f": "female", "m": "male"}[item["meta"]["sex"]] for item in items],
        "finding": [item["labels"] for item in items],
    }
    rows = retrieval_breakdown(ranks, covariates, ks=(1, 5, 10), patients=groups, bootstrap=20)
    assert answer.breakdown == rows
    assert [row["value"] for row in metrics["breakdown"]] == [row.value for row in rows]
    assert metrics["items"] == {"train": 20, "val": 8, "test": 16}


def test_predictions_are_the_ranks_of_every_test_item(asked: EmbeddingStore, answer: RetrievalAnswer) -> None:
    with answer.predictions_file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    test = asked["test"]
    assert [row["id"] for row in rows] == list(test.ids)
    for name, ranks in retrieval_ranks(test.image, test.text, test.positives).columns().items():
        assert [float(row[name]) for row in rows] == ranks.tolist()


def test_the_own_patient_is_never_among_similar_cases(
    asked: EmbeddingStore, answer: RetrievalAnswer, metrics: dict
) -> None:
    test = asked["test"]
    assert list(answer.similar) == list(test.ids[:3])
    for number, (name, cases) in enumerate(answer.similar.items()):
        assert similar_cases(answer.gallery.images, test.image[[number]], 1)[0][0].score == pytest.approx(1, abs=1e-5)
        assert [one.rank for one in cases] == [1, 2, 3]
        assert test.patients[number] not in {one.record["patient_id"] for one in cases}
        own = test.image[number]
        others = torch.cat([asked[split].image for split in ("train", "test")])
        patients_of = [*asked["train"].patients, *test.patients]
        cosines = (others @ own)[[patient != test.patients[number] for patient in patients_of]]
        assert [one.score for one in cases] == pytest.approx(
            cosines.sort(descending=True).values[:3].tolist(), abs=1e-5
        )
        assert [one["record"]["id"] for one in metrics["similar_cases"][name]] == [one.record["id"] for one in cases]


def test_drafts_quote_other_patients_only(asked: EmbeddingStore, answer: RetrievalAnswer) -> None:
    test, html = asked["test"], answer.report_file.read_text(encoding="utf-8")
    for number, (name, draft) in enumerate(answer.drafts.items()):
        sources = {source.patient_id for one in draft.sentences for source in one.sources}
        assert sources
        assert test.patients[number] not in sources
        assert draft == draft_report(
            test.image[number], answer.gallery.sentences, exclude_patients={test.patients[number]}
        )
        everyone = draft_report(test.image[number], answer.gallery.sentences)
        said = {source.patient_id for one in everyone.sentences for source in one.sources}
        assert test.patients[number] in said  # who would have been quoted
        assert name in html
    assert "NOT A REPORT" in html


def test_the_approximate_search_is_judged_against_the_exact_one(answer: RetrievalAnswer, metrics: dict) -> None:
    assert metrics["approximate"] == {"kind": "hnsw", "recall": 1.0}  # of a handful of images


def test_the_report_stands_alone(answer: RetrievalAnswer) -> None:
    html = answer.report_file.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link", re.sub(r"base64,[^\"]+", "", html))
    for title in ("Figures: retrieval", "By view and finding", "Similar cases: test0pa", "Audit: duplicates"):
        assert title in html
    pictures = sorted(path.name for path in (answer.report_file.parent / "pictures").iterdir())
    assert len(pictures) == html.count("<img")
    assert pictures[:2] == ["01_retrieval.png", "02_retrieval.png"]


def mistakes(asked: EmbeddingStore, folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: int) -> list[WrongAnswer]:
    """The wrong answers that the report shows."""
    shown: list[WrongAnswer] = []
    module = sys.modules["monai_medclip.engines.ask_retrieval"]
    stock = module.wrong_answers_section

    def kept(cases: list[WrongAnswer]) -> Any:
        shown.extend(cases)
        return stock(cases)

    monkeypatch.setattr(module, "wrong_answers_section", kept)
    ask_retrieval(
        asked,
        output_dir=str(folder / "answer"),
        index_dir=str(folder / "index"),
        gallery=("test",),
        ks=(1,),
        cases=0,
        wrong=wrong,
        bootstrap=0,
    )
    return shown


def test_wrong_answers_are_the_nearest_wrong_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ["spot lungs", "lump lungs", "heart", "heart clear", "normal"]
    said = ["lump lungs", "spot lungs heart", "clear", "heart clear", "normal"]
    items = [case(tmp_path, name, *pair) for name, pair in zip("abcde", zip(seen, said), strict=True)]
    shown = mistakes(store(tmp_path, {"test": items}), tmp_path, monkeypatch, wrong=2)
    # Images: b finds a's report with cosine 1, a finds b's with 2 / sqrt(6); c's mistake, 1 / sqrt(2), is the third.
    first, second = (one for one in shown if one.query == IMAGE_QUERY)
    assert (first.item, first.wrong_item) == ("b", "a")
    assert (first.wrong_cosine, first.cosine) == pytest.approx((1.0, 1 / np.sqrt(6)), abs=1e-5)
    assert (second.item, second.wrong_item) == ("a", "b")
    assert (second.wrong_cosine, second.cosine) == pytest.approx((2 / np.sqrt(6), 0.5), abs=1e-5)
    assert first.text == "spot lungs heart"
    assert first.wrong_text == "lump lungs"
    assert np.array_equal(first.image, np.array([[0, 0, 0, 0, 0], [1, 0, 0, 1, 0]]))
    # Reports: a's finds b's image, b's finds a's, and both are ranked before their own.
    assert [(one.item, one.wrong_item) for one in shown if one.query == TEXT_QUERY] == [("a", "b"), ("b", "a")]
    assert all(one.rank > 1 and one.wrong_cosine > one.cosine for one in shown)


def test_a_report_of_the_same_words_is_no_mistake_and_each_wording_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = ["spot", "lump", "spot", "lump", "heart"]
    said = ["spot", "Spot", "spot", "spot", "heart"]  # two images of a lump are said to show a spot
    items = [case(tmp_path, name, *pair) for name, pair in zip("abcde", zip(seen, said), strict=True)]
    shown = mistakes(store(tmp_path, {"test": items}), tmp_path, monkeypatch, wrong=3)
    assert shown == []  # no other wording is nearer
    items[0]["text"] = items[2]["text"] = "lump"
    shown = mistakes(store(tmp_path / "more", {"test": items}), tmp_path / "more", monkeypatch, wrong=3)
    assert [(one.query, one.item) for one in shown] == [
        (IMAGE_QUERY, "a"),
        (IMAGE_QUERY, "b"),
        (TEXT_QUERY, "a"),
        (TEXT_QUERY, "b"),
    ]  # c and d say what a and b say


def test_a_gallery_may_hold_cases_that_this_run_does_not_know(asked: EmbeddingStore, tmp_path: Path) -> None:
    earlier = [case(tmp_path, "earlier", "lungs", "No spot.", patient_id="earlier")]
    build_gallery(store(tmp_path, {"train": earlier}), tmp_path / "index")
    found = ask_retrieval(
        asked,
        output_dir=str(tmp_path / "answer"),
        index_dir=str(tmp_path / "index"),
        cases=1,
        similar=1,
        wrong=0,
        bootstrap=0,
    )
    assert [one.record["id"] for one in found.similar["test0pa"]] == ["earlier"]  # the first of equal ones
    assert len(found.gallery.images) == 21


def test_the_same_data_make_the_same_files(asked: EmbeddingStore, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ask_retrieval(
            asked,
            output_dir=str(tmp_path / name),
            index_dir=str(tmp_path / f"index {name}"),
            cases=1,
            similar=1,
            wrong=1,
            bootstrap=5,
        )
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.csv", "report.html"} <= {str(file) for file in files}
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_pooled_features_share_no_space_with_reports(asked: EmbeddingStore, tmp_path: Path) -> None:
    pooled = store(tmp_path, asked.items, space="pooled")
    with pytest.raises(ValueError, match="retrieval compares images with texts, and space='pooled'"):
        ask_retrieval(pooled, output_dir=str(tmp_path / "answer"), index_dir=str(tmp_path / "index"))
    assert not (tmp_path / "answer").exists()
    assert torch.allclose(pooled["test"].image[0], counted("lungs"), atol=1e-5)
