"""What the bundle is run on: one small phantom, one trained run, and tiny checkpoints in each library's own format."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from monai.utils import set_determinism
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import BertConfig, BertModel

from monai_medclip.data import make_phantom
from monai_medclip.transforms import ReportTokenizer

from .runs import TINY_PHANTOM, files, run_as_user

IMAGE_SIZE = 32
CAPTIONS = [
    "Dermoscopic image of a melanoma, atypical pigment network, blue-whitish veil, irregular streaks.",
    "Dermoscopic image of a nevus, typical pigment network, regular dots, no veil.",
]
REPORTS = ["There is a nodule in the right lung. No effusion.", "Normal chest. The lungs are clear.", "Heart is large."]


@pytest.fixture(autouse=True)
def _randomness_is_given_back() -> Iterator[None]:
    yield
    set_determinism(None)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    splits, patients = TINY_PHANTOM["phantom_splits"], TINY_PHANTOM["patients"]
    make_phantom(folder, patients=patients, image_size=128, splits=splits, progress=False)
    return folder


@pytest.fixture(scope="session")
def phantom_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of the same patients, as ct.json makes them."""
    folder = tmp_path_factory.mktemp("phantom_ct")
    splits, patients = TINY_PHANTOM["phantom_splits"], TINY_PHANTOM["patients"]
    shape = {"modality": "CT", "file_format": "nifti", "image_size": 64, "slices": 56}
    make_phantom(folder, patients=patients, splits=splits, progress=False, **shape)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phantom: Path) -> Path:
    """The output folder of a training run that a user started in a folder of her own."""
    folder = tmp_path_factory.mktemp("user")
    options = {**TINY_PHANTOM, "dataset_dir": phantom, "max_epochs": 2, "seed": 3, "weight_decay": 0.01}
    (folder / "printed.txt").write_text(run_as_user(files("train"), folder, **options))
    return folder / "medclip_output"


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 16 numbers a token, saved by transformers with its tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    size = ReportTokenizer.train([*REPORTS, *CAPTIONS] * 2, path=folder).vocab_size
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=size, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer saved by timm as for the hub."""
    folder = tmp_path_factory.mktemp("timm")
    sizes = {"img_size": IMAGE_SIZE, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **sizes)
    save_for_hf(model, folder, model_args=sizes)
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model in open_clip's own format."""
    folder = tmp_path_factory.mktemp("open_clip")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": IMAGE_SIZE, "layers": 1, "width": 24, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    statistics = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
    state = open_clip.model.CLIP(**config).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    return folder


def write_image(path: Path, number: int, mode: str = "L") -> None:
    """Noise of its own for every number, not square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (40, 48) if mode == "L" else (40, 48, 3)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)).save(path)


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def iu_xray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout: 40 reports, every second one normal, one image each."""
    root = tmp_path_factory.mktemp("iu")
    (root / "ecgen-radiology").mkdir()
    for number in range(1, 41):
        name, kind = f"CXR{number}_1_IM-{number:04d}-1001", "normal" if number % 2 else "Nodule/lung"
        (root / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><uId id="CXR{number}"/><AbstractText Label="FINDINGS">{REPORTS[number % 2]}</AbstractText>'
            f'<AbstractText Label="IMPRESSION">Seen {number} times.</AbstractText><MeSH><major>{kind}</major></MeSH>'
            f'<parentImage id="{name}"/></eCitation>'
        )
        write_image(root / "NLMCXR_png" / f"{name}.png", number)
    return root


@pytest.fixture(scope="session")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with captions, without splits."""
    root = tmp_path_factory.mktemp("skin")
    rows = []
    for number in range(40):
        write_image(root / f"{number}.png", number, "RGB")
        label = ("malignant", "benign")[number % 2]
        rows.append({"file": f"{number}.png", "patient_id": number, "labels": label, "text": CAPTIONS[number % 2]})
    return write_table(root / "captions.csv", rows)


def split_of(number: int) -> str:
    return ("train", "train", "val", "test")[number // 2 % 4]


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One array of 32 vectors and the manifest that says whose they are."""
    root = tmp_path_factory.mktemp("features")
    np.save(root / "features.npy", torch.randn(32, 16, generator=torch.Generator().manual_seed(1)).numpy())
    rows: list[dict[str, object]] = []
    for number in range(32):
        row = {"id": f"case{number}", "file": "features.npy", "features_row": number, "patient_id": number}
        label = ("nodule", "normal")[number % 2]
        rows.append({**row, "split": split_of(number), "labels": label, "text": REPORTS[number % 2]})
    return write_table(root / "features.csv", rows)


@pytest.fixture(scope="session")
def own_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's PNGs: row 34 has no text, the image of row 33 is constant."""
    root = tmp_path_factory.mktemp("own")
    rows: list[dict[str, object]] = []
    for number in range(33):
        write_image(root / f"{number}.png", number)
        label, text = ("nodule", "normal")[number % 2], REPORTS[number % 2] if number < 32 else ""
        row = {"file": f"{number}.png", "patient_id": f"p{number}", "split": split_of(number), "labels": label}
        rows.append({**row, "text": text, "rating": 4 - number % 2 * 3})
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(root / "31.png")
    return write_table(root / "manifest.csv", rows)
