"""Exported classifiers answer like the network to 1e-5, at any batch size, without its text tower."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import ViTConfig

from monai_medclip.networks import (
    CLIP,
    MonaiImageEncoder,
    SmallViT,
    TimmImageEncoder,
    TransformersImageEncoder,
    export_classifier,
)

from .toys import BagOfWords, tokenize

VIT = {"hidden_size": 24, "num_layers": 1, "num_heads": 3, "mlp_dim": 24, "patch_size": 8}
HF = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 24, "patch_size": 8}

ENCODERS = {
    "small": lambda: SmallViT(32, width=64),
    "small 3D": lambda: SmallViT((16, 24, 32), spatial_dims=3, width=64),
    "timm SigLIP": lambda: TimmImageEncoder("test_vit", image_size=32, options={"global_pool": "map"}),
    "timm CNN": lambda: TimmImageEncoder("resnet10t", image_size=32),
    "transformers": lambda: TransformersImageEncoder(ViTConfig(**HF, image_size=32)),
    "MONAI 3D": lambda: MonaiImageEncoder("vit", image_size=16, spatial_dims=3, options=VIT),
}


def classifier_on(encoder: torch.nn.Module, rule: str = "positive"):
    return CLIP(encoder, BagOfWords(), embed_dim=16).classifier(["nodule", "mass"], tokenize, rule=rule)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_export_equals_the_classifier(tmp_path: Path, name: str, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX export needs the onnx extra")
    encoder = ENCODERS[name]()
    classifier = classifier_on(encoder).eval()
    path = export_classifier(classifier, tmp_path / "model", format=format)
    image = torch.rand(3, encoder.in_channels, *encoder.image_size)
    expected = classifier(image)
    if format == "torchscript":
        logits = torch.jit.load(str(path))(image)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_torchscript_carries_findings_statistics_and_its_intended_use(tmp_path: Path) -> None:
    path = export_classifier(classifier_on(SmallViT(32, width=64), "name_pair"), tmp_path / "model.ts")
    files = {"medclip.json": ""}
    loaded = torch.jit.load(str(path), _extra_files=files)
    metadata = json.loads(files["medclip.json"])
    assert json.loads(metadata["findings"]) == ["nodule", "mass"]
    assert metadata["intended_use"] == "Research use only, not a medical device"
    assert not any("words" in name for name, _ in loaded.named_parameters())


def test_training_mode_is_left_as_it_was(tmp_path: Path) -> None:
    classifier = classifier_on(SmallViT(32, width=64)).train()
    export_classifier(classifier, tmp_path / "model.ts")
    assert classifier.training
    assert classifier.clip.image_encoder.training


def test_the_classifier_itself_can_be_traced() -> None:
    classifier = classifier_on(SmallViT(32, width=64)).eval()
    image = torch.rand(2, 1, 32, 32)
    expected = classifier(image)
    traced = torch.jit.trace(classifier, image, check_trace=False)
    torch.testing.assert_close(traced(image), expected)


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torchscript or onnx"):
        export_classifier(classifier_on(SmallViT(32, width=64)), tmp_path / "model", format="tflite")
