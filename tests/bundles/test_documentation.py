"""The code in the documentation runs as it is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def code_blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (HOW_TO / page).read_text(), flags=re.DOTALL)


def test_ten_lines_embed_a_trained_model(
    trained: Path, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "medclip_output")
    (tmp_path / "my_images").mkdir()
    for image in sorted((phantom / "images").rglob("*.dcm"))[:2]:
        shutil.copy(image, "my_images")
    (code,) = code_blocks("embed-in-your-pipeline.md")
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    names: dict[str, Any] = {}
    exec(compile(code, "embed-in-your-pipeline.md", "exec"), names)
    assert [scores.shape for scores in names["scores"].values()] == [(1, 6), (1, 6)]
    assert (tmp_path / "medclip_output" / "predictions" / "predictions.csv").is_file()
