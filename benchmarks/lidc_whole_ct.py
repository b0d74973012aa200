"""A whole CT explained by a CLIP of nodule crops: where does it see a solid nodule in LIDC-IDRI-0001?

    python benchmarks/lidc_whole_ct.py DATA --output-dir out > whole_ct.md

A CLIP that has only seen crops with a nodule in the middle knows no other place. This one also sees background: places
in the margins of LIDC's own crops and, because those reach 16 mm at most, in a whole CT with a lung tumour
(pyradiomics), whose tumour is a nodule here. Such CTs are stored at half their resolution, so all crops are read at
1.4 mm, blurred at random, and repeat a row, column or plane from a random place on: neither sharpness nor the edge of a
file should tell background from nodule. `nodules.json` of the bundle trains it, with what `OVERLAY` changes.

Nothing is chosen on LIDC-IDRI-0001, a test patient, but on the patients of `val` and on the whole CT that is not
learned from (`--learn-from` takes both; then none is left to judge). Beside the CLIP stand the thickest soft tissue
inside the lungs, without any learning, and a random voxel of the lungs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, RandomizableTransform
from nibabel.affines import apply_affine
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from monai_medclip.cli import bundle_root
from monai_medclip.data import BACKGROUND_TEXT, nodule_backgrounds, read_manifest
from monai_medclip.findings import Finding
from monai_medclip.inferers import NoduleScan
from monai_medclip.metrics import lesion_heat
from monai_medclip.transforms import CropNoduled, DisplayOrderd, LoadCTd, LungMaskd, WindowHUd
from monai_medclip.writers import Heat, Truth, mip_figure, orthogonal_figure, save_figure, write_maps

PROMPT = Finding(
    "solid nodule",
    ("Chest CT: solid lung nodule.", "Solid lung nodule.", "Chest CT: solid ovoid lung nodule."),
    (BACKGROUND_TEXT,),
)
TUMOUR_TEXT = "Chest CT: solid lung nodule."
WHOLE = ("pyradiomics_lung1", "pyradiomics_lung2")
PIXELS, PIXEL_MM, FINER = 24, 1.4, 2  # crops are sampled this much finer and averaged, as the halved CTs were
WINDOW_HU = (-1000.0, 400.0)
REACH_MM = 26.0  # of what is cut out of a whole CT around a place, so that training need not load it every time
TISSUE_HU = -300.0
MARGIN_PLACES, WHOLE_PLACES, TUMOUR_PLACES, JITTER_MM, BORDER_MM = 1, 300, 40, 3.0, 6.0

OVERLAY: dict[str, Any] = {
    "where": None,
    "findings": [],
    "labels": None,
    "max_epochs": 14,
    "val_interval": 7,
    "image_encoder::image_size": PIXELS,
    "image_preprocessing::transforms": [
        {"_target_": "monai_medclip.transforms.NoduleCenterd", "keys": "masks", "allow_missing_keys": True},
        {"_target_": "monai_medclip.transforms.LoadCTd", "keys": "image", "check_units": False},
        {"_target_": "monai_medclip.transforms.WindowHUd", "keys": "image", "windows": [list(WINDOW_HU)]},
        {
            "_target_": "monai_medclip.transforms.CropNoduled",
            "keys": "image",
            "size": PIXELS * FINER,
            "pixel_mm": PIXEL_MM / FINER,
        },
        {"_target_": "Resized", "keys": "image", "spatial_size": [PIXELS, PIXELS], "mode": "area"},
        {
            "_target_": "monai_medclip.transforms.NormalizeForEncoderd",
            "keys": "image",
            "mean": "$@image_encoder.mean",
            "std": "$@image_encoder.std",
        },
    ],
    "augmentation::transforms": [
        {"_target_": "RandFlipd", "keys": "image", "prob": 0.5, "spatial_axis": 0},
        {"_target_": "RandRotate90d", "keys": "image", "prob": 0.75},
        {
            "_target_": "RandAffined",
            "keys": "image",
            "prob": 1.0,
            "translate_range": [1.5, 1.5],
            "padding_mode": "border",
        },
        "$@repeat_border",
        {
            "_target_": "RandGaussianSmoothd",
            "keys": "image",
            "prob": 0.5,
            "sigma_x": [0.25, 0.8],
            "sigma_y": [0.25, 0.8],
        },
        {"_target_": "RandShiftIntensityd", "keys": "image", "prob": 0.5, "offsets": 0.1},
    ],
}


class RepeatBorderd(RandomizableTransform):
    """Repeat a row, column or plane outward from a random place on, as crops at the edge of a file do.

    LIDC's files end with the nodule, so theirs repeat planes, and those of the places beside it rows or columns.
    """

    def __init__(self, *, prob: float = 0.5, least: int = 4) -> None:
        """Each of the four sides with this probability, no nearer than so many pixels to the middle."""
        RandomizableTransform.__init__(self, prob)
        self.least = least

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the item with its image (C, rows, columns) changed."""
        image = data["image"]
        if self.R.random_sample() < self.prob:
            image = image[[[1, 1, 1], [1, 1, 2], [0, 1, 1]][self.R.randint(3)]]
        for axis in (1, 2):
            n = image.shape[axis]
            for side in (-1, 1):
                if self.R.random_sample() < self.prob / 2:
                    last = n // 2 + side * int(self.R.randint(self.least, n // 2))
                    index = torch.arange(n).clamp(**{"max" if side > 0 else "min": last})
                    image = image.index_select(axis, index)
        return {**data, "image": image}


