"""What the tests of our routes ask: untrained bundles, phantom studies, and an app that holds both."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_medclip.bundle_folder import bundle_root
from monai_medclip.data import PhantomPatient
from monai_medclip.data.phantom_dicom import write_ct_series, write_dx
from monai_medclip.engines import BundleModel
from monai_medclip.engines.run_config import trained_config
from monai_medclip.transforms import ReportTokenizer

CONFIGS = Path(bundle_root()) / "configs"
REPORT = "Large right pneumothorax. Left upper lung zone mass.\n\nThe heart is not enlarged."
PLANTED = "Plantagenet"  # a patient's name that no log may hold


def untrained_run(folder: Path, *overlays: str) -> Path:
    """A run's folder as `train.json` leaves it, with weights that have learned nothing."""
    folder.mkdir(parents=True)
    files = [str(CONFIGS / f"{name}.json") for name in ("train", *overlays)]
    config = dict(ConfigParser.load_config_files(files))
    (folder / "run.json").write_text(json.dumps({"config": config}))
    ReportTokenizer.train([PhantomPatient(0, number).report for number in range(20)], path=folder / "tokenizer")
    metrics = {"zero_shot": {"rule": "positive_minus_negative"}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    torch.manual_seed(0)
    (folder / "model.pt").touch()
    clip = ConfigParser(trained_config(folder)).get_parsed_content("clip")
    torch.save(clip.state_dict(), folder / "model.pt")
    return folder


def radiograph(path: Path, number: int = 3) -> Path:
    image = PhantomPatient(0, number).xray(96).image[:, 8:-8]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dx(path, image, patient_id=PLANTED, sex="F", spacing_mm=4.0, study=("dx", number))
    return path


def ct_series(folder: Path, number: int = 3) -> Path:
    ct = PhantomPatient(0, number).ct((40, 48, 48))
    where = {"spacing_mm": ct.spacing_mm, "origin_mm": ct.origin_mm}
    write_ct_series(folder, ct.volume, patient_id=PLANTED, sex="F", study=("ct", number), **where)
    return folder


class StandIn:
    """What our routes ask of `MedCLIPApp`, over a real model."""

    def __init__(self, model: BundleModel, known: dict[str, Path], index: Any = None) -> None:
        self.medclip, self.known, self.index = model, known, index

    def datastore(self) -> Any:
        return SimpleNamespace(list_images=lambda: list(self.known))

    def image_path(self, key: str) -> Path:
        return self.known[key]

    def server_mode(self, on: bool) -> None:
        """MONAI Label tells that a server runs."""

    def on_init_complete(self) -> None:
        """And that it is ready."""


def zipped(members: dict[str, bytes]) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """The address at which an application answers, on a free port of this computer, while the context lasts."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def chromium() -> Iterator[Any]:
    """Headless Chromium that reaches out for nothing by itself; skips where there is none."""
    import pytest

    playwright = pytest.importorskip("playwright.sync_api", reason="no browser test without: pip install playwright")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no browser test without Chromium: apt install chromium")
    quiet = ("quic", "background-networking", "component-update", "sync")
    flags = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=flags)
        try:
            yield browser
        finally:
            browser.close()
