"""The tasks are one bundle: what they share is equal, and every name in the configs exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pydoc import locate
from typing import Any

import pytest

from .runs import APART, CONFIGS, RECIPES, TASKS
from .runs import OVERLAYS as DATASETS

OVERLAYS = (*DATASETS, *RECIPES)
ALONE = ("extract", "sweep")
CONFIG = {name: json.loads((CONFIGS / f"{name}.json").read_text()) for name in (*TASKS, *OVERLAYS, *APART, *ALONE)}
# What a task does, and what differs because of it: training learns a tokenizer and starts from pretrained weights, the
# others load what it saved; inference reads no reports, and its network is the classifier.
OWN = {"imports", "initialize", "run", "handlers", "tokenizer", "pretrained", "network_def", "preprocessing"}
OWN |= {"train", "validate", "test", "evaluator", "inferer"}
OWN |= {"image", "data", "dataset"}  # explaining takes a few cases, and their reports
OWN |= {"trained", "audits", "answer", "answer_dir"}  # what a question asks, and where the answer goes


def texts(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from texts(value)
            yield from [key] if isinstance(key, str) else []


def targets(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        yield from [config] if "_target_" in config else []
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from targets(value)


@pytest.mark.parametrize(("one", "other"), combinations(TASKS, 2))
def test_shared_keys_are_equal_in_all_tasks(one: str, other: str) -> None:
    shared = CONFIG[one].keys() & CONFIG[other].keys() - OWN
    assert {"items", "splits", "clip", "image_preprocessing", "image_encoder", "text_encoder", "prompts"} <= shared
    assert {key for key in shared if CONFIG[one][key] != CONFIG[other][key]} == set()


@pytest.mark.parametrize("side", ["validate", "test"])
def test_validation_and_test_items_are_prepared_alike_in_training_and_evaluation(side: str) -> None:
    train, evaluate = CONFIG["train"][side], CONFIG["evaluate"][side]
    assert train["dataloader"] == evaluate["dataloader"]
    assert {**train["dataset"], "transform": ""} == {**evaluate["dataset"], "transform": ""}
    assert train["dataset"]["transform"] == "@validate#preprocessing"
    assert CONFIG["train"]["validate"]["preprocessing"] == CONFIG["evaluate"]["evaluation_transforms"]


@pytest.mark.parametrize("name", CONFIG)
def test_no_macros_which_resolve_against_the_working_directory(name: str) -> None:
    assert [text for text in texts(CONFIG[name]) if text.startswith("%")] == []


@pytest.mark.parametrize("name", CONFIG)
def test_components_exist_and_are_public(name: str) -> None:
    for component in targets(CONFIG[name]):
        path = component["_target_"]
        if path.startswith("monai_medclip."):
            room, public = re.match(r"(monai_medclip\.\w+)\.(\w+)", path).groups()  # type: ignore[union-attr]  # or it fails
            assert public in locate(room).__all__, path  # type: ignore[attr-defined]  # a room is a module
            assert callable(locate(path)), path


@pytest.mark.parametrize("name", CONFIG)
def test_every_reference_leads_somewhere_in_every_task(name: str) -> None:
    for task in TASKS if name in OVERLAYS else (APART.get(name, name),):
        merged = {**CONFIG[task], **CONFIG["manifest" if name in RECIPES else name], **CONFIG[name]}
        for text in texts(CONFIG[name]):
            if text[:1] in ("@", "$"):
                for key in re.findall(r"@(\w+)", text):
                    trained_only = key in ("network", "learning_rate", "augmentation") and task not in (
                        "train",
                        "evaluate",
                    )
                    unused = name in OVERLAYS and task != "train"
                    assert key in merged or trained_only or unused, f"{name}: @{key} of {text} in {task}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_replace_what_tasks_know_or_name_a_new_part_of_it(overlay: str) -> None:
    known = set().union(*(CONFIG[task] for task in (*TASKS, "manifest")))
    used = {key for text in texts(CONFIG[overlay]) for key in re.findall(r"@(\w+)", text)}
    assert {key for key in CONFIG[overlay] if key.lstrip("+") not in known | used} == set()


@pytest.mark.parametrize("overlay", APART)
def test_overlays_on_the_network_replace_what_tasks_know(overlay: str) -> None:
    used = {key for text in texts(CONFIG[overlay]) for key in re.findall(r"@(\w+)", text)}
    known = (
        CONFIG[APART[overlay]].keys() | used | {"before_training"}
    )  # of zero_shot.json, which pretrained also serves
    assert {key for key in CONFIG[overlay] if re.split(r"[#:]", key.lstrip("+"))[0] not in known} == set()


def test_a_sweep_varies_and_fixes_what_training_knows() -> None:
    train, sweep = CONFIG["train"], CONFIG["sweep"]
    for path in (*sweep["grid"], *sweep["settings"]):
        place: Any = train
        for key in path.split("::"):
            assert key in place, path
            place = place[key]
    assert not sweep["grid"].keys() & sweep["settings"].keys()
    assert {values[0] == train[name] for name, values in sweep["grid"].items() if "::" not in name} == {True}
    assert sweep["metric"] == train["key_metric"]