class Trained(NamedTuple):
    """A CLIP of nodule crops, and how it reads them."""

    classifier: Any
    preprocessing: Compose  # of an item with a path and a center
    val: list[dict[str, Any]]


class Case(NamedTuple):
    """A whole CT."""

    name: str
    volume: MetaTensor  # (1, x, y, z) HU
    lungs: MetaTensor  # (1, x, y, z)
    nodule: np.ndarray  # (x, y, z) bool


def whole_item(data: Path, name: str, folder: Path) -> dict[str, Any]:
    """A CT with a tumour as an item, its lungs found and written."""
    image, tumour = (data / "ct_volumes" / f"{name}_{part}.nii.gz" for part in ("ct", "tumour"))
    lungs = LungMaskd("image")(LoadCTd("image")({"image": str(image)}))["lungs"]
    file = folder / f"{name}_lungs.nii"
    nib.save(nib.Nifti1Image(lungs[0].numpy(), lungs.affine.numpy()), file)
    masks = {"nodule": str(tumour), "lungs": str(file)}
    return {"id": name, "image": str(image), "patient_id": name, "split": "train", "text": TUMOUR_TEXT, "masks": masks}


def tumour_items(item: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """The tumour of a whole CT, from places near its middle: it is one of few, and of a halved CT."""
    mask = nib.load(item["masks"]["nodule"])
    middle = apply_affine(mask.affine, np.argwhere(np.asanyarray(mask.dataobj) > 0).mean(axis=0))
    jitter = np.random.default_rng(seed).uniform(-JITTER_MM, JITTER_MM, (TUMOUR_PLACES, 3))
    return [
        {**item, "id": f"{item['id']}_{number}", "center_mm": (middle + mm).tolist()}
        for number, mm in enumerate(jitter, start=1)
    ]


def cut_out(items: Sequence[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Items of whole CTs, each with a small volume of its own."""
    image: Any = None
    for item in items:
        if image is None or image.get_filename() != item["image"]:
            image = nib.load(item["image"])
            voxels = np.asanyarray(image.dataobj)
        at = apply_affine(np.linalg.inv(image.affine), item["center_mm"])
        reach = REACH_MM / np.asarray(image.header.get_zooms()[:3]) + 1
        low, high = np.floor(at - reach).astype(int).clip(0), np.ceil(at + reach).astype(int) + 1
        affine = image.affine.copy()
        affine[:3, 3] = apply_affine(image.affine, low)
        file = folder / f"{item['id']}.nii"
        nib.save(nib.Nifti1Image(voxels[tuple(map(slice, low, high))], affine), file)
        yield {**item, "image": str(file), "masks": {}}


def make_items(data: Path, folder: Path, learned: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Nodules and background of the LIDC patients of train and val, and of the whole CTs to learn from."""
    folder.mkdir(parents=True, exist_ok=True)
    lidc = read_manifest(data / "manifest.csv", source="lidc", text_column="text_alt")
    lidc = [item for item in lidc if item["split"] in ("train", "val")]
    items = [*lidc, *nodule_backgrounds(lidc, count=MARGIN_PLACES, seed=seed)]
    for name in learned:
        whole = whole_item(data, name, folder)
        places = [
            *tumour_items(whole, seed),
            *nodule_backgrounds([whole], count=WHOLE_PLACES, seed=seed, border_mm=BORDER_MM),
        ]
        items += cut_out(places, folder)
    return items


def write_manifest(items: Sequence[dict[str, Any]], folder: Path) -> None:
    """The items as the bundle reads them."""
    columns = ("id", "image", "patient_id", "split", "text", "masks", "center_mm", "meta")
    rows = [{key: item[key] for key in columns if key in item} for item in items]
    (folder / "manifest.json").write_text(json.dumps([{**row, "text_alt": row["text"]} for row in rows]))


def learn(folder: Path, seed: int, *, fit: bool) -> Trained:
    """The bundle's training, with the overlay; its last weights are used, or, without `fit`, those that lie there."""
    parser, configs = ConfigParser(), Path(str(bundle_root())) / "configs"
    parser.read_config([str(configs / f"{name}.json") for name in ("train", "manifest", "nodules")])
    parser.update({**OVERLAY, "repeat_border": RepeatBorderd(), "manifest": str(folder / "manifest.json")})
    parser.update({"output_dir": str(folder / "run"), "seed": seed})
    parser.parse(True)
    parser.get_parsed_content("initialize")
    network, weights = parser.get_parsed_content("network"), folder / "final.pt"
    if fit:
        parser.get_parsed_content("train#trainer").run()
        torch.save(network.state_dict(), weights)
    network.load_state_dict(torch.load(weights, weights_only=True))
    tokenizer, preprocessing, splits = map(parser.get_parsed_content, ("tokenizer", "image_preprocessing", "splits"))
    classifier = network.classifier([PROMPT], tokenizer, rule="positive_minus_negative").eval()
    return Trained(classifier, preprocessing, splits.val)


def scores_of(items: Sequence[dict[str, Any]], trained: Trained) -> np.ndarray:
    """Logits (N,) of items with a center or a nodule mask."""
    images = torch.stack([torch.as_tensor(trained.preprocessing(item)["image"]) for item in items])
    with torch.no_grad():
        return trained.classifier(images)[:, 0].numpy()


def val_auc(trained: Trained) -> str:
    """AUC of nodules against the margins around them on the patients of val."""
    truth = np.array([item["text"] != BACKGROUND_TEXT for item in trained.val])
    auc = roc_auc_score(truth, scores_of(trained.val, trained))
    return f"AUC {auc:.3f}, {truth.sum()} nodules against {(~truth).sum()} places beside them"


def load_case(name: str, image: Path, mask: Path) -> Case:
    """A whole CT with its lungs by threshold and its nodule."""
    item = LungMaskd("image")(LoadCTd("image")({"id": name, "image": str(image)}))
    nodule = nib.load(mask)
    if not np.allclose(nodule.affine, item["image"].affine.numpy(), atol=1e-2):
        turned = nib.orientations.io_orientation(np.linalg.inv(item["image"].affine.numpy()) @ nodule.affine)
        nodule = nodule.as_reoriented(turned)
    if nodule.shape != tuple(item["image"].shape[1:]) or not np.allclose(nodule.affine, item["image"].affine, atol=0.1):
        raise ValueError(f"{mask} {nodule.affine.tolist()} lies on another grid than {image}.")
    return Case(name, item["image"], item["lungs"], np.asanyarray(nodule.dataobj) > 0)


def clip_map(case: Case, trained: Trained, step_mm: float) -> MetaTensor:
    """The CLIP's logits on the CT's grid (1, x, y, z)."""
    windowed = WindowHUd("image", [list(WINDOW_HU)])({"image": case.volume})["image"]
    crop = next(step for step in trained.preprocessing.transforms if isinstance(step, CropNoduled))
    encoder = trained.classifier.image_encoder
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (encoder.mean, encoder.std))
    scan = NoduleScan(crop, lambda crops: (F.avg_pool2d(crops, FINER) - mean) / std, step_mm=step_mm)
    return scan(windowed[None], trained.classifier, mask=case.lungs)[0]


def thickness_map(case: Case) -> MetaTensor:
    """No learning: how deep in soft tissue a voxel of the lungs lies, in mm; the largest ball is its maximum."""
    spacing_mm = nib.affines.voxel_sizes(case.volume.affine.numpy())
    tissue = (case.volume[0].numpy() > TISSUE_HU) & (case.lungs[0].numpy() > 0)
    depth = ndimage.distance_transform_edt(tissue, sampling=spacing_mm).astype(np.float32)
    return MetaTensor(torch.from_numpy(depth)[None]).copy_meta_from(case.volume)


def row(case: Case, name: str, heat: MetaTensor) -> str:
    """A line of the table."""
    inside = case.lungs[0].numpy() > 0
    values = heat[0].numpy()
    values = np.where(inside, values, min(0.0, float(values.min())))  # a map may be below 0 all over the lungs
    found = lesion_heat(values, case.nodule.astype(int), heat.affine.numpy())[0]
    figures = f"{found.distance_mm:.1f} | {found.center_distance_mm:.1f} | {found.rank} | {found.share:.1%}"
    share = case.nodule[inside].sum() / inside.sum()
    return f"| {case.name} | {name} | {figures} | {found.largest:.1f} | {values.max():.1f} | {share:.2%} |"


def chance_row(case: Case, seed: int) -> str:
    """What a random voxel of the lungs gives, at the median."""
    affine = case.volume.affine.numpy()
    lungs, nodule = (np.argwhere(mask) for mask in (case.lungs[0].numpy() > 0, case.nodule))
    some = np.random.default_rng(seed).choice(lungs, 2000)
    at, places = apply_affine(affine, some), apply_affine(affine, nodule)
    nearest = np.median(np.linalg.norm(at[:, None] - places[None, ::5], axis=-1).min(axis=1))
    middle = np.median(np.linalg.norm(at - places.mean(axis=0), axis=-1))
    return f"| {case.name} | chance | {nearest:.1f} | {middle:.1f} | | | | | |"


def write_case(case: Case, heat: MetaTensor, folder: Path) -> None:
    """The map as NIfTI, and its pictures."""
    stem = case.name.replace(" ", "_")
    write_maps(folder, heat, [PROMPT.name], method="NoduleScan", stem=stem)
    truth = MetaTensor(torch.from_numpy(case.nodule[None].astype(np.uint8))).copy_meta_from(case.volume)
    keys = ("image", "heat", "truth")
    item = DisplayOrderd(keys, spatial_dims=3)(dict(zip(keys, (case.volume, heat, truth), strict=True)))
    low, high = WINDOW_HU
    gray = ((item["image"][0].numpy() - low) / (high - low)).clip(0, 1)
    spacing_mm = nib.affines.voxel_sizes(item["image"].affine.numpy()).tolist()
    values = item["heat"][0].numpy().clip(0)
    drawn = Heat(values, PROMPT.name, "nodule CLIP, every crop", float(values.max()))
    given = Truth(item["truth"][0].numpy())
    for name, draw in (("orthogonal", orthogonal_figure), ("mip", mip_figure)):
        save_figure(draw(gray, drawn, spacing_mm=spacing_mm, truth=given), folder / f"{stem}_{name}.png")


HEAD = (
    "CT",
    "map",
    "maximum to nodule, mm",
    "to its centroid, mm",
    "rank of the nodule",
    "positive heat in it",
    "highest in it",
    "highest of all",
    "its share of the lungs",
)


def cases_of(data: Path, learned: Sequence[str]) -> Iterator[Case]:
    """The whole CTs that were not learned from; then, with nothing left to choose, LIDC-IDRI-0001.

    Of that one there is the whole CT at half its resolution, and a DICOM series of 24 of its slices.
    """
    ct = data / "ct_volumes"
    for name in (name for name in WHOLE if name not in learned):
        yield load_case(name, ct / f"{name}_ct.nii.gz", ct / f"{name}_tumour.nii.gz")
    yield load_case("LIDC-IDRI-0001", ct / "lidc0001_ct.nii.gz", ct / "lidc0001_nodule.nii.gz")
    yield load_case("LIDC-IDRI-0001 series", data / "dicom_series_lidc0001", ct / "lidc0001_series_nodule.nii.gz")


def main() -> None:
    """Train, judge on val, scan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of manifest.csv, ct_volumes and dicom_series_lidc0001")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--learn-from", nargs="+", choices=WHOLE, default=[WHOLE[0]], help="the others are scanned")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step-mm", type=float, default=5.0)
    parser.add_argument("--trained", action="store_true", help="scan with what OUTPUT_DIR holds")
    options = parser.parse_args()
    folder = options.output_dir
    if not options.trained:
        write_manifest(make_items(options.data, folder / "cuts", options.learn_from, options.seed), folder)
    trained = learn(folder, options.seed, fit=not options.trained)
    learned_s = time.process_time()
    print(f"val: {val_auc(trained)}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for case in cases_of(options.data, options.learn_from):
        heat = clip_map(case, trained, options.step_mm)
        print(row(case, "CLIP", heat), row(case, "thickest soft tissue", thickness_map(case)), sep="\n")
        print(chance_row(case, options.seed), flush=True)
        write_case(case, heat, folder)
    total_s = time.process_time()
    print(f"\nCPU seconds: {learned_s:.0f} to learn, {total_s - learned_s:.0f} to judge, scan and draw.")


if __name__ == "__main__":
    main()
