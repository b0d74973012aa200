from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from monai_medclip.engines import CurvesPlot, History


def history_of(folder: Path, epochs: int) -> History:
    history = History(str(folder))
    history.rows += [
        {"epoch": e, "train_loss": 4 / e, "val_loss": 5 / e, "recall_at_5": 1 - 1 / e, "median_rank": 40 / e}
        for e in range(1, epochs + 1)
    ]
    return history


def test_the_picture_has_a_curve_per_figure(tmp_path: Path) -> None:
    CurvesPlot(str(tmp_path), history_of(tmp_path, 10))(None)
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    colors = {tuple(color) for color in pixels}
    assert {(31, 119, 180), (255, 127, 14)} <= colors  # matplotlib's first two: two losses, and one figure of 0 to 1
    assert (44, 160, 44) not in colors  # the median rank is on another scale


def test_chosen_metrics_only(tmp_path: Path) -> None:
    plot = CurvesPlot(str(tmp_path), history_of(tmp_path, 3), metrics=["recall_at_5"])
    assert plot._shown(["epoch", "recall_at_5", "median_rank"]) == ["recall_at_5"]


def test_nothing_to_draw_makes_no_file(tmp_path: Path) -> None:
    CurvesPlot(str(tmp_path), History(str(tmp_path)))(None)
    assert not (tmp_path / "curves.png").exists()


def test_the_end_of_training_is_drawn_whatever_the_interval(training: ModuleType, tmp_path: Path) -> None:
    training.make_trainer(str(tmp_path), epochs=2).run()
    assert Image.open(tmp_path / "curves.png").size == (1210, 462)
