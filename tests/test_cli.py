"""The verbs of `python -m monai_medclip`, called as a shell would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from monai_medclip import __version__
from monai_medclip.cli import bundle_root, main
from monai_medclip.data import read_manifest
from monai_medclip.engines import write_json


def test_the_module_prints_the_bundles_path_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai_medclip", "bundle"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
    for folder in (printed, bundle_root()):  # a checkout, where the tests run, and the installed package may be two
        assert Path(folder).name == "medclip"
        assert (Path(folder) / "configs" / "train.json").is_file()


def test_an_unknown_bundle_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="'nothing'"):
        bundle_root("nothing")


def test_version_and_missing_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_phantom_writes_a_manifest_and_prints_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["phantom", str(tmp_path / "p"), "--patients", "2", "--image-size", "64", "--seed", "5"])
    manifest = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert manifest == tmp_path / "p" / "manifest.csv"
    assert len(read_manifest(manifest)) == 2
    assert json.loads((tmp_path / "p" / "phantom.json").read_text())["seed"] == 5


def metrics(folder: Path, nodule_auc: float) -> str:
    retrieval = {"tie_aware_text_to_image_recall@5": 0.5, "tie_aware_text_to_image_chance@5": 0.01}
    zero_shot = {"macro_auc": 0.95, "nodule_auc": nodule_auc}
    write_json(folder / "metrics.json", {"zero_shot": zero_shot, "retrieval": retrieval})
    return str(folder)


LIMITS = ["--zero-shot-auc", "0.93", "--nodule-auc", "0.88", "--recall-over-chance", "10"]


def test_check_figures_passes_or_exits_with_the_missed_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check-figures", metrics(tmp_path / "good", 0.9), *LIMITS])
    assert capsys.readouterr().out.count("reached") == 3
    bad = metrics(tmp_path / "bad", 0.8)
    with pytest.raises(SystemExit, match=r"misses zero_shot/nodule_auc$") as caught:
        main(["check-figures", bad, *LIMITS])
    assert caught.value.code not in (0, None)  # a text: printed to stderr, exit status 1


def test_summarize_prints_mean_and_spread_over_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [metrics(tmp_path / str(seed), auc) for seed, auc in enumerate((0.8, 0.9, 1.0))]
    main(["summarize", *folders, "--containing", "zero_shot"])
    printed = capsys.readouterr().out
    assert "| zero_shot/nodule_auc | 0.900 ± 0.100 | 0.800 to 1.000 | 3 |" in printed
    assert "retrieval" not in printed


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    root = Path(__file__).parents[1]
    commands = [line for line in (root / "README.md").read_text().splitlines() if line.startswith("python3.11 -m venv")]
    setup, tests = (command.split(" && ", 2)[2] for command in commands)
    assert setup == "pip install . && python -m monai.bundle run --config_file bundles/medclip/configs/train.json"
    assert tests in (root / ".ci" / "run").read_text()
