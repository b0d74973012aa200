"""Export a zero-shot classifier to TorchScript or ONNX, and check that the file answers as the network does."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medclip.networks.zero_shot import ZeroShotClassifier
from monai_medclip.notice import RESEARCH_USE

__all__ = ["export_classifier"]


class _ImageToLogits(nn.Module):
    """The image side of a classifier with its directions as constants: no prompts, no text tower."""

    weight: Tensor
    bias: Tensor

    def __init__(self, classifier: ZeroShotClassifier) -> None:
        super().__init__()
        clip = classifier.clip
        self.image_encoder = clip.image_encoder
        self.image_projection = clip.image_projection
        self.register_buffer("weight", (clip.logit_scale * classifier.refresh()).detach().clone())
        bias = clip.logit_bias if classifier.rule in ("positive", "name") else torch.zeros_like(clip.logit_bias)
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, image: Tensor) -> Tensor:
        embedding = F.normalize(self.image_projection(self.image_encoder(image)).float(), dim=-1)
        return embedding @ self.weight.T + self.bias


def export_classifier(
    classifier: ZeroShotClassifier,
    path: str | Path,
    *,
    format: str = "torchscript",
    example: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Path:
    """Write image -> logits (B, F) to a file that needs neither this package nor the text encoder.

    The file is read back and must answer as the classifier does, also for another batch size. It carries the names of
    the findings, the normalization and ``Research use only`` as metadata (``medclip.json`` in TorchScript).

    Args:
        classifier: in any mode; it is left as it was.
        path: file to write; ``.ts``, ``.pt`` or ``.onnx`` by custom.
        format: ``"torchscript"`` or ``"onnx"`` (needs the ``onnx`` extra).
        example: image batch (B, C, *spatial); None for random ones of the encoder's size.
        tolerance: largest difference of a logit, relative to the logit scale where that is above 1.

    Returns:
        The path.

    Raises:
        ValueError: for an unknown format, or a file that answers differently.
    """
    exporters: dict[str, Callable[..., None]] = {"torchscript": _write_torchscript, "onnx": _write_onnx}
    if format not in exporters:
        raise ValueError(f"unknown export format {format!r}: use torchscript or onnx")
    path = Path(path)
    training = classifier.training
    classifier.eval()
    try:
        encoder = classifier.clip.image_encoder
        if example is None:
            example = torch.rand(2, encoder.in_channels, *encoder.image_size, device=classifier.directions.device)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracers warn of every shape check in Python
            exporters[format](_ImageToLogits(classifier).eval(), path, example, _metadata(classifier))
            _check(classifier, _reader(path, format), example, tolerance, path)
    finally:
        classifier.train(training)
    return path


def _metadata(classifier: ZeroShotClassifier) -> dict[str, str]:
    encoder = classifier.clip.image_encoder
    values = {
        "findings": classifier.findings,
        "prompt_rule": classifier.rule,
        "image_size": encoder.image_size,
        "mean": encoder.mean,
        "std": encoder.std,
    }
    return {"intended_use": RESEARCH_USE, **{key: json.dumps(value) for key, value in values.items()}}


def _write_torchscript(network: nn.Module, path: Path, example: Tensor, metadata: dict[str, str]) -> None:
    traced = torch.jit.trace(network, example, check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={"medclip.json": json.dumps(metadata)})


def _write_onnx(network: nn.Module, path: Path, example: Tensor, metadata: dict[str, str]) -> None:
    onnx = importlib.import_module("onnx")
    torch.onnx.export(
        network,
        (example,),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=18,
        dynamo=False,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def _reader(path: Path, format: str) -> Callable[[Tensor], Tensor]:
    if format == "torchscript":
        return torch.jit.load(str(path))
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.cpu().numpy()})[0]).to(image.device)


def _check(
    classifier: ZeroShotClassifier, exported: Callable[[Tensor], Tensor], example: Tensor, tolerance: float, path: Path
) -> None:
    """Compare on the example and on another batch size, with other values."""
    scale = max(1.0, float(classifier.clip.logit_scale))
    for image in (example, torch.cat([example.flip(-1), example[:1]])):
        difference = float((exported(image) - classifier(image)).abs().max())
        if not difference <= tolerance * scale:
            raise ValueError(
                f"{path} answers differently from the network it was exported from (by {difference:.2g} in a logit, "
                f"batch of {len(image)}): do not use it. Try the other format."
            )
