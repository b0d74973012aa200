"""Explaining cases without a bundle: volumes get slices and montages, and senseless requests are refused at once."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from monai_medclip.engines import CaseExplainer, explain_cases
from monai_medclip.explainers import CentreBlob, GradCAM, GradECLIP
from monai_medclip.inferers import HeatmapInferer
from monai_medclip.networks import CLIP, SmallViT, ZeroShotClassifier
from monai_medclip.transforms import DisplayOrderd, FitImaged

from ..networks.toys import BagOfWords, tokenize

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
    assert {"blob_01_nodule_slices.png", "blob_01_nodule_montage.png", "blob.html", "Grad-ECLIP.html"} <= {
        path.name for path in case.iterdir()
    }
    native, back = nib.load(volume), nib.load(case / "maps" / "blob_01_nodule.nii.gz")
    assert back.shape == native.shape
    np.testing.assert_allclose(back.affine, native.affine, atol=1e-3)
    middle = np.unravel_index(int(back.get_fdata().argmax()), back.shape)
    assert np.abs(np.asarray(middle) - [14.5, 9.5, 5.5]).max() <= 1


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
