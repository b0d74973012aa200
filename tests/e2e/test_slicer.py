"""Slicer's module code, monailabel's and ours, on slicer-core against our server: tests/slicer, in its environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")

from .conftest import Site

_CHECKOUT = Path(__file__).parents[2]


def test_slicers_code_asks_this_server(local_site: Site, modality: str, tmp_path: Path) -> None:
    python = os.environ.get("MEDCLIP_SLICER_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("no slicer-core: set MEDCLIP_SLICER_PYTHON to a python that has it, see tests/slicer/README.md")
    env = {
        **os.environ,
        f"MEDCLIP_LIVE_{'XRAY' if modality == 'DX' else 'CT'}": f"{local_site.server.url} {local_site.phantom}",
        "MEDCLIP_STOCK_MODULE": f"{sys.prefix}/monailabel/plugins/slicer/MONAILabel",
        "HOME": str(tmp_path),
    }
    command = [python, "-m", "pytest", "--import-mode=importlib", "--confcutdir", "tests/slicer"]
    done = subprocess.run(
        [*command, "tests/slicer/test_live.py", "-o", "cache_dir=" + str(tmp_path)],
        cwd=_CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed.group(1)) >= 5, done.stdout
