import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from monai_medclip.engines import RESEARCH_USE, RunRecord, data_hashes, write_run_record


def items_in(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(name.encode() * 100)
    return [{"id": name, "image": str(folder / f"{name}.png"), "text": f"Report {name}."} for name in ("a", "b")]


def test_data_hash_depends_on_content_and_not_on_where_it_lies(tmp_path: Path) -> None:
    here, there = items_in(tmp_path / "here"), items_in(tmp_path / "far" / "there")
    assert data_hashes(here) == data_hashes(there)
    assert data_hashes(here) != data_hashes(here[::-1])
    assert data_hashes(here) != data_hashes([{**here[0], "text": "Other."}, here[1]])
    Path(there[1]["image"]).write_bytes(b"one bit of another image")
    assert data_hashes(here) != data_hashes(there)


def test_data_hash_of_series_folders_lists_of_files_and_arrays(tmp_path: Path) -> None:
    items_in(tmp_path / "series")
    folder = data_hashes([{"image": tmp_path / "series"}])
    assert folder == data_hashes([{"image": [tmp_path / "series" / "a.png", str(tmp_path / "series" / "b.png")]}])
    assert data_hashes([{"features": np.arange(3.0)}]) != data_hashes([{"features": np.arange(3.0) + 1e-9}])
    with pytest.raises(FileNotFoundError):
        data_hashes([{"image": tmp_path / "absent.png"}])


def bundle(folder: Path, text: str) -> tuple[Path, Path]:
    """A bundle of two config files, the second one an overlay."""
    configs = folder / "configs"
    configs.mkdir()
    main = {
        "imports": ["$import monai_medclip.engines as engines"],
        "seed": 3,
        "output_dir": str(folder / "run"),
        "rates": "$[@seed / 2, 0.25]",
        "data": [{"id": "a", "text": text}],
        "network": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "@seed"},
        "run": [
            "$@network.train()",
            "$engines.write_run_record(@output_dir, seed=@seed, items={'train': @data})",
        ],
    }
    (configs / "train.json").write_text(json.dumps(main))
    (configs / "overlay.json").write_text(json.dumps({"epochs": 7, "also": "@rates"}))
    return configs / "train.json", configs / "overlay.json"


def test_a_bundle_run_records_its_merged_and_resolved_configuration(tmp_path: Path) -> None:
    files = [str(file) for file in bundle(tmp_path, "Normal.")]
    workflow = ConfigWorkflow(files, meta_file=False, logging_file=False, seed=5, **{"network::in_features": "@epochs"})
    workflow.initialize()
    workflow.run()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["intended_use"] == RESEARCH_USE
    assert record["seed"] == 5
    assert record["config"]["epochs"] == 7  # the overlay
    assert record["config"]["network"] == {
        "_target_": "torch.nn.Linear",
        "in_features": "@epochs",
        "out_features": "@seed",
    }
    assert record["resolved"]["network::in_features"] == 7  # the override, resolved
    assert record["resolved"]["network::out_features"] == 5
    assert record["packages"]["monai"] is not None
    assert record["data"] == {"train": {"items": 1, "sha256": data_hashes([{"id": "a", "text": "Normal."}])}}
    assert record["environment"]["threads"] >= 1


def test_outside_a_bundle_the_configuration_may_be_given(tmp_path: Path) -> None:
    path = write_run_record(str(tmp_path), seed=1, items={}, config={"lr": 0.1})
    assert json.loads(path.read_text())["config"] == {"lr": 0.1}
    assert json.loads(write_run_record(str(tmp_path), seed=1, items={}).read_text())["config"] is None


def test_resuming_with_other_data_or_seed_is_an_error(tmp_path: Path) -> None:
    items = {"train": items_in(tmp_path / "data")}
    RunRecord(str(tmp_path), seed=1, items=items)(None)
    RunRecord(str(tmp_path), seed=1, items=items, resume=True)(None)
    with pytest.raises(ValueError, match="had seed 1, now it is 2"):
        RunRecord(str(tmp_path), seed=2, items=items, resume=True)(None)
    shutil.copy(items["train"][0]["image"], items["train"][1]["image"])
    with pytest.raises(ValueError, match=r"had data .* or start again without resume"):
        RunRecord(str(tmp_path), seed=1, items=items, resume=True)(None)
    assert json.loads((tmp_path / "run.json").read_text())["resumed"] is True
