import csv
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from monai_medclip.engines import History
from monai_medclip.engines.history import validation_metrics


def test_one_row_per_epoch_with_losses_rate_and_validation(training: ModuleType, tmp_path: Path) -> None:
    training.make_trainer(str(tmp_path), epochs=3).run()
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "iteration", "learning_rate", "train_loss", "recall_at_1", "val_loss", "notice"]
    assert [(row["epoch"], row["iteration"]) for row in rows] == [("1", "5"), ("2", "10"), ("3", "15")]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert float(rows[-1]["learning_rate"]) == 0.0
    assert all(0 <= float(row["recall_at_1"]) <= 1 for row in rows)


def test_train_loss_is_the_mean_over_the_epoch(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    engine = SimpleNamespace(
        state=SimpleNamespace(epoch=1, iteration=2, max_epochs=1, output=None),
        optimizer=SimpleNamespace(param_groups=[{"lr": 0.5}]),
    )
    for loss in (1.0, 2.0):
        engine.state.output = {"loss": torch.tensor(loss)}
        history._add_loss(engine)
    history._add_row(engine)
    assert history.rows == [{"epoch": 1, "iteration": 2, "learning_rate": 0.5, "train_loss": 1.5}]


def test_loading_an_earlier_state_truncates_the_file(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    history.load_state_dict({"rows": [{"epoch": 1, "train_loss": 3.0}, {"epoch": 2, "train_loss": 2.0}]})
    assert len(history.path.read_text().splitlines()) == 3
    state = {"rows": history.state_dict()["rows"][:1]}
    history.load_state_dict(state)
    assert len(history.path.read_text().splitlines()) == 2
    assert history.state_dict() == state


def test_figures_of_an_older_validation_are_not_this_epochs() -> None:
    metrics = {"auc": np.float64(0.5), "both": {"a": torch.tensor(0.25), "b": 1}, "table": torch.zeros(3), "name": "x"}
    validator = SimpleNamespace(state=SimpleNamespace(epoch=2, metrics=metrics))
    assert validation_metrics(validator, epoch=2) == {"auc": 0.5, "a": 0.25, "b": 1.0}
    assert validation_metrics(validator, epoch=3) == {}
    assert validation_metrics(None, epoch=3) == {}


@pytest.mark.parametrize("amp", [False, True])
def test_same_seed_same_figures(training: ModuleType, tmp_path: Path, amp: bool) -> None:
    for name in ("a", "b"):
        training.make_trainer(str(tmp_path / name), epochs=2, amp=amp).run()
    assert (tmp_path / "a" / "history.csv").read_bytes() == (tmp_path / "b" / "history.csv").read_bytes()
