from pathlib import Path
from types import ModuleType

import pytest

from monai_medclip.engines import ProgressBar


def test_one_bar_over_the_whole_run(training: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=4)
    ProgressBar(enabled=True).attach(trainer)
    trainer.run()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "20/20" in shown
    assert "loss=" in shown


def test_a_log_file_gets_no_bar(training: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = training.make_trainer(str(tmp_path), epochs=1)
    ProgressBar().attach(trainer)
    trainer.run()
    assert "train:" not in capsys.readouterr().err
