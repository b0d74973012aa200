"""One class out of many: the paper's softmax by hand, and lists of classes that cannot be asked for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_medclip.engines import EmbeddingStore, choose_class, class_logits, class_numbers
from monai_medclip.findings import Finding
from monai_medclip.metrics import multiclass

from .store_cases import case, clip, counted, store, tokenizer

TYPES = ({"name": "nodule", "positive": ["spot"]}, Finding("mass", ("lump", "no lump"), ()))
SHOWN = [("spot", "nodule"), ("spot lungs", "nodule"), ("lump no", "mass"), ("spot heart", "mass"), ("heart", "other")]


@pytest.fixture
def asked(tmp_path: Path) -> EmbeddingStore:
    return store(tmp_path, {"test": [case(tmp_path, f"i{n}", s, s, labels=[t]) for n, (s, t) in enumerate(SHOWN)]})


def test_probabilities_are_equation_2(asked: EmbeddingStore) -> None:
    logits = class_logits(asked.clip, asked["test"].image, TYPES, tokenizer)
    # Prompts of the mass: "lump" is the unit vector l, "no lump" is (n + l) / sqrt(2); their mean at unit length:
    both = math.hypot(1 + 1 / math.sqrt(2), 1 / math.sqrt(2))
    mass_of_lump, mass_of_no = (1 + 1 / math.sqrt(2)) / both, 1 / math.sqrt(2) / both
    half = 1 / math.sqrt(2)
    cosines = [(1, 0), (half, 0), (0, half * (mass_of_lump + mass_of_no)), (half, 0), (0, 0)]
    raised = np.exp(np.array(cosines) / 0.07)
    expected = raised / raised.sum(axis=1, keepdims=True)
    assert np.allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-4)


def test_the_bias_of_a_pairwise_loss_is_no_part_of_a_choice() -> None:
    network, image = clip(), counted("spot")[None]
    before = class_logits(network, image, TYPES, tokenizer)
    network.logit_bias.data.fill_(-10.0)
    assert torch.equal(class_logits(network, image, TYPES, tokenizer), before)


def test_the_report_is_the_metrics_own_and_unknown_items_are_left_out(asked: EmbeddingStore) -> None:
    test = asked["test"]
    report, logits = choose_class(asked.clip, test, asked.kept("test"), TYPES, tokenizer, bootstrap=20)
    groups = np.array(test.patients)
    assert report == multiclass(
        logits.numpy(), [0, 0, 1, 1, -1], ["nodule", "mass"], groups=groups, bootstrap=20, on_empty="raise"
    )
    assert report.confusion == ((2, 0), (1, 1))
    assert report.accuracy == pytest.approx(3 / 4)
    assert report.unknown == 1


def test_labels_are_names_in_any_writing() -> None:
    items = [{"id": "a", "labels": ["Basal_Cell-carcinoma"]}, {"id": "b", "labels": ["x", "nevus"]}, {"id": "c"}]
    assert class_numbers(items, ["nevus", "basal cell carcinoma"]).tolist() == [1, 0, -1]


def test_a_class_named_twice_and_an_item_of_two_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['nevus', 'Nevus'\] name one twice"):
        class_numbers([], ["nevus", "Nevus"])
    with pytest.raises(ValueError, match=r"item a has the classes \['nevus', 'melanoma'\], and one is to be chosen"):
        class_numbers([{"id": "a", "labels": ["melanoma", "nevus", "nevus"]}], ["nevus", "melanoma"])
    assert class_numbers([{"id": "a", "labels": ["nevus", "nevus"]}], ["nevus", "melanoma"]).tolist() == [0]


def test_a_class_without_cases_is_refused_or_reported(asked: EmbeddingStore) -> None:
    classes = [*TYPES, "heart"]
    with pytest.raises(ValueError, match="heart"):
        choose_class(asked.clip, asked["test"], asked.kept("test"), classes, tokenizer, bootstrap=0)
    report, _ = choose_class(
        asked.clip, asked["test"], asked.kept("test"), classes, tokenizer, bootstrap=0, on_empty="report"
    )
    assert report.classes[2].cases == 0
    assert math.isnan(report.classes[2].auc)
