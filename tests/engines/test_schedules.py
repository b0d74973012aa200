"""Learning rates with known courses: the cosine of before, steps of a third, and a plateau that validation decides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, State

from monai_medclip.engines import SCHEDULES, LrSchedule, cosine_with_warmup

STEPS = 5  # iterations of an epoch


def adam(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)


class Run:
    """A training that does nothing but step; validation gives the figures told, None where it does not run."""

    def __init__(self, kind: str, figures: list[float | None], **settings: Any) -> None:
        self.figures, self.rates, self.by_epoch = figures, [], []
        self.optimizer = adam()
        self.validator = SimpleNamespace(state=State(epoch=0, metrics={}))
        settings = {"validator": self.validator, "metric": "figure", "max_epochs": len(figures), **settings}
        self.schedule = LrSchedule(self.optimizer, range(STEPS), kind=kind, **settings)

    def go(self, state: dict[str, Any] | None = None, *, name: str = "figure", since: int = 0) -> Run:
        trainer = Engine(self._step)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._validate, name)
        self.schedule.attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.by_epoch.append(self.rate))
        if state is not None:
            trainer.add_event_handler(Events.STARTED, lambda: self._load(trainer, state, since))
        trainer.run(range(STEPS), max_epochs=len(self.figures))
        return self

    @property
    def rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        return {"schedule": self.schedule.state_dict(), "optimizer": self.optimizer.state_dict()}

    def _load(self, trainer: Engine, state: dict[str, Any], since: int) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        trainer.state.epoch, trainer.state.iteration = since, since * STEPS

    def _step(self, engine: Engine, batch: int) -> None:
        self.rates.append(self.rate)
        self.optimizer.step()

    def _validate(self, engine: Engine, name: str) -> None:
        figure = self.figures[engine.state.epoch - 1]
        if figure is not None:
            self.validator.state.epoch, self.validator.state.metrics = engine.state.epoch, {name: figure}


def test_cosine_is_the_scheduler_stepped_after_every_iteration() -> None:
    optimizer = adam()
    scheduler = cosine_with_warmup(optimizer, range(STEPS), max_epochs=4, warmup=0.2)
    expected = []
    for _ in range(4 * STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    found = Run("cosine", [None] * 4, warmup=0.2).go()
    assert found.rates == expected
    assert found.rates[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert found.rate == pytest.approx(0, abs=1e-12)


def test_steps_multiply_by_the_factor_every_third_of_the_epochs() -> None:
    assert Run("step", [None] * 9).go().by_epoch == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001])
    assert Run("step", [None] * 4, step_epochs=2, factor=0.5).go().by_epoch == pytest.approx([1, 0.5, 0.5, 0.25])
    assert Run("step", [None] * 2).go().by_epoch == pytest.approx([0.1, 0.01])  # a third is one epoch at least


@pytest.mark.parametrize(
    ("figures", "rates"),
    [
        ([0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 1, 1, 1]),
        ([0.5, 0.5, 0.4, 0.5, 0.5], [1, 1, 0.1, 0.1, 0.01]),  # one is let pass, the second is not
        ([0.5, 0.4, 0.6, 0.5, 0.5], [1, 1, 1, 1, 0.1]),  # a rise begins the count anew
        ([0.5, None, None, None, 0.4], [1, 1, 1, 1, 1]),  # epochs without validation do not count
        ([0.5, None, 0.4, None, 0.4], [1, 1, 1, 1, 0.1]),
        ([0.5, float("nan"), float("nan"), 0.4, 0.6], [1, 1, 0.1, 0.1, 0.1]),  # NaN is no rise
    ],
)
def test_a_plateau_is_validations_without_a_rise(figures: list[float | None], rates: list[float]) -> None:
    assert Run("plateau", figures, patience=1).go().by_epoch == pytest.approx(rates)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_state_goes_through_a_file_and_the_course_goes_on(kind: str, tmp_path: Path) -> None:
    figures: list[float | None] = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    whole = Run(kind, figures, patience=1).go()
    first = Run(kind, figures[:2], patience=1, max_epochs=6).go()
    torch.save(first.state(), tmp_path / "state.pt")
    second = Run(kind, figures, patience=1)
    second.go(torch.load(tmp_path / "state.pt", weights_only=True), since=2)
    assert first.rates + second.rates == whole.rates
    assert first.by_epoch + second.by_epoch == whole.by_epoch
    assert len(set(second.rates)) > 1  # there was a course to go on with


def test_an_unknown_kind_and_a_plateau_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"schedule 'linear': choose one of cosine, step, plateau"):
        LrSchedule(adam(), range(STEPS), kind="linear", max_epochs=2)
    for known in ({"metric": "figure"}, {"validator": SimpleNamespace()}):
        with pytest.raises(ValueError, match="'plateau' needs a validator and its metric"):
            LrSchedule(adam(), range(STEPS), kind="plateau", max_epochs=2, **known)


def test_a_figure_that_validation_does_not_give_is_named() -> None:
    with pytest.raises(KeyError, match=r"no 'figure', only \['other'\]"):
        Run("plateau", [0.5]).go(name="other")
