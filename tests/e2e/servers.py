"""The servers that the end-to-end tests start: Orthanc with DICOMweb, MONAI Label, OHIF's pages; loopback only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import requests
from pydicom import Dataset, dcmread
from requests_toolbelt import MultipartDecoder

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STARTUP_S = 120
_QUICK_S = 10  # for one small answer


class Server(NamedTuple):
    """A running server: its address without a closing slash, and the file that its output goes to."""

    url: str
    log: Path

    def printed(self) -> str:
        """Everything that it has said until now."""
        return self.log.read_text(errors="replace")


class Archive(NamedTuple):
    """Orthanc, empty when it starts."""

    server: Server
    rest: str  # Orthanc's own interface
    dicomweb: str

    def push(self, files: Sequence[Path]) -> None:
        """Store DICOM files, each by a request of Orthanc's own interface."""
        for file in files:
            answer = requests.post(f"{self.rest}/instances", data=file.read_bytes(), timeout=_QUICK_S)
            assert answer.ok, (file, answer.text)

    def search(self, level: str, **filters: str) -> list[Dataset]:
        """QIDO-RS: what matches, all fields; ``level`` is ``studies``, ``series`` or ``instances``."""
        filters = {"includefield": "all", **filters}
        answer = requests.get(f"{self.dicomweb}/{level}", params=filters, timeout=_QUICK_S)
        answer.raise_for_status()
        return [Dataset.from_json(found) for found in answer.json()]

    def retrieve(self, study: str, instances: Sequence[str]) -> list[Dataset]:
        """WADO-RS: instances of a study by their UIDs."""
        return [dcmread(BytesIO(self._instance(study, instance))) for instance in instances]

    def _instance(self, study: str, instance: str) -> bytes:
        (found,) = self.search("instances", StudyInstanceUID=study, SOPInstanceUID=instance)
        url = f"{self.dicomweb}/studies/{study}/series/{found.SeriesInstanceUID}/instances/{instance}"
        answer = requests.get(url, headers={"Accept": 'multipart/related; type="application/dicom"'}, timeout=_QUICK_S)
        (part,) = MultipartDecoder.from_response(answer).parts
        return part.content


def free_port() -> int:
    """A port on the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    url: str,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A process group that lives as long as the block; fails with its own words if it never answers."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    server = Server(url, log)
    try:
        _until(ready, process, server)
        yield server
    finally:
        _stop(process)


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], server: Server) -> None:
    deadline = time.monotonic() + STARTUP_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "ended" if process.poll() is not None else f"did not answer within {STARTUP_S} s"
            raise RuntimeError(f"{process.args[0]} {state}:\n{server.printed()[-4000:]}")
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: MONAI Label starts helpers of its own."""
    for how, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, how)
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    process.wait(10)


def _answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        try:
            return requests.get(url, timeout=_QUICK_S).ok
        except requests.ConnectionError:
            return False

    return ready


@contextmanager
def orthanc(folder: Path) -> Iterator[Archive]:
    """Orthanc with DICOMweb on free ports, its database in ``folder``, reachable from this machine only."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    configuration = {
        "Name": "MedCLIP tests",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "OverwriteInstances": True,  # a heatmap that is stored again replaces itself
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": "127.0.0.1", "Ssl": False},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    command = ["Orthanc", "--verbose", folder / "orthanc.json"]
    ready = _answers(f"{url}/dicom-web/studies")
    with running(command, log=folder / "orthanc.log", url=url, ready=ready) as server:
        yield Archive(server, url, f"{url}/dicom-web")


def server_path() -> str:
    """Where a MONAI Label server looks for programs: its environment's, such as itkimage2segimage, first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@contextmanager
def label_server(
    folder: Path,
    *,
    app: Path,
    studies: Path | str,
    conf: Mapping[str, Path | str],
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """``monailabel start_server`` on a free port; ``folder`` takes its log, its caches and its home."""
    port = free_port()
    command: list[str | Path] = [Path(sys.executable).with_name("monailabel"), "start_server", "--app", app]
    command += ["--studies", studies, "--host", "127.0.0.1", "--port", str(port)]
    for name, value in conf.items():
        command += ["--conf", name, value]
    folder.mkdir(parents=True, exist_ok=True)
    surroundings = {
        "PATH": server_path(),
        "HOME": str(folder),
        "MONAI_LABEL_DATASTORE_CACHE_PATH": str(folder / "cache"),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        **(env or {}),
    }
    url = f"http://127.0.0.1:{port}"
    ready = _answers(f"{url}/info/")
    with running(command, log=folder / "monailabel.log", url=url, ready=ready, env=surroundings) as server:
        yield server


@contextmanager
def viewer_site(dist: Path, archive: Archive, folder: Path) -> Iterator[Server]:
    """OHIF's built pages at a free port, with Orthanc's DICOMweb behind the same address (no cross-origin requests)."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, Path(__file__).with_name("ohif_site.py"), dist, archive.dicomweb, str(port)]
    folder.mkdir(parents=True, exist_ok=True)
    with running(command, log=folder / "ohif.log", url=url, ready=_answers(f"{url}/app-config.js")) as server:
        yield server
