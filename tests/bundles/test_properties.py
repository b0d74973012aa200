"""The bundle keeps MONAI's promises: properties, metadata, the shapes it announces, and its export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch
from monai.bundle import verify_metadata, verify_net_in_out

from monai_medclip.networks import export_classifier

from .runs import CONFIGS, TINY_PHANTOM, files, workflow

METADATA = CONFIGS / "metadata.json"


@pytest.fixture
def schema(shared_data: Path, tmp_path: Path) -> Path:
    """MONAI downloads the schema unless the file is there; it lies beside the shared data."""
    source = shared_data.parent / "meta_schema_20240725.json"
    if not source.is_file():
        pytest.skip(f"MONAI's metadata schema not found at {source}")
    return Path(shutil.copy(source, tmp_path / "schema.json"))


def test_train_json_has_all_properties_of_a_training_workflow(phantom: Path, tmp_path: Path) -> None:
    made = workflow("train", dataset_dir=str(phantom), output_dir=str(tmp_path), **TINY_PHANTOM)
    assert made.check_properties() == []


def test_inference_json_has_all_properties_of_an_inference_workflow(trained: Path, phantom: Path) -> None:
    made = workflow("inference", dataset_dir=str(phantom), output_dir=str(trained), **TINY_PHANTOM)
    assert made.check_properties() == []


def test_metadata_passes_monais_schema(schema: Path) -> None:
    jsonschema.validate(json.loads(METADATA.read_text()), json.loads(schema.read_text()))
    verify_metadata(meta_file=str(METADATA), filepath=str(schema))


def test_metadata_says_what_the_configs_do() -> None:
    metadata = json.loads(METADATA.read_text())
    config = json.loads((CONFIGS / "inference.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(channels.values()) == config["findings"]
    assert "Research use only, not a medical device" in metadata["intended_use"]
    size = config["image_encoder"]["image_size"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [size, size]


def test_network_takes_and_gives_what_the_metadata_announce(trained: Path) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(METADATA),
        config_file=files("inference"),
        device="cpu",
        output_dir=str(trained),
    )


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_exported_classifier_answers_alike(trained: Path, phantom: Path, tmp_path: Path, format: str) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX export needs the onnx extra")
    made = workflow("inference", dataset_dir=str(phantom), output_dir=str(trained), **TINY_PHANTOM)
    classifier = made.network_def.eval()
    images = torch.stack([made.dataset[number]["image"].as_tensor() for number in range(3)])
    path = export_classifier(classifier, tmp_path / "classifier", format=format, example=images)
    with torch.no_grad():
        expected = classifier(images)
    if format == "torchscript":
        logits = torch.jit.load(str(path))(images)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(None, {"image": images.numpy()})[0])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
