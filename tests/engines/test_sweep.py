"""Settings tried on a training that is computed by hand: what is tried, kept, resumed, listed and chosen."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from monai_medclip.engines import combinations, sweep, write_csv

GRID = {"rate": [0.1, 0.2, 0.3], "kind": ["a", "b"]}


def test_one_at_a_time_moves_each_setting_from_the_base() -> None:
    assert combinations(GRID) == [
        {"rate": 0.1, "kind": "a"},
        {"rate": 0.2, "kind": "a"},
        {"rate": 0.3, "kind": "a"},
        {"rate": 0.1, "kind": "b"},
    ]


def test_grid_is_every_combination_once() -> None:
    found = combinations(GRID, strategy="grid")
    assert {(one["rate"], one["kind"]) for one in found} == {(r, k) for r in GRID["rate"] for k in GRID["kind"]}
    assert len(found) == 6


def test_random_draws_without_repetition_and_no_more_than_there_are() -> None:
    four = combinations(GRID, strategy="random", trials=4, seed=1)
    assert len({tuple(sorted(one.items())) for one in four}) == 4
    assert all(one in combinations(GRID, strategy="grid") for one in four)
    assert combinations(GRID, strategy="random", trials=4, seed=1) == four
    assert combinations(GRID, strategy="random", trials=4, seed=2) != four
    assert len(combinations(GRID, strategy="random", trials=20)) == 6


@pytest.mark.parametrize(
    ("grid", "strategy", "told"),
    [
        (GRID, "bayes", "strategy 'bayes'.*choose one of one at a time, grid, random"),
        ({"rate": []}, "grid", r"without a list of values \['rate'\]"),
        ({"kind": "step"}, "grid", r"without a list of values \['kind'\]"),
        ({}, "grid", "give every setting a list"),
    ],
)
def test_what_is_no_sweep_is_refused(grid: dict[str, Any], strategy: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        combinations(grid, strategy=strategy)


class Trainer:
    """Two epochs whose figures are `rate` and half of it; `kind` says what goes wrong. It knows how to resume."""

    log: list[tuple[str, bool]]  # trial's folder, resumed

    def __init__(self, output_dir: str, rate: float, kind: str, resume: bool) -> None:
        if kind == "cannot be built":
            raise TypeError("there is no such part")
        self.folder, self.rate, self.kind, self.resume = Path(output_dir), rate, kind, resume

    def run(self) -> None:
        self.log.append((self.folder.name, self.resume))
        if self.kind == "diverges":
            raise FloatingPointError("the gradient norm is nan")
        figures = [float("nan")] * 2 if self.kind == "never a figure" else [self.rate, self.rate / 2]
        rows = [{"epoch": 1 + n, "recall": value, "train_loss": 0.1} for n, value in enumerate(figures)]
        if self.kind == "killed" and not self.resume:
            write_csv(self.folder / "history.csv", rows[:1])
            (self.folder / "last.pt").touch()
            raise KeyboardInterrupt
        write_csv(self.folder / "history.csv", rows)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training config whose evaluation of test items would be an error."""
    module = ModuleType("toy_training")
    module.Trainer = Trainer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_training", module)
    monkeypatch.setattr(Trainer, "log", [], raising=False)
    names = ("output_dir", "rate", "kind", "resume")
    content = {
        "output_dir": "nowhere",
        "rate": 0.0,
        "kind": "a",
        "resume": False,
        "train": {"trainer": {"_target_": "toy_training.Trainer", **{name: f"@{name}" for name in names}}},
        "evaluation": "$1 / 0",
        "run": ["$@train#trainer.run()", "$@evaluation"],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    return path


def tried(config: Path, grid: dict[str, list[Any]], **options: Any) -> Any:
    options = {"metric": "recall", "strategy": "grid", "progress": False, **options}
    return sweep([str(config)], grid, output_dir=str(config.parent / "out"), **options)


def table(config: Path) -> list[dict[str, str]]:
    with (config.parent / "out" / "trials.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_trials_are_ranked_by_the_best_epoch_of_validation_and_test_items_are_not_asked(config: Path) -> None:
    found = tried(config, {"rate": [0.2, 0.6, 0.4]})
    assert [(one.settings["rate"], one.value, one.epoch, one.error) for one in found] == [
        (0.6, 0.6, 1, ""),
        (0.4, 0.4, 1, ""),
        (0.2, 0.2, 1, ""),
    ]
    assert [float(row["recall"]) for row in table(config)] == [0.6, 0.4, 0.2]
    assert [row["folder"] for row in table(config)] == [one.folder.name for one in found]
    metrics = json.loads((config.parent / "out" / "metrics.json").read_text())
    assert (metrics["trials"], metrics["of"], metrics["best"]["settings"]) == (3, 3, {"rate": 0.6})
    page = (config.parent / "out" / "report.html").read_text()
    assert "3 of 3 trials" in page
    assert "test items were not looked at" in page
    assert len(list((config.parent / "out" / "pictures").glob("*.png"))) == 1


def test_finished_trials_are_kept_and_others_are_added(config: Path) -> None:
    first = tried(config, {"rate": [0.2, 0.6]})
    assert tried(config, {"rate": [0.2, 0.6]}) == first
    assert len(Trainer.log) == 2
    more = tried(config, {"rate": [0.2, 0.8, 0.6]})
    assert [one.settings["rate"] for one in more] == [0.8, 0.6, 0.2]
    assert len(Trainer.log) == 3
    tried(config, {"rate": [0.2]}, settings={"kind": "b"})  # another setting for all: another trial
    config.write_text(config.read_text().replace('"resume": false', '"resume": false, "depth": 2'))
    tried(config, {"rate": [0.2]})  # another configuration too
    assert len(Trainer.log) == len(set(Trainer.log)) == 5


def test_an_unfinished_trial_goes_on_from_its_last_epoch(config: Path) -> None:
    grid = {"rate": [0.2, 0.6], "kind": ["killed"]}
    with pytest.raises(KeyboardInterrupt):
        tried(config, grid)
    for _ in range(2):  # the second trial of the grid is killed too, once
        try:
            found = tried(config, grid)
        except KeyboardInterrupt:
            continue
    (first, fresh), (again, resumed), (second, new), (last, too) = Trainer.log
    assert (first, fresh, resumed, new, too) == (again, False, True, False, True)
    assert second == last
    assert [one.value for one in found] == [0.6, 0.2]


def test_failures_are_listed_with_their_cause_and_the_others_go_on(config: Path) -> None:
    grid = {"rate": [0.2], "kind": ["diverges", "a", "never a figure", "cannot be built"]}
    found = tried(config, grid)
    assert [one.settings["kind"] for one in found] == ["a", "diverges", "never a figure", "cannot be built"]
    errors = {one.settings["kind"]: one.error for one in found}
    assert errors["a"] == ""
    assert errors["diverges"] == "FloatingPointError: the gradient norm is nan"
    assert errors["cannot be built"] == "TypeError: there is no such part"
    assert errors["never a figure"] == "no validation gave a finite recall"
    assert [row["error"] for row in table(config)] == [one.error for one in found]
    assert found[0].value == 0.2
    page = (config.parent / "out" / "report.html").read_text()
    assert "the gradient norm is nan" in page
    tried(config, grid)
    assert [folder for folder, _ in Trainer.log].count(found[0].folder.name) == 1  # failed ones are tried again


def test_a_sweep_of_failures_is_an_error(config: Path) -> None:
    with pytest.raises(
        ValueError, match=r"all 2 trials failed, the first because: FloatingPointError: the gradient norm is nan"
    ):
        tried(config, {"rate": [0.2, 0.6], "kind": ["diverges"]})
    assert len(table(config)) == 2


def test_a_figure_that_the_history_lacks_is_named_before_more_is_trained(config: Path) -> None:
    with pytest.raises(ValueError, match=r"no figure 'auc', only \['epoch', .*'recall', 'train_loss'\]"):
        tried(config, {"rate": [0.2, 0.6]}, metric="auc")
    assert len(Trainer.log) == 1
    assert [one.value for one in tried(config, {"rate": [0.2, 0.6]}, metric="train_loss")] == [0.1, 0.1]
