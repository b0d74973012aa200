from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from ignite.engine import Engine, Events, State

from monai_medclip.engines import EarlyStopping


def run_with(figures: list[float], *, mode: str = "max", patience: int = 2, state: dict | None = None) -> tuple:
    """Epochs until the end, and the state then, when validation gives these figures."""
    trainer, validator = Engine(lambda engine, batch: None), SimpleNamespace(state=State(epoch=0, metrics={}))

    def validate(engine: Engine) -> None:
        validator.state.epoch = engine.state.epoch
        validator.state.metrics["figure"] = figures[engine.state.epoch - 1]

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    stopping = EarlyStopping(validator, metric="figure", patience=patience, mode=mode)
    stopping.attach(trainer)
    if state is not None:
        trainer.add_event_handler(Events.STARTED, lambda: stopping.load_state_dict(state))
    trainer.run([0], max_epochs=len(figures))
    return trainer.state.epoch, stopping.state_dict()


@pytest.mark.parametrize(
    ("mode", "figures", "epochs"),
    [
        ("max", [0.5, 0.6, 0.6, 0.5, 0.9], 4),
        ("min", [2.0, 1.0, 1.5, 0.9, 1.1, 1.2, 0.1], 6),
        ("max", [0.1, 0.2, 0.3, 0.4], 4),
        ("max", [0.5, float("nan"), float("nan"), 0.9], 3),
    ],
)
def test_ends_after_patience_without_improvement(mode: str, figures: list[float], epochs: int) -> None:
    assert run_with(figures, mode=mode)[0] == epochs


def test_patience_goes_on_where_it_was() -> None:
    _, state = run_with([0.5, 0.4])
    assert state["counter"] == 1
    assert run_with([0.4, 0.9, 0.9], state=state)[0] == 1
    assert run_with([0.6, 0.9, 0.9], state=state)[0] == 3


def test_a_run_that_ended_stays_ended_unless_patience_is_raised() -> None:
    _, state = run_with([0.5, 0.4, 0.3, 0.9])
    assert run_with([0.9] * 3, state=state)[0] == 0
    assert run_with([0.9] * 3, state=state, patience=5)[0] == 3


def test_resuming_an_early_end_changes_nothing(training: ModuleType, tmp_path: Path) -> None:
    first = training.make_trainer(str(tmp_path), epochs=30, patience=1)
    first.run()
    assert first.state.epoch < 30
    before = (tmp_path / "history.csv").read_bytes()
    training.make_trainer(str(tmp_path), epochs=30, patience=1, resume=True).run()
    assert (tmp_path / "history.csv").read_bytes() == before


def test_an_unknown_metric_lists_the_known() -> None:
    validator = Engine(lambda engine, batch: None)
    validator.run([0], max_epochs=1)
    validator.state.metrics["auc"] = 0.5
    stopping = EarlyStopping(validator, metric="aux")
    stopping.attach(validator)
    with pytest.raises(KeyError, match=r"no 'aux', only \['auc'\]"):
        stopping(validator)
