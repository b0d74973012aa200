"""What a whole CT costs, from a DICOM folder to a heatmap on disk: CPU seconds and peak memory of every step.

    python benchmarks/ct_cost.py [--rows ROW ...] [--prompts 1] [--series FOLDER] [--out FILE.json] > FILE.md

A chest phantom of 300 slices of 512 x 512 pixels is written as a DICOM series (not measured; `--series` keeps it). Each
row then runs in a process of its own, on one thread, with the pipeline, encoder and grid that the bundle's configs name
and random weights; directions of prompts are given, not encoded. The files have just been written: a cold disk comes on
top of reading. `score` is one pass without gradients, `explain` contains one more.

Memory is the highest resident set of a step above that of the interpreter with all libraries, in multiples of the
volume as float32; a step has what is still alive of the steps before, the weights first of all. The last two columns
are the highest of all steps and what the process then takes in all. Linux only: VmHWM is set back before every step.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.cli import bundle_root
from monai_medclip.data import PhantomPatient
from monai_medclip.data.phantom_dicom import write_ct_series
from monai_medclip.inferers import HeatmapInferer
from monai_medclip.networks import CLIP, ZeroShotClassifier
from monai_medclip.writers import scanner_maps, write_maps

SHAPE = (300, 512, 512)  # slices, rows, columns
VOLUME_BYTES = 4 * 300 * 512 * 512
ENLARGED = 4  # rows and columns are drawn at a quarter of this, which takes seconds
NOISE_HU = 18
STEPS = ("network", "read DICOM", "preprocess", "score", "explain", "back on its grid", "write NIfTI")


class Row(NamedTuple):
    """One way to read a CT: configs of the bundle, later ones first, and what is changed in them."""

    title: str
    configs: tuple[str, ...]
    changes: dict[str, Any]
    method: dict[str, Any]  # of explaining


_SLICE_BY_SLICE = {
    "_target_": "monai_medclip.explainers.SliceWise",
    "explainer": {"_target_": "monai_medclip.explainers.GradECLIP"},
}
_LUNGS = [
    {"_target_": "monai_medclip.transforms.LungMaskd", "keys": "image"},
    {"_target_": "monai_medclip.transforms.CropLungsd", "keys": "image"},
    {"_target_": "DeleteItemsd", "keys": "lungs"},
]
ROWS = {
    "3d": Row(
        "3D SmallViT, 56 x 40 x 56 (ct.json), Grad-ECLIP",
        ("explain", "ct"),
        {},
        {"_target_": "monai_medclip.explainers.GradECLIP"},
    ),
    "slices": Row(
        "2.5D SmallViT, 300 x 224 x 224, chunk 8 (ct.json + slices.json), Grad-ECLIP slice by slice",
        ("explain", "ct", "slices"),
        {"volume_size": [300, 224, 224], "voxel_mm": [1.1, 1.5625, 1.5625], "chunk": 8},
        _SLICE_BY_SLICE,
    ),
    "vit-b": Row(
        "2.5D ViT-B/16, 64 x 224 x 224, 3 windows, chunk 8 (as pretrained_slices.json), Grad-ECLIP slice by slice",
        ("explain", "ct", "slices"),
        {
            "volume_size": [64, 224, 224],
            "voxel_mm": [5.0, 1.5625, 1.5625],
            "windows": ["lung", "mediastinum", "bone"],
            "chunk": 8,
            "slice_encoder": {
                "_target_": "monai_medclip.networks.TimmImageEncoder",
                "name": "vit_base_patch16_224",
                "pretrained": False,
            },
        },
        _SLICE_BY_SLICE,
    ),
    "nodule": Row(
        "nodule crop of 28 mm, SmallCNN (nodules.json), Grad-CAM",
        ("explain", "manifest", "nodules"),
        {},
        {"_target_": "monai_medclip.explainers.GradCAM"},
    ),
    "lungs": Row(
        "as the first, cropped to the lungs that the threshold finder sees",
        ("explain", "ct"),
        {"crop::transforms": _LUNGS},
        {"_target_": "monai_medclip.explainers.GradECLIP"},
    ),
}


class Step(NamedTuple):
    """What a step cost."""

    cpu_seconds: float
    peak_bytes: int  # highest resident set of the process while it ran


class Meter:
    """CPU seconds and highest resident set per step; steps of one name are added up."""

    def __init__(self) -> None:
        """What the process takes now is the start."""
        gc.collect()
        self.start_bytes = _status("VmRSS")
        self.steps: dict[str, Step] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS, see man 5 proc_pid_clear_refs
        start = time.process_time()
        yield
        spent, peak = time.process_time() - start, _status("VmHWM")
        before = self.steps.get(name, Step(0.0, 0))
        self.steps[name] = Step(before.cpu_seconds + spent, max(before.peak_bytes, peak))


def _status(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


class NoText(nn.Module):
    """A text side that is never asked."""

    width, vocab_size, max_length = 64, 1, 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        raise AssertionError("no text is encoded here")


def write_series(folder: Path) -> None:
    """The first patient of the phantom that has a nodule, as DICOM; ``nodule.json`` says where it lies, in RAS mm."""
    patient = next(p for p in (PhantomPatient(0, i) for i in range(100)) if "nodule" in {f.finding for f in p.findings})
    small = patient.ct((SHAPE[0], SHAPE[1] // ENLARGED, SHAPE[2] // ENLARGED))
    planes = torch.from_numpy(small.volume)[:, None]  # (slices, 1, rows, columns)
    volume = F.interpolate(planes, scale_factor=ENLARGED, mode="bilinear")[:, 0].numpy()
    noise = np.random.default_rng(0)
    for plane in volume:
        plane += NOISE_HU * noise.standard_normal(plane.shape, dtype=np.float32)
    slice_mm, row_mm, column_mm = (mm / n for mm, n in zip(small.spacing_mm, (1, ENLARGED, ENLARGED), strict=True))
    x_mm, y_mm, z_mm = small.origin_mm  # of the small grid's first voxel, whose center has moved
    origin_mm = (x_mm - (ENLARGED - 1) / 2 * column_mm, y_mm - (ENLARGED - 1) / 2 * row_mm, z_mm)
    about = {"patient_id": "cost", "sex": "F", "study": ("ct cost",), "origin_mm": origin_mm}
    write_ct_series(folder / "series", volume, spacing_mm=(slice_mm, row_mm, column_mm), **about)
    down, row, column = (float(index.mean()) for index in np.nonzero(small.masks["nodule"]))
    center = (-(x_mm + column * small.spacing_mm[2]), -(y_mm + row * small.spacing_mm[1]), z_mm - down * slice_mm)
    (folder / "nodule.json").write_text(json.dumps(center))


def configured(row: Row) -> ConfigParser:
    """The bundle's configs, with the row's changes, before anything is built."""
    parser = ConfigParser()
    parser.read_config([f"{bundle_root()}/configs/{name}.json" for name in row.configs])
    parser.update(row.changes)
    parser["methods"] = {"cost": {"_target_": "monai_medclip.inferers.HeatmapInferer", "explainer": row.method}}
    return parser


def asked(encoder: Any, prompts: int) -> ZeroShotClassifier:
    """A classifier over an encoder, whose directions are random unit vectors."""
    names = [{"name": f"finding {i}", "positive": ["given"]} for i in range(prompts)]
    classifier = ZeroShotClassifier(CLIP(encoder, NoText()), names, tokenizer=None).eval()
    classifier.directions.copy_(F.normalize(torch.randn_like(classifier.directions), dim=1))
    return classifier


def run_row(row: Row, folder: Path, prompts: int) -> dict[str, Any]:
    """Walk the series through a row's pipeline, step by step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parser = configured(row)
    center = json.loads((folder / "nodule.json").read_text())
    meter = Meter()
    with meter.step("network"):
        network = asked(parser.get_parsed_content("image_encoder"), prompts)
        pipeline = parser.get_parsed_content("image_preprocessing")
        inferer: HeatmapInferer = parser.get_parsed_content("methods")["cost"]
    item: dict[Any, Any] = {"image": str(folder / "series"), "center_mm": center}
    for transform in pipeline.transforms:  # as `Compose` does: a step's input lives until it returns
        name = "read DICOM" if isinstance(item["image"], str) else "preprocess"
        with meter.step(name):
            item = transform(item)
    image: MetaTensor = item.pop("image")
    with meter.step("score"), torch.no_grad():
        network(image.as_tensor()[None])
    with meter.step("explain"):
        maps = inferer.explain(image.as_tensor()[None], network).heatmap[0]
        heatmap = MetaTensor(maps).copy_meta_from(image)
        del maps
    for index in range(prompts):  # as `write_scanner_maps` does, in two steps
        with meter.step("back on its grid"):
            native = scanner_maps(heatmap[index : index + 1], pipeline)
        with meter.step("write NIfTI"), tempfile.TemporaryDirectory() as written:
            write_maps(written, native, ["finding"], method="cost")
        shape = tuple(native.shape[1:])
        del native
    assert shape == SHAPE[::-1], shape
    return {
        "title": row.title,
        "start_bytes": meter.start_bytes,
        "grid": list(image.shape),
        "steps": {name: step._asdict() for name, step in meter.steps.items()},
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: one line of seconds and one of memory per row."""
    head = ["", "", *STEPS, "all", "in all"]
    lines = [head, ["---"] * len(head)]
    for result in found.values():
        steps = [Step(**result["steps"][name]) for name in STEPS]
        start, highest = result["start_bytes"], max(step.peak_bytes for step in steps)
        seconds = [f"{step.cpu_seconds:.1f}" for step in steps]
        volumes = [f"{(step.peak_bytes - start) / VOLUME_BYTES:.2f}" for step in steps]
        total = f"{sum(step.cpu_seconds for step in steps):.1f}"
        lines.append([result["title"], "CPU s", *seconds, total, ""])
        above = f"{(highest - start) / VOLUME_BYTES:.2f} ({(highest - start) / 1e6:.0f} MB)"
        lines.append(["", "volumes above the start", *volumes, above, f"{highest / 1e6:.0f} MB"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(name: str, folder: Path, prompts: int) -> dict[str, Any]:
    """One row in a process of its own."""
    command = [sys.executable, __file__, "--rows", name, "--series", str(folder), "--prompts", str(prompts), "--here"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--series", type=Path, help="folder of the series: made if absent, and kept")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run_row(ROWS[options.rows[0]], options.series, options.prompts)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.series or Path(temporary)
        if not (folder / "nodule.json").is_file():
            write_series(folder)
        found = {name: measured(name, folder, options.prompts) for name in options.rows}
    print(table(found))
    start = max(result["start_bytes"] for result in found.values())
    print(f"\nStart: {start / 1e6:.0f} MB. A volume: {VOLUME_BYTES / 1e6:.1f} MB. {options.prompts} prompts.", end=" ")
    print(f"torch {torch.__version__}.")
    if options.out:
        options.out.write_text(json.dumps({"prompts": options.prompts, "rows": found}, indent=2))


if __name__ == "__main__":
    main()
