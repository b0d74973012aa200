"""Heads of probes: the paper's shape and its softmax by hand, written and loaded to the very same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from monai_medclip.networks import PROBE_HEADS, MLPHead, ProbeClassifier, load_probe, probe_head, save_probe

from .toys import tiny_clip, tokenize

FINDINGS = ("nodule", "effusion", "mass")


def test_the_mlp_has_the_papers_layers() -> None:
    head = MLPHead(1024, 1)
    assert [tuple(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Linear)] == [
        (512, 1024),
        (512, 512),
        (2, 512),
    ]
    assert sum(isinstance(layer, nn.ReLU) for layer in head.layers) == 2


def test_the_sigmoid_of_its_logit_is_the_softmax_over_absent_and_present() -> None:
    head, embedding = MLPHead(8, 3, hidden=6), torch.randn(5, 8)
    pairs = head.pairs(embedding)
    assert pairs.shape == (5, 3, 2)
    torch.testing.assert_close(head(embedding).sigmoid(), pairs.softmax(dim=-1)[..., 1])


@pytest.mark.parametrize("kind", PROBE_HEADS)
def test_a_head_by_name_gives_one_logit_per_finding(kind: str) -> None:
    assert probe_head(kind, 8, 3)(torch.zeros(2, 8)).shape == (2, 3)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match="no probe head 'forest': choose from logistic, mlp"):
        probe_head("forest", 8, 3)


@pytest.mark.parametrize("kind", PROBE_HEADS)
@pytest.mark.parametrize("space", ["embedding", "pooled"])
@pytest.mark.parametrize("sections", [(), ("indication", "findings")])
def test_what_was_written_gives_the_same_logits_on_the_same_network(
    tmp_path: Path, kind: str, space: str, sections: tuple[str, ...]
) -> None:
    clip, with_text = tiny_clip().eval(), bool(sections)
    width = (16 if space == "embedding" else 64) + 16 * with_text
    written = ProbeClassifier(clip, probe_head(kind, width, 3), FINDINGS, with_text=with_text, space=space).eval()
    path = save_probe(tmp_path / "folder" / "probe.pt", written, kind=kind, sections=sections)
    loaded = load_probe(clip, path).eval()
    image, tokens = torch.rand(2, 1, 32, 32), tokenize(["There is a nodule.", "Clear."])
    context = tokens._asdict() if with_text else {}
    assert torch.equal(loaded(image, **context), written(image, **context))
    assert (loaded.findings, loaded.space, loaded.context_keys) == (FINDINGS, space, written.context_keys)
    assert loaded.clip is clip
    assert path.stat().st_size < 4 * sum(p.numel() for p in written.head.parameters()) + 8000  # without the CLIP


def test_a_probe_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save_probe(tmp_path / "probe.pt", ProbeClassifier(tiny_clip(), nn.Linear(16, 3), FINDINGS), kind="logistic")
    with pytest.raises(ValueError, match=r"probe.pt takes 16 numbers and this CLIP gives 24: it belongs to another"):
        load_probe(tiny_clip(embed_dim=24), path)


def test_a_missing_file_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.pt does not exist: fit the probe first"):
        load_probe(tiny_clip(), tmp_path / "none.pt")
