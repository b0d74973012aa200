"""Heads of probes: what is trained on embeddings that stay as they are, and the file that keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_medclip.files import atomic_write
from monai_medclip.networks.classifier import ProbeClassifier
from monai_medclip.networks.clip import CLIP

__all__ = ["PROBE_HEADS", "MLPHead", "load_probe", "probe_head", "save_probe"]

PROBE_HEADS = ("logistic", "mlp")


class MLPHead(nn.Module):
    """The chest X-ray paper's probe: two hidden layers and a softmax over absent and present for every finding.

    Args:
        width: numbers per embedding, 1024 in the paper (512 of the image, 512 of the report).
        findings: F.
        hidden: width of both hidden layers.

    References:
        The chest X-ray protocol: 1024 -> 512 -> 512 -> 2.
    """

    def __init__(self, width: int, findings: int, hidden: int = 512) -> None:
        """Random weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * findings)
        )

    def pairs(self, embedding: Tensor) -> Tensor:
        """Logits of absent and present, (B, F, 2), of embeddings (B, width)."""
        return self.layers(embedding).unflatten(1, (-1, 2))

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits (B, F): present minus absent, whose sigmoid is the softmax over the two."""
        absent, present = self.pairs(embedding).unbind(-1)
        return present - absent


def probe_head(kind: str, width: int, findings: int) -> nn.Module:
    """A head with random weights: ``"logistic"`` one linear layer, ``"mlp"`` the paper's.

    Raises:
        ValueError: for another kind.
    """
    if kind not in PROBE_HEADS:
        raise ValueError(f"no probe head {kind!r}: choose from {', '.join(PROBE_HEADS)}.")
    return nn.Linear(width, findings) if kind == "logistic" else MLPHead(width, findings)


def save_probe(path: str | Path, classifier: ProbeClassifier, *, kind: str, sections: Sequence[str] = ()) -> Path:
    """Writes the head, and what has to be known to put it on its CLIP again; not the CLIP itself.

    Args:
        path: file to write.
        classifier: the probe.
        kind: of its head, see `probe_head`.
        sections: of the report that it reads.
    """
    content = {
        "kind": kind,
        "findings": list(classifier.findings),
        "sections": list(sections),
        "space": classifier.space,
        "state": {name: value.cpu() for name, value in classifier.head.state_dict().items()},
    }
    with atomic_write(path) as file:
        torch.save(content, file)
    return Path(path)


def load_probe(clip: CLIP, path: str | Path) -> ProbeClassifier:
    """A probe on its CLIP.

    Args:
        clip: the network whose embeddings the head was trained on; shared, not copied.
        path: what `save_probe` has written.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the head takes embeddings of another width.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: fit the probe first (probe.json writes it).")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state, findings, with_text = content["state"], content["findings"], bool(content["sections"])
    width = next(iter(state.values())).shape[1]
    head = probe_head(content["kind"], width, len(findings))
    head.load_state_dict(state)
    probe = ProbeClassifier(clip, head, findings, with_text=with_text, space=content["space"])
    if width != probe.width:
        raise ValueError(
            f"{path} takes {width} numbers and this CLIP gives {probe.width}: it belongs to another network."
        )
    return probe.to(clip.log_scale.device)
