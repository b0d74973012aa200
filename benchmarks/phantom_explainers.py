"""Where do explainers point on phantom lesions: the localization tables, from finished runs of the default config.

python benchmarks/phantom_explainers.py RUN [RUN ...] --dataset-dir medclip_data/phantom --split test --output-dir out
python benchmarks/phantom_explainers.py RUN [RUN ...] --overlay ct --dataset-dir medclip_data/phantom_ct

Writes cases.csv (one row per run, method and present finding), figures.csv (means with 95 % intervals over patients,
a patient drawn with all its findings and runs), counterfactual.csv, and figures.md, which is the same to read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from monai_medclip.audits import LesionCases, counterfactual_heat, heatmaps_of, localization_rows
from monai_medclip.cli import bundle_root
from monai_medclip.data import read_manifest
from monai_medclip.data.phantom_files import write_image
from monai_medclip.data.phantom_lesions import FINDING_NAMES, FOCAL
from monai_medclip.engines import write_csv
from monai_medclip.explainers import (
    LIME,
    M2IB,
    RISE,
    AttentionGradCAM,
    AttentionRollout,
    CentreBlob,
    Chefer,
    ConservativePropagation,
    Explainer,
    GradECLIP,
    IntegratedGradients,
    KernelSHAP,
    MedGradECLIP,
    Occlusion,
    PatchSimilarity,
    RandomMap,
    TokenGradCAM,
    recommended,
)
from monai_medclip.metrics.localization import grid_ceiling, localization_figure

CEILING = "ceiling of the patch grid"
METHODS: dict[str, Callable[[], Explainer]] = {
    "recommended": recommended,
    "conservative propagation": ConservativePropagation,
    "Chefer": Chefer,
    "Chefer, last block": lambda: Chefer(blocks=1),
    "Grad-ECLIP": GradECLIP,
    "Grad-ECLIP, all blocks": lambda: GradECLIP(blocks=None),
    "Grad-ECLIP, published heads": lambda: GradECLIP(heads="published"),
    "MedGrad E-CLIP": MedGradECLIP,
    "attention Grad-CAM": AttentionGradCAM,
    "patch-token Grad-CAM": TokenGradCAM,
    "attention rollout": AttentionRollout,
    "patch similarity": PatchSimilarity,
    "integrated gradients": lambda: IntegratedGradients(baseline="mean", steps=10),
    "occlusion": lambda: Occlusion(baseline="mean"),
    "RISE": lambda: RISE(masks=1000, cells=16, normalize="observed", baseline="mean"),
    "KernelSHAP": lambda: KernelSHAP(baseline="mean"),
    "LIME": lambda: LIME(baseline="mean"),
    "M2IB": M2IB,
    "centre blob": CentreBlob,
    "random": RandomMap,
}
SLOW = ("integrated gradients", "occlusion", "RISE", "KernelSHAP", "LIME", "M2IB")
COUNTERFACTUAL = ("recommended", "Chefer", "Grad-ECLIP", "MedGrad E-CLIP")
ABOUT = ("run", "method", "finding", "patient", "focal", "size", "third", "alone")
Row = dict[str, Any]


class Trained(NamedTuple):
    """What a finished run asks and how it reads, as the explain config builds it; nothing is written to the run."""

    classifier: Any
    read_image: Callable[[dict[str, Any]], dict[str, Any]]
    read_truth: Callable[[dict[str, Any]], dict[str, Any]]


def trained(run: str, overlays: Sequence[str]) -> Trained:
    """The classifier and the transforms of a run."""
    parser, configs = ConfigParser(), Path(str(bundle_root())) / "configs"
    parser.read_config([str(configs / f"{name}.json") for name in ("explain", *overlays)])
    parser["output_dir"] = run
    parser.get_parsed_content("clip").load(parser.get_parsed_content("model_file"))
    parts = ("network_def", "image_preprocessing", "load_truth")
    classifier, read_image, read_truth = (parser.get_parsed_content(part) for part in parts)
    return Trained(classifier.eval(), read_image, read_truth)


def lesion_cases(items: Sequence[dict[str, Any]], run: Trained) -> LesionCases:
    """Images, masks and sizes of manifest items."""
    cases = [run.read_truth(run.read_image(item)) for item in tqdm(items, "images", leave=False)]
    images, masks = (torch.stack([case[key].as_tensor() for case in cases]) for key in ("image", "truth"))
    sizes = np.full(masks.shape[:2], np.nan)
    for number, item in enumerate(items):
        for lesion in item["meta"]["findings"]:
            sizes[number, FINDING_NAMES.index(lesion["name"])] = lesion["size_mm"]
    return LesionCases(FINDING_NAMES, images, masks > 0, sizes, tuple(item["patient_id"] for item in items))


def judged(run: str, classifier: Any, cases: LesionCases, options: argparse.Namespace) -> Iterator[Row]:
    """Rows of every method, and of a perfect map on the patch grid; the slow methods see the first patients only."""
    for name in tqdm([CEILING, *options.methods], desc=run):
        chosen = cases.first(options.slow_patients) if name in SLOW else cases
        maps = (
            ceiling(classifier, chosen) if name == CEILING else heatmaps_of(METHODS[name](), classifier, chosen.images)
        )
        rows = localization_rows(
            maps, chosen, tolerances=options.tolerances, thresholds=["otsu", "mean", 0.5], focal=FOCAL
        )
        yield from ({"run": Path(run).name, "method": name, **row} for row in rows)


def ceiling(classifier: Any, cases: LesionCases) -> torch.Tensor:
    """What a perfect method would draw on this network's patches, (B, F, *spatial)."""
    maps, present = torch.zeros(cases.masks.shape), torch.from_numpy(cases.present)
    maps[present] = torch.from_numpy(grid_ceiling(cases.masks[present], classifier.image_encoder.grid_size)).float()
    return maps


