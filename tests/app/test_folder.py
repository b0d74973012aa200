"""The app's folder: what `monailabel start_server --app` wants, printed by one command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_medclip.app.folder import app_folder


def test_the_command_makes_a_folder_with_a_main_and_prints_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai_medclip", "app", "--folder", str(tmp_path / "app")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(printed) == tmp_path / "app"
    assert "from monai_medclip.app.main import MedCLIPApp" in (tmp_path / "app" / "main.py").read_text()


def test_by_default_it_lies_in_the_user_s_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert app_folder() == tmp_path / "medclip_app"


def test_what_lies_there_is_kept_and_an_older_main_replaced(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("old")
    (tmp_path / "logs").mkdir()
    app_folder(tmp_path)
    assert "MedCLIPApp" in (tmp_path / "main.py").read_text()
    assert (tmp_path / "logs").is_dir()
