"""Explaining cases without a bundle: volumes get slices and montages, and senseless requests are refused at once."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from monai_medclip.engines import CaseExplainer, explain_cases
from monai_medclip.engines.explanation import _settings
from monai_medclip.explainers import (
    CentreBlob,
    Explainer,
    GatedPropagation,
    GradCAM,
    GradECLIP,
    SliceWise,
    TextExplainer,
    recommended,
)
from monai_medclip.inferers import HeatmapInferer
from monai_medclip.networks import CLIP, SliceEncoder, SmallViT, ZeroShotClassifier
from monai_medclip.outputs import WordWeights
from monai_medclip.transforms import DisplayOrderd, FitImaged, LoadTruthd

from ..networks.toys import BagOfWords, tiny_clip, tokenize

PROMPTS = ["nodule", "mass"]


@pytest.fixture
def classifier() -> ZeroShotClassifier:
    torch.manual_seed(0)
    encoder = SmallViT((16, 16, 24), spatial_dims=3, width=64, num_heads=2)
    return CLIP(encoder, BagOfWords(), embed_dim=16).classifier(PROMPTS, tokenize).eval()


@pytest.fixture
def pipeline() -> Compose:
    return Compose(
        [
            LoadImaged(keys="image", image_only=True),
            EnsureChannelFirstd(keys="image"),
            FitImaged(keys="image", spatial_size=(24, 16, 16)),
            DisplayOrderd(keys="image", spatial_dims=3),
        ]
    )


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """30 x 20 x 12 voxels of 1 x 1.5 x 2.5 mm, oblique."""
    turn = np.deg2rad(10)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([1, 1.5, 2.5])
    values = np.random.default_rng(0).random((30, 20, 12)).astype(np.float32) * 0.5
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "case.nii.gz")
    return tmp_path / "case.nii.gz"


def test_a_volume_gets_slices_a_montage_a_page_and_maps_in_scanner_space(
    classifier: ZeroShotClassifier, pipeline: Compose, volume: Path, tmp_path: Path
) -> None:
    item = {**pipeline({"image": str(volume)}), "id": "case"}
    encoder = classifier.image_encoder
    item["image"] = (item["image"] - encoder.mean[0]) / encoder.std[0]
    methods = {"Grad-ECLIP": HeatmapInferer(GradECLIP()), "blob": HeatmapInferer(CentreBlob())}
    explain = CaseExplainer(classifier, methods, transform=pipeline, output_dir=tmp_path / "out")
    with explain_cases(explain, [item], progress=False).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["method"], row["prompt"]) for row in rows] == [(m, p) for m in methods for p in PROMPTS]
    case = tmp_path / "out" / "case"
    written = {path.name for path in case.iterdir()}
    assert {f"blob_01_nodule_{kind}.png" for kind in ("slices", "montage", "mip")} <= written
    assert {"grid.png", "blob.html", "Grad-ECLIP.html"} <= written
    assert not (tmp_path / "out" / "nodules.csv").exists()  # nobody said where they are
    native, back = nib.load(volume), nib.load(case / "maps" / "blob_01_nodule.nii.gz")
    assert back.shape == native.shape
    np.testing.assert_allclose(back.affine, native.affine, atol=1e-3)
    middle = np.unravel_index(int(back.get_fdata().argmax()), back.shape)
    assert np.abs(np.asarray(middle) - [14.5, 9.5, 5.5]).max() <= 1


class Marked(Explainer):
    """A map that is known: one voxel for the first prompt, nothing for the second."""

    name = "marked"

    def _maps(self, classifier: Any, image: torch.Tensor, context: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scores = classifier(image, **context)
        maps = torch.zeros(*scores.shape, *image.shape[2:])
        maps[:, 0, 5, 4, 7] = 2.0
        return maps, scores


def test_every_nodule_gets_its_share_and_its_distance_in_mm(
    classifier: ZeroShotClassifier, pipeline: Compose, volume: Path, tmp_path: Path
) -> None:
    """Two nodules in the native file, found through its affine; the second holds the heat's only voxel."""
    native = nib.load(volume)
    item = {**pipeline({"image": str(volume)}), "id": "case"}
    hot = torch.as_tensor(item["image"].affine).double() @ torch.tensor([5.0, 4, 7, 1]).double()  # RAS mm
    x, y, z = np.rint(np.linalg.inv(native.affine) @ hot.numpy())[:3].astype(int)
    mask = np.zeros(native.shape, np.uint8)
    mask[20:23, 3:6, 2:5] = 1
    mask[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = 1
    nib.save(nib.Nifti1Image(mask, native.affine), tmp_path / "mask.nii.gz")
    item["masks"] = {"nodule": str(tmp_path / "mask.nii.gz")}
    item = LoadTruthd("image", names=PROMPTS)(item)
    item["image"] = (item["image"] - classifier.image_encoder.mean[0]) / classifier.image_encoder.std[0]
    methods = {"marked": HeatmapInferer(Marked())}
    explain = CaseExplainer(classifier, methods, transform=pipeline, output_dir=tmp_path / "out")
    table = explain_cases(explain, [item], progress=False)
    with table.open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert [float(mm) for mm in first["peak_mm"].split()] == pytest.approx(hot[:3].tolist(), abs=0.051)
    assert (float(first["distance_mm"]), float(first["share_in_truth"]), first["peak_in_truth"]) == (0, 1, "1")
    assert (second["peak_mm"], second["distance_mm"]) == ("", "")  # no heat, and no mask
    with (tmp_path / "out" / "nodules.csv").open(newline="") as stream:
        nodules = {row["nodule"]: row for row in csv.DictReader(stream)}
    hit, missed = sorted(nodules.values(), key=lambda row: float(row["distance_mm"]))
    assert {row["prompt"] for row in nodules.values()} == {"nodule"}
    assert (float(hit["share"]), hit["rank"], float(hit["distance_mm"])) == (1, "1", 0)
    assert float(hit["enrichment"]) == pytest.approx(16 * 16 * 24 / int(hit["voxels"]))
    assert (float(missed["share"]), missed["rank"]) == (0, "2")
    away = np.linalg.norm(native.affine[:3] @ [21, 4, 3, 1] - hot.numpy()[:3])
    assert float(missed["center_distance_mm"]) == pytest.approx(away, abs=1.0)  # the nodule's voxels are coarse here
    before = table.read_bytes(), (tmp_path / "out" / "nodules.csv").read_bytes()
    explain_cases(explain, [item], resume=True, progress=False)
    assert (table.read_bytes(), (tmp_path / "out" / "nodules.csv").read_bytes()) == before


def test_a_volume_that_is_read_in_slices_is_explained_in_slices(
    pipeline: Compose, volume: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = SliceEncoder(SmallViT((16, 24), width=64, num_heads=2))
    sliced = CLIP(encoder, BagOfWords(), embed_dim=16).classifier(PROMPTS[:1], tokenize).eval()
    item = {**pipeline({"image": str(volume)}), "id": "case"}
    item["image"] = (item["image"] - encoder.mean[0]) / encoder.std[0]
    methods = {"recommended": HeatmapInferer(recommended(sliced))}
    explain = CaseExplainer(sliced, methods, transform=pipeline, output_dir=tmp_path / "out")
    explain_cases(explain, [item], progress=False)
    maps = np.load(tmp_path / "out" / "case" / "maps" / "recommended.npy")
    assert maps.shape == (1, 30, 20, 12)
    assert maps.max() > 0


def test_a_method_that_makes_no_sense_is_refused_before_any_case(
    classifier: ZeroShotClassifier, pipeline: Compose, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="TokenGradCAM"):
        CaseExplainer(
            classifier, {"Grad-CAM": HeatmapInferer(GradCAM())}, transform=pipeline, output_dir=tmp_path / "out"
        )
    with pytest.raises(ValueError, match="at least one"):
        CaseExplainer(classifier, {}, transform=pipeline, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_killed_run_goes_on_with_the_cases_that_are_left(tmp_path: Path) -> None:
    clip = tiny_clip()
    image = MetaTensor(torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2)
    image.meta["spatial_shape"] = np.array([32, 32])
    items = [{"image": image * (1 - 0.1 * number), "id": identity} for number, identity in enumerate(["a/b", "a-b"])]

    def explainer(loosening: str = "lambda") -> CaseExplainer:
        network = clip.classifier(PROMPTS, tokenize).eval()  # anew, as in a process of its own
        methods = {"Grad-ECLIP": HeatmapInferer(GradECLIP(loosening=loosening))}
        return CaseExplainer(network, methods, transform=Compose([]), output_dir=tmp_path)

    def killed() -> Iterator[dict[str, Any]]:
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_cases(explainer(), killed(), progress=False)
    (first,) = (folder for folder in tmp_path.iterdir() if folder.is_dir())
    written = (first / "grid.png").stat().st_mtime_ns
    table = explain_cases(explainer(), items, resume=True, progress=False)
    assert (first / "grid.png").stat().st_mtime_ns == written
    with table.open(newline="") as stream:
        resumed = list(csv.DictReader(stream))
    assert [row["id"] for row in resumed] == ["a/b", "a/b", "a-b", "a-b"]
    assert len([folder for folder in tmp_path.iterdir() if folder.is_dir()]) == 2  # alike as file names
    assert explainer().finished(items[0]) is not None
    assert explainer("none").finished(items[0]) is None
    with torch.no_grad():
        clip.log_scale += 0.1
    with explain_cases(explainer(), items, resume=True, progress=False).open(newline="") as stream:
        assert [row["score"] for row in csv.DictReader(stream)] != [row["score"] for row in resumed]
    assert (first / "grid.png").stat().st_mtime_ns > written


def test_the_page_of_sentences_is_of_the_network_that_its_method_explains(tmp_path: Path) -> None:
    before, after = (tiny_clip().classifier(PROMPTS, tokenize).eval() for _ in range(2))
    image = MetaTensor(torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2)
    image.meta["spatial_shape"] = np.array([32, 32])
    item = {"image": image, "id": "case", "text": "There is a nodule. No mass.", "input_ids": None}
    pages = []
    for number, (network, own) in enumerate([(after, before), (before, None), (after, None)]):
        methods = {"Grad-ECLIP": HeatmapInferer(GradECLIP(), network=own)}
        folder = tmp_path / str(number)
        explain = CaseExplainer(
            network, methods, transform=Compose([]), output_dir=folder, text_methods={"none": _NoWords()}
        )
        explain(item | {"token_spans": None})
        pages.append((folder / "case" / "sentences.html").read_text())
    assert pages[0] == pages[1] != pages[2]


class _NoWords(TextExplainer):
    """Says nothing of any word, so that a text encoder without attention will do."""

    def __call__(self, *_: object) -> WordWeights:
        nothing = torch.zeros(0)
        return WordWeights((), torch.zeros(0, 2, dtype=torch.int64), nothing, torch.tensor(0.0), False, True)

    def _weights(self, walk: object) -> torch.Tensor:
        return torch.zeros(0)


def test_settings_of_a_method_are_those_of_its_parts_too() -> None:
    same, other = (_settings(GatedPropagation(sigma=sigma)) for sigma in (0.6, 0.7))
    assert _settings(GatedPropagation()) == same != other
    assert _settings(SliceWise(GradECLIP())) != _settings(SliceWise(GradECLIP(blocks=2)))
