"""Probes: the fitted head, the logits and the classifier of images say the same, with few cases or all."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from monai_medclip.audits import STRENGTHS, fit_logistic
from monai_medclip.engines import Embeddings, EmbeddingStore, ProbeInput, few_shot, fit_mlp, fit_probe, probe_features
from monai_medclip.engines.probe import SHOTS, _drawn
from monai_medclip.metrics import classification
from monai_medclip.networks import load_probe, save_probe
from monai_medclip.transforms import collate_reports

from .store_cases import NAMES, case, patients, store

IMAGE, BOTH = ProbeInput.named("image"), ProbeInput.named("image+text")


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("images")
    return {split: patients(folder, split, count) for split, count in (("train", 20), ("val", 8), ("test", 9))}


@pytest.fixture(scope="module")
def asked(splits: dict, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return store(tmp_path_factory.mktemp("store"), splits)


def test_an_input_is_named_as_a_config_writes_it() -> None:
    assert IMAGE == (True, ())
    assert ProbeInput.named("indication + findings") == (False, ("indication", "findings"))
    assert BOTH == (True, ("text",))
    for name in ("image", "text", "indication+findings", "image+text"):
        assert str(ProbeInput.named(name)) == name
    with pytest.raises(ValueError, match=r"input ' \+ ' names nothing"):
        ProbeInput.named(" + ")


def test_features_are_the_image_before_the_report(asked: EmbeddingStore) -> None:
    both = probe_features(asked, "val", BOTH)
    assert torch.equal(both[:, :10], asked["val"].image)
    assert torch.equal(both[:, 10:], asked.texts("val", ("text",)))
    assert torch.equal(probe_features(asked, "val", ProbeInput.named("findings")), asked.texts("val", ("findings",)))


@pytest.mark.parametrize("given", [IMAGE, BOTH, ProbeInput.named("indication+findings")])
def test_a_logistic_probe_is_the_fitted_line_as_a_module(asked: EmbeddingStore, given: ProbeInput) -> None:
    probe = fit_probe(asked, NAMES, given, seed=4)
    features = {split: probe_features(asked, split, given).numpy() for split in ("train", "val", "test")}
    train = asked["train"]
    line = fit_logistic(features["train"], train.label.numpy(), NAMES, groups=np.array(train.patients), seed=4)
    assert np.allclose(probe.test_logits, line.scores(features["test"]), atol=1e-4)
    assert np.allclose(probe.val_logits, line.scores(features["val"]), atol=1e-4)
    assert probe.settings == {"nodule C": line.strength[0], "mass C": line.strength[1]}
    assert probe.name == f"{given}, logistic"
    assert set(probe.settings.values()) <= set(STRENGTHS)


@pytest.mark.parametrize("kind", ["logistic", "mlp"])
def test_the_classifier_of_images_gives_the_probes_logits(asked: EmbeddingStore, tmp_path: Path, kind: str) -> None:
    batch = collate_reports(list(asked.dataset("test")))
    image, tokens = batch["image"], {name: batch[name] for name in ("input_ids", "attention_mask")}
    for given, context in ((IMAGE, {}), (BOTH, tokens)):
        probe = fit_probe(asked, NAMES, given, kind)
        classifier = probe.classifier(asked, NAMES)
        assert classifier is not None
        with torch.no_grad():
            assert np.allclose(classifier(image, **context).numpy(), probe.test_logits, atol=1e-4)
            path = save_probe(tmp_path / f"{given}.pt", classifier, kind=kind, sections=given.sections)
            assert torch.equal(load_probe(asked.clip, path)(image, **context), classifier(image, **context))
        assert not probe.head.training
    assert fit_probe(asked, NAMES, ProbeInput.named("text"), kind).classifier(asked, NAMES) is None


def test_a_probe_of_pooled_features_is_a_classifier_too(splits: dict, tmp_path: Path) -> None:
    pooled = store(tmp_path, splits, space="pooled")
    probe = fit_probe(pooled, NAMES, IMAGE)
    classifier = probe.classifier(pooled, NAMES)
    assert classifier is not None
    image = collate_reports(list(pooled.dataset("test")))["image"]
    with torch.no_grad():
        assert np.allclose(classifier(image).numpy(), probe.test_logits, atol=1e-4)


def test_what_cannot_be_fitted_is_named(asked: EmbeddingStore) -> None:
    with pytest.raises(ValueError, match=r"2 labels each for 1 findings \['nodule'\]"):
        fit_probe(asked, ["nodule"], IMAGE)
    with pytest.raises(ValueError, match="no probe head 'forest': choose from logistic, mlp"):
        fit_probe(asked, NAMES, IMAGE, "forest")


@pytest.mark.parametrize(("kind", "said"), [("logistic", "1 positive and 5 negative"), ("mlp", "0 positive and 5")])
def test_a_class_with_too_few_cases_is_an_error(tmp_path: Path, kind: str, said: str) -> None:
    label = 1.0 if kind == "logistic" else float("nan")
    train = [case(tmp_path, f"i{n}", "spot", "Spot.", [label if n == 0 else 0.0]) for n in range(6)]
    few = store(tmp_path, {"train": train, "val": train, "test": train})
    with pytest.raises(ValueError, match=rf"finding 'nodule' has {said}"):
        fit_probe(few, ["nodule"], IMAGE, kind)


def separable(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors whose first two numbers are the labels' signs, some labels unknown."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (count, 2), generator=generator).float()
    features = torch.cat([2 * labels - 1, 0.3 * torch.randn(count, 6, generator=generator)], dim=1)
    return F.normalize(features, dim=1), labels


def test_the_mlps_settings_are_the_papers() -> None:
    defaults = {name: parameter.default for name, parameter in signature(fit_mlp).parameters.items()}
    assert (defaults["learning_rate"], defaults["batch_size"], defaults["epochs"]) == (1e-5, 32, 25)
    assert SHOTS == (1, 5, 10, 50)


def test_the_mlp_learns_what_can_be_separated_and_leaves_unknown_labels_out() -> None:
    features, labels = separable()
    given = labels.clone()
    given[::4, 0], given[::5] = torch.nan, torch.nan
    head = fit_mlp(features, given, NAMES, learning_rate=1e-3, epochs=20)
    with torch.no_grad():
        assert torch.equal((head(features) > 0).float(), labels)


def test_the_mlp_is_the_same_by_seed_whatever_the_global_state() -> None:
    features, labels = separable()
    torch.manual_seed(1)
    one = fit_mlp(features, labels, NAMES, seed=5, epochs=1)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two, three = (fit_mlp(features, labels, NAMES, seed=seed, epochs=1) for seed in (5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in head.parameters()]) for head in (one, two, three)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_few_shot_draws_one_item_of_as_many_patients_of_each_class() -> None:
    label = np.array([1, 1, 1, 0, 0, 0, 1, 0, np.nan], np.float32)
    patients = np.array(["a", "a", "b", "c", "c", "d", "e", "a", "f"])
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        rows = _drawn(label, patients, 2, generator)
        assert rows is not None
        assert label[rows].tolist() == [1, 1, 0, 0]
        assert len(set(patients[rows[:2]])) == len(set(patients[rows[2:]])) == 2
        seen |= set(rows.tolist())
    assert seen == set(range(8))  # each has its turn, but for the unknown one
    assert _drawn(label, patients, 4, generator) is None  # three patients of each


def test_few_shot_curves_end_with_all_and_leave_out_what_is_not_there(asked: EmbeddingStore) -> None:
    curves = few_shot(asked, NAMES, shots=(1, 5, 50), draws=3)
    for f, name in enumerate(NAMES):
        assert [one.cases for one in curves[name]] == [1, 5, None]  # there are 10 patients of each class
        assert [len(one.values) for one in curves[name]] == [3, 3, 1]
        probe = fit_probe(asked, NAMES, IMAGE)
        (everyone,) = curves[name][-1].values
        assert everyone == pytest.approx(_auc(probe.test_logits[:, f], asked["test"], f), abs=1e-6)
    assert few_shot(asked, NAMES, shots=(1,), draws=3) == few_shot(asked, NAMES, shots=(1,), draws=3)


def test_few_shot_intervals_are_those_of_the_mean_over_draws(asked: EmbeddingStore) -> None:
    (few, everyone) = few_shot(asked, NAMES, shots=(5,), draws=3, bootstrap=200)["nodule"]
    assert few.interval is not None
    assert few.interval[0] <= np.mean(few.values) <= few.interval[1]
    probe = fit_probe(asked, NAMES, IMAGE)
    test = asked["test"]
    alone = classification(
        probe.test_logits[:, :1], test.label.numpy()[:, :1], ["nodule"], groups=np.array(test.patients), bootstrap=200
    )
    assert everyone.interval == pytest.approx(alone.findings[0].auc_interval)


def test_few_shot_leaves_out_a_finding_that_the_test_items_lack_a_class_of(
    asked: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = asked["test"]
    label = test.label.clone()
    label[:, 1] = 0
    monkeypatch.setitem(asked._read, "test", test._replace(label=label))
    assert list(few_shot(asked, NAMES, shots=(1,), draws=1)) == ["nodule"]


def _auc(logits: np.ndarray, test: Embeddings, f: int) -> float:
    """Of all pairs of a positive and a negative, the share in which the positive ranks higher."""
    positive = test.label[:, f].numpy() == 1
    above = logits[positive][:, None] - logits[~positive]
    return float(((above > 1e-9) + 0.5 * (np.abs(above) <= 1e-9)).mean())
