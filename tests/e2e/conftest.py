"""What the end-to-end tests stand on: trained runs, phantom patients, an archive, servers; each skips with a reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from pydicom import Dataset
    from SimpleITK import Image

    from .cases import Case, Seen
    from .servers import Archive, Server

RUNS = {"DX": "MEDCLIP_RUN_XRAY", "CT": "MEDCLIP_RUN_CT"}  # modality: where its trained run's folder is named


_KINDS = {"Parametric": "parametric_map", "Segmentation": "segmentation", "Capture": "capture", "SR": "report"}


class Stored(NamedTuple):
    """A heatmap whose objects the server has stored in the archive."""

    seen: Seen
    params: dict[str, Any]  # that came with it
    objects: dict[str, Dataset]  # by kind (`DICOM_KINDS`), retrieved from the archive


class Site(NamedTuple):
    """A MONAI Label server and what its studies hold."""

    server: Server
    cases: list[Case]
    phantom: Path  # the folder with the cases' tables


def run_folder(modality: str) -> Path:
    """The trained run of a modality, or a skip."""
    folder = os.environ.get(RUNS[modality], "")
    if not (Path(folder) / "model.pt").is_file():
        pytest.skip(f"no trained run: set {RUNS[modality]} to its folder, or run .ci/e2e, which trains one")
    return Path(folder)


def _needs(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}: apt-get install {package}")


@pytest.fixture(scope="session")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documented command prints."""
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "monai_medclip", "app"]
    env = {**os.environ, "XDG_DATA_HOME": str(home)}
    return Path(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="session", params=["DX", "CT"])
def modality(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Case]]:
    """DICOM images of the same patients by modality, and CT volumes as NIfTI under ``CT files``."""
    from .cases import make_cases

    return {
        "DX": make_cases(tmp_path_factory.mktemp("dx"), modality="DX"),
        "CT": make_cases(tmp_path_factory.mktemp("ct"), modality="CT"),
        "CT files": make_cases(tmp_path_factory.mktemp("ct_files"), modality="CT", file_format="nifti"),
    }


@pytest.fixture(scope="session")
def local_site(
    modality: str, phantoms: dict[str, list[Case]], app_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server of a folder: radiographs as DICOM files, volumes as NIfTI."""
    from .servers import label_server

    cases = phantoms["DX" if modality == "DX" else "CT files"]
    folder = tmp_path_factory.mktemp(f"local_{modality}")
    studies = folder / "studies"
    studies.mkdir()
    for image in {case.image for case in cases}:
        shutil.copy(image, studies)
    conf = {"bundle": run_folder(modality)}
    if (run_folder(modality) / "index").is_dir():  # where retrieve.json was asked
        conf["index"] = run_folder(modality) / "index"
    with label_server(folder / "server", app=app_folder, studies=studies, conf=conf) as server:
        yield Site(server, cases, cases[0].phantom)


@pytest.fixture(scope="session")
def archive(phantoms: dict[str, list[Case]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Orthanc with the radiographs and CT series of all patients."""
    from .servers import DICOMWEB_PLUGIN, orthanc

    _needs("Orthanc", "orthanc orthanc-dicomweb")
    if not DICOMWEB_PLUGIN.is_file():
        pytest.skip(f"no {DICOMWEB_PLUGIN}: apt-get install orthanc-dicomweb")
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        images = {case.image: case for modality in ("DX", "CT") for case in phantoms[modality]}
        running.push([file for case in images.values() for file in case.files])
        yield running


@pytest.fixture(scope="session")
def archive_sites(
    archive: Archive, phantoms: dict[str, list[Case]], app_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Site]]:
    """One server of the archive per modality."""
    from .servers import label_server

    runs = {modality: run_folder(modality) for modality in RUNS}
    with (
        label_server(
            tmp_path_factory.mktemp("web_DX"),
            app=app_folder,
            studies=archive.dicomweb,
            conf={"bundle": runs["DX"]},
            env={"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": '{"Modality": "DX"}'},
        ) as radiographs,
        label_server(
            tmp_path_factory.mktemp("web_CT"),
            app=app_folder,
            studies=archive.dicomweb,
            conf={"bundle": runs["CT"]},
        ) as volumes,
    ):
        servers = {"DX": radiographs, "CT": volumes}
        yield {name: Site(servers[name], phantoms[name], phantoms[name][0].phantom) for name in servers}


@pytest.fixture(scope="session")
def seen(archive_sites: dict[str, Site]) -> dict[str, list[Seen]]:
    """By modality, two patients whose lesions the model finds, as the server's own float maps say."""
    from .cases import first_seen
    from .requests_to import float_map

    found: dict[str, list[Seen]] = {}
    for modality, (server, cases, _) in archive_sites.items():

        def raw(case: Case, server: Server = server) -> Image:
            return float_map(server, str(case.header.SeriesInstanceUID), case.finding)

        first = first_seen(cases, raw)
        second = first_seen([case for case in cases if case.patient != first.case.patient], raw)
        found[modality] = [first, second]
    return found


@pytest.fixture(scope="session")
def stored(archive: Archive, archive_sites: dict[str, Site], seen: dict[str, list[Seen]]) -> dict[str, Stored]:
    """By modality, the first of these patients with all DICOM results; the second has none."""
    from .requests_to import infer

    done = {}
    for modality, (server, *_) in archive_sites.items():
        case = seen[modality][0].case
        asked = {"prompt": case.finding, "archive": "store with segmentation", "threshold": 0.25}
        answer = infer(server, "heatmap", str(case.header.SeriesInstanceUID), output="json", **asked)
        assert answer.ok, answer.text
        objects = archive.retrieve(str(case.header.StudyInstanceUID), answer.json()["stored"])
        by_kind = {kind: one for one in objects for word, kind in _KINDS.items() if word in one.SOPClassUID.name}
        done[modality] = Stored(seen[modality][0], answer.json(), by_kind)
    return done


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """Debian's Chromium, with playwright to drive it."""
    pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    from .browser import CHROMIUM

    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    return CHROMIUM


@pytest.fixture(scope="session")
def screenshots() -> Path | None:
    """Where pictures for the documentation go (``MEDCLIP_SCREENSHOTS``); None: they are not kept."""
    folder = os.environ.get("MEDCLIP_SCREENSHOTS")
    return Path(folder) if folder else None
