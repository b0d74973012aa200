from types import ModuleType

import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_medclip.engines import Embeddings, embed, evaluate_zero_shot
from monai_medclip.findings import Finding

NODULE = Finding("nodule", ("spot",), ("no spot",))
MASS = Finding("mass", ("lump",), ("no lump",))


def embedded(words: ModuleType, clip: torch.nn.Module, seen: list[tuple[str, list[float]]]) -> Embeddings:
    items = [words.item(number, image, image, label) for number, (image, label) in enumerate(seen)]
    return embed(clip, DataLoader(Dataset(items), batch_size=3))


def by(nodule: str, mass: str) -> list[tuple[str, list[float]]]:
    """Images that show a nodule by one word and a mass by another."""
    lungs = [("lungs heart", [0.0, 0.0]), ("clear lungs", [0.0, 0.0])]
    return [*lungs, (nodule, [1.0, 0.0]), (mass, [0.0, 1.0]), (f"{nodule} {mass}", [1.0, 1.0]), ("clear", [0.0, 0.0])]


def test_the_rule_is_chosen_on_validation_and_judged_on_test(words: ModuleType) -> None:
    clip = words.counting_clip()
    val = embedded(words, clip, by("spot", "lump"))  # the paraphrases work
    test = embedded(words, clip, by("nodule", "mass"))  # here only the names would
    found = evaluate_zero_shot(clip, val, test, [NODULE, MASS], words.tokenizer, bootstrap=20)
    assert found.rule == "positive"
    assert found.validation["positive"] == 1.0
    assert found.validation["name"] == pytest.approx(0.5)
    assert found.report.macro_auc == pytest.approx(0.5)
    assert found.name_pair.macro_auc == 1.0
    assert found.report.macro_auc_interval is not None
    assert found.report.groups == 3  # patients with two images each


@pytest.mark.parametrize("word", [("spot", "lump"), ("nodule", "mass")])
def test_logits_are_those_of_the_classifier(words: ModuleType, word: tuple[str, str]) -> None:
    clip = words.counting_clip(logit_bias=-3.0)
    seen = by(*word)
    data = embedded(words, clip, seen)
    found = evaluate_zero_shot(clip, data, data, [NODULE, MASS], words.tokenizer, bootstrap=0)
    classifier = clip.classifier([NODULE, MASS], words.tokenizer, rule=found.rule)
    images = torch.stack([words.item(0, image, image, label)["image"] for image, label in seen])
    assert torch.allclose(found.logits, classifier(images), atol=1e-5)


def test_thresholds_come_from_validation(words: ModuleType) -> None:
    clip = words.counting_clip()
    data = embedded(words, clip, by("spot", "lump"))
    found = evaluate_zero_shot(clip, data, data, [NODULE, MASS], words.tokenizer, bootstrap=0)
    assert [one.accuracy for one in found.report.findings] == [1.0, 1.0]
    assert found.as_dict()["nodule_sensitivity"] == 1.0


def test_a_finding_without_negative_prompts_is_asked_in_the_other_ways(words: ModuleType) -> None:
    clip = words.counting_clip()
    data = embedded(words, clip, by("spot", "lump"))
    found = evaluate_zero_shot(
        clip, data, data, [NODULE._replace(negative=()), {"name": "mass", "positive": ["lump"]}], words.tokenizer
    )
    assert set(found.validation) == {"positive", "name", "positive_minus_normal", "name_pair"}
    assert found.names == ("nodule", "mass")


def test_labels_that_do_not_fit_or_do_not_vary_are_errors(words: ModuleType) -> None:
    clip = words.counting_clip()
    data = embedded(words, clip, by("spot", "lump"))
    with pytest.raises(ValueError, match=r"val items have 2 labels each for 1 findings \['nodule'\]"):
        evaluate_zero_shot(clip, data, data, ["nodule"], words.tokenizer)
    with pytest.raises(ValueError, match="both classes on validation"):
        evaluate_zero_shot(clip, data._replace(label=data.label * 0), data, [NODULE, MASS], words.tokenizer)
