"""What a user does: train, evaluate, ask; from a folder of her own, stopped and resumed, with her own values."""

from __future__ import annotations

import csv
import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_medclip import __version__

from .runs import TINY_PHANTOM, files, run, run_as_user

DIE = {  # in the middle of epoch 2, at its second of five iterations
    "+imports": ["$import ignite", "$import os", "$import signal"],
    "die": "$lambda: os.kill(os.getpid(), signal.SIGKILL)",
    "run": [
        "$@train#trainer.add_event_handler(ignite.engine.Events.ITERATION_COMPLETED(once=7), @die)",
        "$@train#trainer.run()",
    ],
}


def digest(value: Any) -> str:
    """SHA-256 of everything in a checkpoint: names, numbers and the bytes of tensors."""
    if isinstance(value, torch.Tensor):
        value = (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes().hex())
    elif isinstance(value, dict):
        value = [(key, digest(entry)) for key, entry in value.items()]
    elif isinstance(value, list | tuple):
        value = [digest(entry) for entry in value]
    return hashlib.sha256(repr(value).encode()).hexdigest()


def results(folder: Path) -> dict[str, str]:
    files = {name: (folder / name).read_text() for name in ("history.csv", "predictions.csv", "metrics.json")}
    return files | {name: digest(torch.load(folder / name, weights_only=True)) for name in ("model.pt", "last.pt")}


def test_everything_is_written_to_the_users_folder_and_the_user_is_told(trained: Path) -> None:
    assert sorted(path.name for path in trained.parent.iterdir()) == ["medclip_output", "printed.txt"]
    written = {path.name for path in trained.iterdir()}
    needed = {"run.json", "splits.json", "history.csv", "curves.png", "model.pt", "last.pt", "metrics.json"}
    assert needed | {"predictions.csv", "tensorboard", "tokenizer"} <= written
    printed = (trained.parent / "printed.txt").read_text()
    assert "zero-shot macro AUC" in printed
    assert "chance" in printed
    assert "24 x 24" in printed
    assert "metrics.json" in printed


def test_the_record_holds_the_resolved_config_versions_seed_and_hashes(trained: Path, phantom: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["seed"] == record["config"]["seed"] == 3
    assert record["resolved"]["optimizer::params::weight_decay"] == 0.01  # from the command line
    assert record["resolved"]["train::trainer::max_epochs"] == 2
    assert record["resolved"]["optimizer::params::lr"] == record["config"]["learning_rate"]
    assert record["packages"]["monai-medclip"] == __version__
    assert {name: split["items"] for name, split in record["data"].items()} == {"train": 20, "val": 10, "test": 10}
    assert all(len(split["sha256"]) == 64 for split in record["data"].values())
    splits = json.loads((trained / "splits.json").read_text())
    first = dict(zip(splits["columns"], splits["rows"][0], strict=True))
    image = next((phantom / "images").rglob(f"{first['id']}.dcm"))
    assert first["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()


def test_every_result_says_what_it_may_be_used_for(trained: Path) -> None:
    tables = [path for path in trained.iterdir() if path.suffix in (".json", ".csv")]
    assert len(tables) >= 5
    assert [path.name for path in tables if "Research use only" not in path.read_text()] == []


def test_killed_in_mid_epoch_and_resumed_equals_uninterrupted(trained: Path, phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "die.json").write_text(json.dumps(DIE))
    options = {**TINY_PHANTOM, "dataset_dir": phantom, "max_epochs": 2, "seed": 3, "weight_decay": 0.01}
    broken = tmp_path / "medclip_output"
    run_as_user([*files("train"), str(tmp_path / "die.json")], tmp_path, expect=-signal.SIGKILL, **options)
    assert len((broken / "history.csv").read_text().splitlines()) == 1 + 1
    assert not (broken / "metrics.json").exists()
    printed = run_as_user(files("train"), tmp_path, **options, resume=True)
    assert "Resumed from medclip_output/last.pt after epoch 1" in printed
    assert results(broken) == results(trained)
    assert json.loads((broken / "run.json").read_text())["resumed"] is True


def test_resuming_with_another_seed_is_refused(trained: Path, phantom: Path) -> None:
    options = {**TINY_PHANTOM, "dataset_dir": str(phantom), "output_dir": str(trained), "max_epochs": 2}
    before = results(trained)
    with pytest.raises(RuntimeError) as caught:
        run("train", **options, seed=4, resume=True)
    assert "had seed 3, now it is 4" in str(caught.value.__cause__)
    assert results(trained) == before


def test_evaluating_again_gives_the_same_figures(trained: Path, phantom: Path) -> None:
    before = results(trained)
    run("evaluate", dataset_dir=str(phantom), output_dir=str(trained), **TINY_PHANTOM)
    assert results(trained) == before
    assert json.loads((trained / "evaluate_run.json").read_text())["config"]["batch_size"] == 4


def test_asking_about_new_images_needs_no_training_data(trained: Path, phantom: Path, tmp_path: Path) -> None:
    image = sorted((phantom / "images").rglob("*.dcm"))[0]
    options = {"output_dir": str(trained), "prediction_dir": str(tmp_path / "answers"), "dataset_dir": "nowhere"}
    run("inference", **options, device="cpu", threads=1, image=str(image.parent), findings=["nodule", "broken rib"])
    with (tmp_path / "answers" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [Path(row["file"]).name for row in rows] == [path.name for path in sorted(image.parent.iterdir())]
    assert all(-100 <= float(row["broken rib"]) <= 100 for row in rows)
    assert not Path("nowhere").exists()
    assert json.loads((tmp_path / "answers" / "run.json").read_text())["data"]["infer"]["items"] == len(rows)
