"""How fast the MONAI Label app answers: first answer, a new prompt on an image already seen, twenty requests at once.

Needs the label extra. Starts a real server on generated studies and asks it over HTTP; all figures come from one run,
and what counts are their ratios: the machine may be shared.

    python benchmarks/app_speed.py RUN --output-dir out
    python benchmarks/app_speed.py RUN --output-dir out --archive

RUN is the output folder of a training run, of radiographs or of volumes. Studies are files in a folder (radiographs in
DICOM, volumes in NIfTI); with ``--archive`` DICOM in an Orthanc of its own (Debian's orthanc and orthanc-dicomweb),
from which the server fetches them by DICOMweb.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from monai_medclip.app.folder import app_folder
from monai_medclip.data import make_phantom
from monai_medclip.engines import trained_config
from monai_medclip.notice import RESEARCH_USE

PROMPTS = ("nodule", "mass", "pleural effusion", "consolidation", "cardiomegaly", "pneumothorax")
CLIENTS, REQUESTS = 5, 20


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """An archive of its own process, filled with DICOM files."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        port, folder = free_port(), folder.resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        plugins = ["/usr/share/orthanc/plugins"]
        config = {"HttpPort": port, "DicomServerEnabled": False, "StorageDirectory": str(folder), "Plugins": plugins}
        (folder / "orthanc.json").write_text(json.dumps({**config, "DicomWeb": {"Enable": True}}))
        with (folder / "orthanc.log").open("wb") as log:
            self.process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                requests.get(f"{url}/system", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        for file in files:
            requests.post(f"{url}/instances", data=file.read_bytes(), timeout=60).raise_for_status()
        self.dicomweb = f"{url}/dicom-web"
        series = requests.get(f"{self.dicomweb}/series", timeout=60).json()
        self.series = sorted(one["0020000E"]["Value"][0] for one in series)


class Server:
    """A MONAI Label server of its own process, on a free port."""

    def __init__(self, app: Path, studies: str, run: Path, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            sys.executable,
            "-m",
            "monailabel.main",
            "start_server",
            "--app",
            str(app),
            "--studies",
            studies,
        ]
        command += ["--conf", "bundle", str(run), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = os.environ | {"MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
        environment |= {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(log.parent.resolve() / "cache")}
        start = time.perf_counter()
        with log.open("wb") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
        while True:
            try:
                requests.get(f"{self.url}/info/", timeout=5)
                break
            except requests.ConnectionError:
                if self.process.poll() is not None:
                    raise SystemExit(f"the server stopped: see {log}") from None
                time.sleep(0.1)
        self.started_s = time.perf_counter() - start

    def heatmap(self, image: str, prompt: str) -> float:
        """Seconds of a stock request; the answer must be that prompt's."""
        start = time.perf_counter()
        reply = requests.post(
            f"{self.url}/infer/heatmap",
            params={"image": image, "output": "all"},
            files={"params": (None, json.dumps({"prompt": prompt}))},
            timeout=600,
        )
        seconds = time.perf_counter() - start
        reply.raise_for_status()
        if f'"prompt": "{prompt}"' not in reply.content[:2000].decode("latin-1"):
            raise SystemExit(f"the answer is not that of {prompt!r}: {reply.content[:300]!r}")
        return seconds

    def score(self, image: str, prompt: str) -> float:
        """The logit that a stock request's answer tells."""
        reply = requests.post(
            f"{self.url}/infer/heatmap",
            params={"image": image, "output": "json"},
            files={"params": (None, json.dumps({"prompt": prompt}))},
            timeout=600,
        )
        reply.raise_for_status()
        return float(reply.json()["score"])

    def page(self, image: str, prompt: str) -> dict[str, Any]:
        """A request as the web page makes it."""
        reply = requests.post(f"{self.url}/medclip/heatmap", json={"study": image, "prompt": prompt}, timeout=600)
        reply.raise_for_status()
        return dict(reply.json())

    def resident_mib(self) -> float:
        """Memory of the server's process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return float(status.split("VmRSS:")[1].split()[0]) / 1024


def single(server: Server, images: list[str]) -> dict[str, Any]:
    """The first answer after the start, and new prompts on each image after its first."""
    first = server.heatmap(images[0], PROMPTS[0])
    rows = []
    for image in images:
        of_first = first if image == images[0] else server.heatmap(image, PROMPTS[0])
        rows.append([of_first, *(server.heatmap(image, prompt) for prompt in PROMPTS[1:])])
    others = [seconds for row in rows for seconds in row[1:]]
    later = statistics.median(row[0] for row in rows[1:])
    return {
        "server start [s]": server.started_s,
        "first answer after start [s]": first,
        "first answer on a later image [s], median": later,
        "new prompt on an image already seen [s], median": statistics.median(others),
        "new prompt / first answer after start": statistics.median(others) / first,
        "new prompt / first answer on a later image": statistics.median(others) / later,
    }


def crowded(server: Server, images: list[str]) -> dict[str, Any]:
    """Twenty requests at once from five clients, stock and page routes mixed, while /info is asked all the time."""
    before, waits, done = server.resident_mib(), [], threading.Event()

    def ask_info() -> None:
        while not done.is_set():
            start = time.perf_counter()
            requests.get(f"{server.url}/info/", timeout=600).raise_for_status()
            waits.append(time.perf_counter() - start)
            time.sleep(0.02)

    def one(number: int) -> float:
        """The score of a question of its own: image and prompt; every second one by the stock route."""
        image, prompt = images[number % len(images)], f"{PROMPTS[number % len(PROMPTS)]} number {number}"
        if number % 2:
            return server.score(image, prompt)
        return float(server.page(image, prompt)["score"]["logit"])

    def all_at_once() -> list[float]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(one, range(REQUESTS)))

    asker = threading.Thread(target=ask_info)
    asker.start()
    start = time.perf_counter()
    answers = all_at_once()
    seconds = time.perf_counter() - start
    done.set()
    asker.join()
    after = server.resident_mib()
    for _ in range(2):
        all_at_once()
    alone = [one(number) for number in range(REQUESTS)]  # once more, one after the other
    return {
        "requests at once": REQUESTS,
        "answered": len(answers),
        "other scores than asked alone": sum(abs(a - b) > 1e-3 for a, b in zip(answers, alone, strict=True)),
        "different scores among them": len({round(score, 3) for score in alone}),
        "all [s]": seconds,
        "/info answers meanwhile": len(waits),
        "/info longest wait [s]": max(waits),
        "memory before, after, after two more rounds [MiB]": [
            round(one) for one in (before, after, server.resident_mib())
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("app_speed"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--archive", action="store_true", help="studies in an Orthanc, fetched by DICOMweb")
    parser.add_argument("--image-size", type=int, default=None, help="default 2048 for radiographs, 256 for volumes")
    arguments = parser.parse_args()
    folder = arguments.output_dir
    volumes = bool(trained_config(arguments.run).get("volumes"))
    size = arguments.image_size or (256 if volumes else 2048)
    kind = {"modality": "CT", "file_format": "dicom" if arguments.archive else "nifti"} if volumes else {}
    make_phantom(folder / "phantom", patients=arguments.images, image_size=size, seed=7, **kind)
    files = sorted(path for path in (folder / "phantom" / "images").rglob("*") if path.is_file())
    orthanc = Orthanc(folder / "orthanc", files) if arguments.archive else None
    if orthanc is None:
        studies = folder / "studies"
        studies.mkdir(exist_ok=True)
        for path in files:
            (studies / path.name).write_bytes(path.read_bytes())
        images = [path.name.removesuffix(".nii.gz").removesuffix(".dcm") for path in files]
    else:
        images = orthanc.series
    shutil.rmtree(folder / "cache", ignore_errors=True)
    where = str(studies) if orthanc is None else orthanc.dicomweb
    server = Server(app_folder(folder / "app"), where, arguments.run.resolve(), folder / "server.log")
    try:
        figures = {"images": f"{len(images)} of {size} pixels", **single(server, images), **crowded(server, images)}
    finally:
        for process in (server.process, *(() if orthanc is None else (orthanc.process,))):
            process.terminate()
            process.wait(30)
    (folder / "figures.json").write_text(json.dumps({"intended_use": RESEARCH_USE, **figures}, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:50} {value if not isinstance(value, float) else round(value, 3)}")


if __name__ == "__main__":
    main()