def counterfactuals(run: str, model: Trained, cases: LesionCases, options: argparse.Namespace) -> Iterator[Row]:
    """Heat under the lesion, with it and in the same patient drawn without it."""
    spec = json.loads((Path(options.dataset_dir) / "phantom.json").read_text(encoding="utf-8"))
    for finding in tqdm(FINDING_NAMES, desc=f"{run}, counterfactuals"):
        f = FINDING_NAMES.index(finding)
        chosen = np.flatnonzero(cases.present[:, f])[: options.counterfactual_patients]
        if not len(chosen):
            continue
        patients = tuple(cases.patients[k] for k in chosen)
        with_it, without_it = (drawn(model, spec, patients, out) for out in ((), (finding,)))
        part = LesionCases(FINDING_NAMES, with_it, cases.masks[chosen], cases.sizes[chosen], patients)
        for name in (name for name in COUNTERFACTUAL if name in options.methods):
            heat = counterfactual_heat(METHODS[name](), model.classifier, part, without_it, finding, progress=False)
            about = {"run": Path(run).name, "method": name, "finding": finding, "cases": len(chosen)}
            yield about | {"falls": float(heat.falls.mean()), "remaining": heat.remaining}


def drawn(model: Trained, spec: Row, patients: Sequence[str], without: tuple[str, ...]) -> torch.Tensor:
    """The patients' images as the network takes them, drawn anew, (B, 1, *spatial)."""
    images = []
    with tempfile.TemporaryDirectory() as folder:
        for patient in patients:
            index = int(patient.rpartition("_")[2])
            file = write_image(Path(folder), spec, index, without)
            images.append(model.read_image({"image": str(file)})["image"].as_tensor())
    return torch.stack(images)


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Focal findings together, alone in their image, and by thirds of their size; then every finding by itself."""
    focal = [row for row in rows if row["focal"]]
    yield "focal", focal
    yield "focal, alone", [row for row in focal if row["alone"]]
    for third, name in enumerate(("smallest", "middle", "largest")):
        yield f"focal, {name} third", [row for row in focal if row["third"] == third]
    for finding in FINDING_NAMES:
        yield finding, [row for row in rows if row["finding"] == finding]


def figures(rows: Sequence[Row], bootstrap: int) -> list[Row]:
    """Mean, interval and number of cases for every method, group and figure."""
    found: list[Row] = []
    for method in tqdm(dict.fromkeys(row["method"] for row in rows), desc="intervals"):
        for group, chosen in groups([row for row in rows if row["method"] == method]):
            patients = [row["patient"] for row in chosen]
            for column in (name for name in (chosen or [{}])[0] if name not in ABOUT):
                mean, interval, cases = localization_figure(
                    [row[column] for row in chosen], groups=patients, bootstrap=bootstrap
                )
                about = {"method": method, "group": group, "figure": column, "cases": cases}
                found.append(
                    about | {"mean": mean, "low": interval and interval.low, "high": interval and interval.high}
                )
    return found


def markdown(found: Sequence[Row], heat: Sequence[Row], options: argparse.Namespace) -> str:
    """The tables to read."""
    at = {(row["method"], row["group"], row["figure"]): row for row in found}
    methods = list(dict.fromkeys(row["method"] for row in found))
    exact, *near = (f"pointing_{pixels:g}" for pixels in options.tolerances)

    def cell(method: str, group: str, name: str, *, interval: bool = False) -> str:
        row = at.get((method, group, name))
        if row is None:  # none of the few patients of a slow method has it
            return "-"
        return f"{row['mean']:.2f}" + (f" [{row['low']:.2f}, {row['high']:.2f}]" if interval else "")

    def table(title: str, head: Sequence[str], line: Callable[[str], Sequence[str]]) -> list[str]:
        rows = [" | ".join([method, *line(method)]) for method in methods]
        return ["", f"### {title}", "", " | ".join(["method", *head]), "|".join(["---"] * (len(head) + 1)), *rows]

    chance = ", ".join(f"{name} {at[methods[0], 'focal', name + '_chance']['mean']:.3f}" for name in (exact, *near))
    blob = at.get(("centre blob", "focal", "energy"), {"mean": np.nan})["mean"]
    lines = [
        f"{options.split} patients, {len(options.runs)} runs; 95 % intervals over patients; chance: {chance}.",
        f"{', '.join(SLOW)}: the first {options.slow_patients} patients only.",
    ]
    more = ("pointing_any", "dice_otsu", "iou_otsu", "auprc", "auroc", "cnr")
    lines += table(
        "Focal findings",
        ["cases", exact, *near, "energy", "energy / centre blob", *more],
        lambda m: [
            str(at[m, "focal", exact]["cases"]),
            *(cell(m, "focal", name, interval=True) for name in (exact, *near, "energy")),
            f"{at[m, 'focal', 'energy']['mean'] / blob:.1f}",
            *(cell(m, "focal", name) for name in more),
        ],
    )
    parts = list(dict.fromkeys(row["group"] for row in found))[1:]
    lines += table(
        f"{' / '.join((exact, *near))} by finding and size",
        parts,
        lambda m: [" / ".join(cell(m, group, name) for name in (exact, *near)) for group in parts],
    )
    lines += ["", "### Without the finding", "", "run | method | finding | cases | heat falls in | heat that remains"]
    lines += ["---|---|---|---|---|---"]
    lines += [
        f"{r['run']} | {r['method']} | {r['finding']} | {r['cases']} | {r['falls']:.2f} | {r['remaining']:.2f}"
        for r in heat
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished training runs")
    parser.add_argument("--dataset-dir", default="medclip_data/phantom")
    parser.add_argument("--overlay", nargs="*", default=[], help="configs of the runs beside the default: ct, slices")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="choose on val, report test")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--tolerances", nargs="+", type=float, default=[0, 8], help="pixels; one token is 8")
    parser.add_argument("--patients", type=int, help="only the first of the split")
    parser.add_argument("--slow-patients", type=int, default=40)
    parser.add_argument("--counterfactual-patients", type=int, default=60)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output-dir", default="localization")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    heat: list[Row] = []
    items = read_manifest(Path(options.dataset_dir) / "manifest.csv", split=options.split)[: options.patients]
    for run in options.runs:
        model = trained(run, options.overlay)
        cases = lesion_cases(items, model)
        rows += judged(run, model.classifier, cases, options)
        heat += counterfactuals(run, model, cases, options)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    found = figures(rows, options.bootstrap)
    for name, table in (("cases", rows), ("figures", found), ("counterfactual", heat)):
        write_csv(folder / f"{name}.csv", table)
    text = markdown(found, heat, options)
    (folder / "figures.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
