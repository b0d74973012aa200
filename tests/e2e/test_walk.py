"""The walk of docs/how-to/viewers.md: its commands run as they stand, one after the other, in one shell."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import run_folder

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "viewers.md"
RUN = ("studies", "pack", "serve-films", "ask", "orthanc", "push", "serve-archive", "store", "batch")
"""Blocks that are run here. The script that calls this test has installed and trained."""
WAITS = {"serve-films": "8000/info/", "orthanc": "8043/system", "serve-archive": "8001/info/"}
SHELL = """
set -euo pipefail
stop() { kill $(jobs -p) 2>/dev/null || true; pkill -P $$ 2>/dev/null || true; }
trap stop EXIT
wait_for() { for _ in $(seq 240); do curl --silent --output /dev/null "$1" && return; sleep 0.5; done; exit 7; }
"""


def blocks() -> dict[str, str]:
    """The page's commands by the word behind their fence."""
    return dict(re.findall(r"```bash ([\w-]+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_the_page_s_commands_run(tmp_path: Path) -> None:
    if shutil.which("Orthanc") is None:
        pytest.skip("no Orthanc: apt-get install orthanc orthanc-dicomweb")
    for name, modality in (("xray_run", "DX"), ("ct_run", "CT")):
        (tmp_path / name).symlink_to(run_folder(modality).resolve(), target_is_directory=True)
    page, script = blocks(), [SHELL]
    for name in RUN:
        script += [f"echo '== {name}'", page[name]]
        if name in WAITS:
            script.append(f"wait_for http://127.0.0.1:{WAITS[name]}")
    text = "\n".join(script).replace("sudo apt-get install -y orthanc orthanc-dicomweb\n", "")  # installed already
    for documented, free in zip(("8000", "8001", "8043"), free_ports(3), strict=True):
        text = text.replace(documented, free)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        ["bash", "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert (tmp_path / "heat.nrrd").read_bytes().startswith(b"NRRD")
    assert '"prompt":"pleural effusion"' in done.stdout
    assert '"stored":["' in done.stdout
    assert (tmp_path / "batch" / "results.csv").is_file()


def test_the_page_names_every_block_that_is_run() -> None:
    assert set(RUN) | {"install", "train"} == set(blocks())
