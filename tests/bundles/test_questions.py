"""Asking the space: the questions on one trained run, on every dataset overlay, and settings tried by a sweep."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_medclip.engines import LrSchedule
from monai_medclip.networks import CLIP, ImageClassifier, MLPHead, load_probe

from .runs import OVERLAYS, TINY_PHANTOM, files, own_data, run, run_as_user, workflow

FINDINGS = ["nodule", "pleural effusion"]
QUESTIONS: dict[str, dict[str, Any]] = {
    "zero_shot": {},
    "probe": {"inputs": ["image", "text"], "heads": ["logistic"], "shots": [1], "draws": 2},
    "retrieve": {"cases": 1, "similar": 2, "wrong": 1},
    "audit": {},
}
QUICK: dict[str, Any] = {"bootstrap": 20, "audits": []}


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def asked(trained: Path, phantom: Path, embeddings: Path, tmp_path: Path) -> dict[str, Any]:
    """Questions about the trained run; all answers lie in the test's own folder."""
    folders = {"dataset_dir": phantom, "output_dir": trained, "embeddings_dir": embeddings}
    folders |= {"answer_dir": tmp_path / "answer", "fingerprints": embeddings / "fingerprints.npz"}
    return {**TINY_PHANTOM, **{name: str(path) for name, path in folders.items()}, **QUICK}


def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def check_the_report(folder: Path, *words: str) -> None:
    """One page that needs no other file, with all of the pictures."""
    page = (folder / "report.html").read_text()
    assert "Research use only" in page
    assert 'src="http' not in page
    assert "<script src" not in page
    assert page.count('src="data:image/png') == len(list((folder / "pictures").glob("*.png")))
    for word in words:
        assert word in page, word


@pytest.fixture(scope="module")
def asked_by_a_user(trained: Path, phantom: Path, embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zero-shot as it is, with every audit and the tables of before and after, from a folder of her own."""
    folder = tmp_path_factory.mktemp("question")
    options = {**TINY_PHANTOM, "dataset_dir": phantom, "output_dir": trained, "embeddings_dir": embeddings}
    options |= {"answer_dir": "answer", "bootstrap": 20}
    (folder / "printed.txt").write_text(run_as_user(files("zero_shot"), folder, **options))
    return folder


def test_zero_shot_figures_are_those_of_evaluation(asked_by_a_user: Path, trained: Path) -> None:
    answer, known = asked_by_a_user / "answer", figures(trained)
    found = figures(answer)
    assert found["items"] == {"train": 20, "val": 10, "test": 10}
    for name, value in known["zero_shot"].items():
        if "auc" in name and not name.endswith(("_low", "_high")):
            assert found["zero_shot"][name] == pytest.approx(value, abs=1e-6), name
    logits = {row["id"]: float(row["nodule logit"]) for row in rows(trained)}
    assert {row["id"]: float(row["nodule logit"]) for row in rows(answer)} == pytest.approx(logits, abs=1e-3)


def test_zero_shot_tells_what_training_changed_and_what_else_may_explain_it(asked_by_a_user: Path) -> None:
    answer = asked_by_a_user / "answer"
    found = figures(answer)
    assert {network: set(splits) for network, splits in found["tables"].items()} == {
        "before training": {"train", "test"},
        "after training": {"train", "test"},
    }
    before, after = (found["tables"][f"{when} training"]["test"]["zero_shot"] for when in ("before", "after"))
    assert before != after
    assert after["macro_auc"] == pytest.approx(found["zero_shot"]["macro_auc"])
    assert set(found["audits"]) == {"duplicates", "leakage", "shortcuts", "negation", "laterality", "prompts"}
    verdicts = [audit["verdict"] for audit in found["audits"].values()]
    assert all(verdicts)
    check_the_report(answer, "Before and after training", "Audit: leakage")
    printed = (asked_by_a_user / "printed.txt").read_text()
    assert "Mean AUC over the findings" in printed
    assert "Audit 'shortcuts'" in printed
    assert "report.html" in printed
    assert json.loads((answer / "run.json").read_text())["data"]["test"]["items"] == 10
    assert sorted(path.name for path in asked_by_a_user.iterdir()) == ["answer", "printed.txt"]


def test_embeddings_are_made_once(
    asked_by_a_user: Path, asked: dict[str, Any], embeddings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encode, seen = CLIP.encode_image, []

    def counted(self: CLIP, image: torch.Tensor) -> torch.Tensor:
        seen.append(len(image))
        return encode(self, image)

    monkeypatch.setattr(CLIP, "encode_image", counted)
    before = {path: path.stat().st_mtime_ns for path in embeddings.rglob("*") if path.is_file()}
    run("zero_shot", **asked)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum(seen) <= 6  # one of each of three splits, of two networks, to see that they still hold
    first, second = (figures(folder)["zero_shot"] for folder in (asked_by_a_user / "answer", tmp_path / "answer"))
    assert second == first
    assert rows(tmp_path / "answer") == rows(asked_by_a_user / "answer")


@pytest.fixture(scope="module")
def fine_tuned(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image-only baseline, trained on the labels of the same split."""
    out = tmp_path_factory.mktemp("fine_tuned")
    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(out), "findings": FINDINGS}
    made = run("train", "fine_tuned", **options, max_epochs=2, schedule="plateau")
    network = made.parser.get_parsed_content("network")
    assert isinstance(network, ImageClassifier)
    assert network.findings == tuple(FINDINGS)
    return out


