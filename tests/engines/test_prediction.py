"""Inference by known embeddings: scores, embeddings and the files that keep them."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from monai_medclip.engines import (
    RESEARCH_USE,
    ImagePrepareBatch,
    Prediction,
    PredictionWriter,
    ZeroShotInferer,
    chosen_rule,
    write_json,
)
from monai_medclip.networks import ProbeClassifier, ZeroShotClassifier


@pytest.fixture
def classifier(words: ModuleType) -> ZeroShotClassifier:
    return words.counting_clip().classifier(["nodule", "mass"], words.tokenizer, rule="name")


def seeing(words: ModuleType, *seen: str) -> torch.Tensor:
    """An image (1, 1, words) whose embedding is that of its word."""
    return torch.nn.functional.one_hot(torch.tensor([words.WORDS.index(word) for word in seen]), words.WIDTH).float()[
        :, None
    ]


def test_embedding_and_score_belong_together(words: ModuleType, classifier: ZeroShotClassifier) -> None:
    image = seeing(words, "nodule", "mass", "heart")
    found = ZeroShotInferer()(image, classifier)
    assert isinstance(found, Prediction)
    torch.testing.assert_close(found.logits, classifier(image))
    scale = float(classifier.clip.logit_scale)
    torch.testing.assert_close(found.logits, scale * torch.tensor([[1.0, 0], [0, 1], [0, 0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.embedding, torch.nn.functional.normalize(image.flatten(1)))
    half = ZeroShotInferer(amp=True)(image, classifier)
    assert half.embedding.dtype == half.logits.dtype == torch.float32


@pytest.mark.parametrize("space", ["embedding", "pooled"])
def test_a_probe_is_asked_like_a_zero_shot_classifier(words: ModuleType, space: str) -> None:
    clip = words.counting_clip().eval()
    probe = ProbeClassifier(clip, torch.nn.Linear(words.WIDTH, 2), ["nodule", "mass"], space=space).eval()
    image = seeing(words, "nodule", "heart")
    found = ZeroShotInferer()(image, probe)
    torch.testing.assert_close(found.logits, probe(image))
    torch.testing.assert_close(found.embedding, torch.nn.functional.normalize(image.flatten(1)))


def test_only_classifiers_of_the_image_can_be_asked(words: ModuleType) -> None:
    with pytest.raises(TypeError, match="of the image alone, not Linear"):
        ZeroShotInferer()(torch.zeros(1, 2), torch.nn.Linear(2, 2))
    head = torch.nn.Linear(2 * words.WIDTH, 1)
    with pytest.raises(TypeError, match="of the image alone, not ProbeClassifier"):
        ZeroShotInferer()(
            torch.zeros(1, 1, words.WIDTH), ProbeClassifier(words.counting_clip(), head, ["a"], with_text=True)
        )


def evaluator(
    classifier: ZeroShotClassifier, items: list[dict], folder: Path, key: str = "image"
) -> SupervisedEvaluator:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=classifier,
        inferer=ZeroShotInferer(),
        prepare_batch=ImagePrepareBatch(key),
        val_handlers=[PredictionWriter(str(folder), classifier.findings)],
        decollate=False,
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_files_hold_every_image_in_order_over_batches_and_runs(
    words: ModuleType, classifier: ZeroShotClassifier, tmp_path: Path
) -> None:
    images = seeing(words, "nodule", "mass", "lungs")
    items = [
        {"id": name, "image": MetaTensor(image, meta={"filename_or_obj": f"{name}.png"})}
        for name, image in zip("abc", images, strict=True)
    ]
    engine = evaluator(classifier, items, tmp_path)
    engine.run()
    first = (tmp_path / "predictions.csv").read_text()
    rows = rows_of(tmp_path / "predictions.csv")
    assert [(row["id"], row["file"]) for row in rows] == [("a", "a.png"), ("b", "b.png"), ("c", "c.png")]
    assert [float(row["mass"]) for row in rows] == pytest.approx(classifier(images)[:, 1].tolist(), abs=1e-5)
    assert {row["notice"] for row in rows} == {RESEARCH_USE}
    np.testing.assert_allclose(np.load(tmp_path / "embeddings.npy"), images.flatten(1), atol=1e-5)
    engine.run()  # again: the files are written anew, not longer
    assert (tmp_path / "predictions.csv").read_text() == first


def test_features_have_no_file_and_need_no_id(
    words: ModuleType, classifier: ZeroShotClassifier, tmp_path: Path
) -> None:
    items = [{"features": image} for image in seeing(words, "nodule", "mass", "heart")]
    evaluator(classifier, items, tmp_path, key="features").run()
    assert [(row["id"], row["file"]) for row in rows_of(tmp_path / "predictions.csv")] == [
        ("0", ""),
        ("1", ""),
        ("2", ""),
    ]


def test_the_rule_is_the_one_that_validation_chose(tmp_path: Path) -> None:
    assert chosen_rule(str(tmp_path)) == "positive"
    assert chosen_rule(str(tmp_path), default="name") == "name"
    write_json(tmp_path / "metrics.json", {"zero_shot": {"rule": "positive_minus_normal"}})
    assert chosen_rule(str(tmp_path)) == "positive_minus_normal"
    write_json(tmp_path / "metrics.json", {"zero_shot": {}})  # judged by retrieval alone
    assert chosen_rule(str(tmp_path)) == "positive"
