from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from monai_medclip.engines import BestCheckpoint
from monai_medclip.networks import load_weights


def test_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    network, figures = nn.Linear(1, 1), [0.2, float("nan"), 0.6, 0.6, 0.5]
    validator = SimpleNamespace(state=SimpleNamespace(epoch=0, metrics={}))
    best = BestCheckpoint(str(tmp_path), network, validator, metric="auc")
    for epoch, figure in enumerate(figures, 1):
        nn.init.constant_(network.weight, epoch)
        validator.state.epoch, validator.state.metrics = epoch, {"auc": figure}
        best(SimpleNamespace(state=SimpleNamespace(epoch=epoch)))
    assert best.state_dict() == {"best": 0.6, "epoch": 3}  # an equal figure keeps the earlier weights
    other = nn.Linear(1, 1)
    load_weights(other, tmp_path / "model.pt")
    assert other.weight.item() == 3.0


def test_weights_of_the_last_epoch_load_from_the_checkpoint_of_the_run(training: ModuleType, tmp_path: Path) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    trainer.run()
    other = training.TinyCLIP()
    load_weights(other, tmp_path / "last.pt")
    assert torch.equal(other.words.weight, trainer.network.words.weight)


def test_a_finished_run_resumes_to_nothing_and_more_epochs_go_on(training: ModuleType, tmp_path: Path) -> None:
    training.make_trainer(str(tmp_path), epochs=2).run()
    weights = torch.load(tmp_path / "last.pt", weights_only=True)["network"]
    again = training.make_trainer(str(tmp_path), epochs=2, resume=True)
    again.run()
    assert again.state.iteration == 2 * training.EPOCH_LENGTH
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.network.state_dict().items())
    longer = training.make_trainer(str(tmp_path), epochs=3, resume=True)
    longer.run()
    assert longer.state.epoch == 3
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_resume_without_a_checkpoint_says_what_to_do(training: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.pt: no such checkpoint.*without resume"):
        training.make_trainer(str(tmp_path), resume=True).run()


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_checkpoint_says_what_to_do(training: ModuleType, tmp_path: Path, damage: str) -> None:
    training.make_trainer(str(tmp_path), epochs=1).run()
    path = tmp_path / "last.pt"
    if damage == "other":
        torch.save({"weights": torch.zeros(1)}, path)
    else:
        path.write_bytes(path.read_bytes()[:3000] if damage == "cut" else b"no checkpoint")
    with pytest.raises(ValueError, match=r"last\.pt (cannot be read|is not a checkpoint)"):
        training.make_trainer(str(tmp_path), epochs=2, resume=True).run()


def test_code_in_a_checkpoint_is_not_run(training: ModuleType, tmp_path: Path) -> None:
    torch.save({"position": SimpleNamespace()}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        training.make_trainer(str(tmp_path), resume=True).run()


def test_another_network_or_data_is_named(training: ModuleType, tmp_path: Path) -> None:
    training.make_trainer(str(tmp_path), epochs=1).run()
    other = training.make_trainer(str(tmp_path), epochs=2, resume=True)
    other.network.words = nn.Embedding(5, training.WIDTH)
    with pytest.raises(ValueError, match=r"(?s)state of 'network' does not fit.*run\.json"):
        other.run()
    shorter = training.make_trainer(str(tmp_path), epochs=2, resume=True)
    shorter.state.epoch_length = 3
    with pytest.raises(ValueError, match="epochs of 5 iterations, this run has 3"):
        shorter.run()


def test_lost_best_weights_are_noticed(training: ModuleType, tmp_path: Path) -> None:
    training.make_trainer(str(tmp_path), epochs=1).run()
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ValueError, match=r"'best'.*model\.pt.*is gone"):
        training.make_trainer(str(tmp_path), epochs=2, resume=True).run()


def test_starting_over_in_the_folder_of_a_run_warns(
    training: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training.make_trainer(str(tmp_path), epochs=1).run()
    training.make_trainer(str(tmp_path), epochs=1).run()
    assert "will be replaced: resume was not asked for" in caplog.text