def test_the_image_only_baseline_is_trained_and_judged(fine_tuned: Path) -> None:
    found = figures(fine_tuned)["classification"]
    assert 0 <= found["macro_auc"] <= 1
    assert len(rows(fine_tuned)) == 10
    with (fine_tuned / "history.csv").open(newline="") as stream:
        history = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in history] == [1, 2]
    assert all(0 <= float(row["macro_auc"]) <= 1 and float(row["val_loss"]) > 0 for row in history)
    assert history[0]["learning_rate"] == "0.001"  # a plateau starts at the peak
    check_the_report(fine_tuned, "Trained on labels alone")


@pytest.mark.parametrize("architecture", ["test_resnet", "densenet121"])
def test_the_baseline_may_have_another_encoder(architecture: str, phantom: Path, tmp_path: Path) -> None:
    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(tmp_path)}
    made = workflow("train", "fine_tuned", **options, architecture=architecture, image_size=64)
    image = made.parser.get_parsed_content("validate::dataset")[0]["image"]
    network = made.parser.get_parsed_content("network")
    assert network.eval()(image[None]).shape == (1, 6)
    assert image.shape[1:] == (64, 64)


def test_probes_stand_beside_zero_shot_and_the_baseline(
    asked: dict[str, Any], fine_tuned: Path, trained: Path, phantom: Path, tmp_path: Path
) -> None:
    reads = {"inputs": ["image", "image+text", "indication"], "heads": ["logistic", "mlp"], "shots": [1], "draws": 2}
    options = {**asked, "findings": FINDINGS}
    made = run("probe", **options, **reads, fine_tuned={"small ViT": str(fine_tuned)})
    answer = tmp_path / "answer"
    found = figures(answer)
    assert set(found["probes"]) == {"image, logistic", "image, mlp", "image+text, logistic", "image+text, mlp"}
    assert [found["probes"][name]["leaky"] for name in ("image, logistic", "image+text, logistic")] == [False, True]
    assert list(found["left_out"]) == ["indication"]  # phantom reports are one text
    assert found["fine_tuned"]["small ViT"]["macro_auc"] == pytest.approx(
        figures(fine_tuned)["classification"]["macro_auc"]
    )
    assert found["zero_shot"]["nodule_auc"] == pytest.approx(figures(trained)["zero_shot"]["nodule_auc"], abs=1e-6)
    assert {tuple(one["cases"] for one in curve) for curve in found["few_shot"].values()} == {(1, None)}
    check_the_report(answer, "small ViT", "(leaky)", "Few-shot")

    network, store = (made.parser.get_parsed_content(name) for name in ("trained", "store"))
    probe = load_probe(network, answer / "probe_image_logistic.pt").eval()
    with torch.no_grad():
        logits = torch.cat([probe(item["image"].as_tensor()[None]) for item in store.dataset("test")]).tolist()
    written = [[float(row[f"{name} logit"]) for name in FINDINGS] for row in rows(answer)]
    np.testing.assert_allclose(logits, written, atol=1e-3)
    assert isinstance(load_probe(network, answer / "probe_image+text_mlp.pt").head, MLPHead)

    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(trained), "findings": FINDINGS}
    options |= {"explanation_dir": str(tmp_path / "maps"), "probe_file": str(answer / "probe_image_logistic.pt")}
    run("explain", "probe_classifier", **options, cases=1)
    with (tmp_path / "maps" / "explanations.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    (item,) = {row["id"] for row in table}
    scores = dict(zip(FINDINGS, written[[row["id"] for row in rows(answer)].index(item)], strict=True))
    for row in table:
        assert float(row["score"]) == pytest.approx(scores[row["prompt"]], abs=1e-3)
        assert float(row["largest_heat"]) > 0

    options |= {"prediction_dir": str(tmp_path / "predictions")}
    run("inference", "probe_classifier", **options)
    with (tmp_path / "predictions" / "predictions.csv").open(newline="") as stream:
        predicted = {row["id"]: [float(row[name]) for name in FINDINGS] for row in csv.DictReader(stream)}
    asked_again = [predicted[row["id"]] for row in rows(answer)]
    np.testing.assert_allclose(asked_again, written, atol=1e-3)


def test_retrieval_figures_are_those_of_evaluation(asked: dict[str, Any], trained: Path, tmp_path: Path) -> None:
    options = {**asked, **QUESTIONS["retrieve"], "index_dir": str(tmp_path / "index"), "audits": ["duplicates"]}
    run("retrieve", **options, gallery=["train", "val"])
    answer = tmp_path / "answer"
    found, known = figures(answer), figures(trained)["retrieval"]
    assert {name: found["retrieval"][name] for name in known if not name.endswith(("_low", "_high"))} == pytest.approx(
        {name: value for name, value in known.items() if not name.endswith(("_low", "_high"))}, abs=1e-6
    )
    assert len(rows(answer)) == 10
    (cases,) = found["similar_cases"].values()
    assert len(cases) == 2
    (draft,) = found["drafts"].values()
    assert draft["notice"].startswith("NOT A REPORT")
    check_the_report(answer, "Similar cases", "Draft of quoted sentences", "Audit: duplicates")
    written = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()}
    assert written
    run("retrieve", **options, gallery=["train", "val"])
    assert {path: path.read_bytes() for path in written} == written  # the gallery has them already
    assert figures(answer) == found


def test_one_audit_alone(asked: dict[str, Any], tmp_path: Path) -> None:
    run("audit", **{**asked, "audits": ["negation"], "findings": FINDINGS})
    found = figures(tmp_path / "answer")
    assert set(found["audits"]) == {"negation"}
    assert found["audits"]["negation"]["verdict"]
    check_the_report(tmp_path / "answer", "Audit: negation")
    assert not (tmp_path / "answer" / "predictions.csv").exists()


def test_an_unknown_audit_is_named(asked: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError) as refused:
        run("audit", **{**asked, "audits": ["horoscope"]})
    assert "horoscope" in str(refused.value.__cause__)
    assert "leakage" in str(refused.value.__cause__)


def test_a_probe_reads_the_encoders_own_features(asked: dict[str, Any], clip_model: Path, tmp_path: Path) -> None:
    """A frozen encoder that no CLIP training has touched, straight from the library."""
    options = {**asked, "output_dir": str(tmp_path), "findings": ["nodule"], "inputs": ["image"]}
    options |= {"source": f"local-dir:{clip_model}", "space": "pooled", "threads": 1, "heads": ["logistic"]}
    made = run("probe", "pretrained", **options, shots=[1], draws=2)
    found = figures(tmp_path / "answer")
    assert found["zero_shot"] == {}  # words have no place among an encoder's own features
    network = made.parser.get_parsed_content("trained")
    probe = load_probe(network, tmp_path / "answer" / "probe_image_logistic.pt")
    assert (probe.space, probe.width) == ("pooled", network.image_encoder.width)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlaid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """A dataset overlay, trained for an epoch."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    options = {**own_data(request.param, request.getfixturevalue), "output_dir": str(out)}
    run("train", request.param, **options, max_epochs=1)
    return request.param, options


@pytest.mark.parametrize("task", QUESTIONS)
def test_every_question_is_answered_on_every_overlay(
    overlaid: tuple[str, dict[str, Any]], task: str, tmp_path: Path
) -> None:
    overlay, options = overlaid
    audits: dict[str, Any] = {"audit": {}, "probe": {"audits": ["shortcuts"]}, "retrieve": {"audits": ["duplicates"]}}
    audits = audits.get(task, {"audits": []})
    more = {"answer_dir": str(tmp_path / "answer"), "bootstrap": 20, **audits, **QUESTIONS[task]}
    made = run(task, overlay, **options, **more)
    answer, names = tmp_path / "answer", made.parser.get_parsed_content("findings")
    found = figures(answer)
    known = figures(Path(options["output_dir"]))
    if task == "zero_shot":
        assert found["zero_shot"]["macro_auc"] == pytest.approx(known["zero_shot"]["macro_auc"], abs=1e-6)
        assert f"{names[0]} probability" in rows(answer)[0]
    if task == "probe":
        assert {"image, logistic", "text, logistic"} == set(found["probes"])
        assert found["audits"]["shortcuts"]["verdict"]
        assert (answer / "probe_image_logistic.pt").is_file()
    if task == "retrieve":
        assert found["retrieval"]["items"] == known["items"]["test"]
    if task == "audit":
        assert set(found["audits"]) == {"duplicates", "leakage", "shortcuts", "negation", "laterality", "prompts"}
    else:
        assert len(rows(answer)) == known["items"]["test"]
    check_the_report(answer)


@pytest.mark.parametrize("overlay", ["iu_xray", "manifest"])
def test_the_baseline_is_trained_on_other_data(overlay: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    options = {**own_data(overlay, request.getfixturevalue), "output_dir": str(tmp_path), "max_epochs": 1}
    options.pop("image_encoder__image_size", None)
    run("train", f"{overlay}+fine_tuned", **options, architecture="test_resnet", image_size=64)
    assert 0 <= figures(tmp_path)["classification"]["macro_auc"] <= 1
    check_the_report(tmp_path)


@pytest.mark.parametrize("overlaid", ["manifest"], indirect=True)
def test_one_class_out_of_many_is_chosen_by_words(overlaid: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    overlay, options = overlaid
    classes = ["nodule", {"name": "normal", "positive": ["Normal chest. The lungs are clear."]}]
    asked = {**options, **QUICK, "findings": [], "classes": classes, "answer_dir": str(tmp_path)}
    run("zero_shot", overlay, **asked, before_training=None)
    found = figures(tmp_path)
    assert np.array(found["classes"]["confusion"]).sum() == len(rows(tmp_path)) == 7
    assert set(found["tables"]) == {"the network"}
    for row in rows(tmp_path):
        chances = [float(row[f"{name} class probability"]) for name in ("nodule", "normal")]
        assert sum(chances) == pytest.approx(1)
        assert row["chosen class"] == ("nodule", "normal")[int(np.argmax(chances))]
    check_the_report(tmp_path, "Confusion matrix")


GRID = {"schedule": ["cosine", "plateau"], "optimizer::_target_": ["torch.optim.AdamW", "torch.optim.Adam"]}


def test_a_sweep_as_a_user_runs_it_goes_on_after_it_was_killed(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**TINY_PHANTOM, "dataset_dir": str(phantom), "seed": 3, "max_epochs": 2, "learning_rate": 0.01}
    run("sweep", settings=settings, grid=GRID, output_dir=str(tmp_path / "whole"))

    step, epochs = LrSchedule.__call__, []

    def killed(self: LrSchedule, engine: Any) -> None:
        step(self, engine)
        if self.kind == "plateau":
            epochs.append(engine.state.epoch)
            if len(epochs) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(LrSchedule, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        run("sweep", settings=settings, grid=GRID, output_dir=str(tmp_path / "broken"))
    run("sweep", settings=settings, grid=GRID, output_dir=str(tmp_path / "broken"))
    assert epochs == [1, 2, 2]  # the second epoch of the killed trial again, and nothing of the finished ones
    whole, broken = (figures(tmp_path / name) for name in ("whole", "broken"))
    assert broken["validation"] == whole["validation"]
    assert {(row["schedule"], row["optimizer::_target_"]) for row in whole["validation"]} == {
        ("cosine", "torch.optim.AdamW"),
        ("cosine", "torch.optim.Adam"),
        ("plateau", "torch.optim.AdamW"),
    }
    for trial in (tmp_path / "whole" / "trials").iterdir():
        again = tmp_path / "broken" / "trials" / trial.name
        assert (again / "history.csv").read_bytes() == (trial / "history.csv").read_bytes()
        assert not (trial / "metrics.json").exists()  # test items are not asked
        record = json.loads((trial / "run.json").read_text())
        assert record["config"]["learning_rate"] == 0.01
    check_the_report(tmp_path / "whole", "The test items were not looked at")
