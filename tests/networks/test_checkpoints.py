"""Checkpoints: only tensors, all of them, and an error that says which are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from monai_medclip.networks import load_state_dict, load_weights

from .toys import tiny_clip


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict"])
def test_round_trip_in_the_forms_that_trainers_write(tmp_path: Path, wrapper: str) -> None:
    source, target = tiny_clip(), tiny_clip()
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "clip.pt")
    assert target.load(tmp_path / "clip.pt") is target
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_safetensors_and_one_tower_out_of_a_clip(tmp_path: Path) -> None:
    source, target = tiny_clip(), tiny_clip()
    save_file(source.state_dict(), tmp_path / "clip.safetensors")
    load_weights(target.image_encoder, tmp_path / "clip.safetensors", part="image_encoder.")
    assert torch.equal(target.image_encoder.trunk.pos_embed, source.image_encoder.trunk.pos_embed)
    assert not torch.equal(target.image_projection.weight, source.image_projection.weight)


class Unsafe:
    """Pickles by naming a class that a loader would have to import."""


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"model": tiny_clip().state_dict(), "extra": Unsafe()}, tmp_path / "unsafe.pt")
    with pytest.raises(ValueError, match=r"unsafe\.pt .*without running code"):
        load_state_dict(tmp_path / "unsafe.pt")


def test_missing_extra_and_misshaped_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.pt"
    state = tiny_clip().state_dict()
    torch.save({key: value for key, value in state.items() if key != "log_scale"}, path)
    with pytest.raises(ValueError, match="lacks 1 weights of CLIP: log_scale"):
        tiny_clip().load(path)
    torch.save({**state, "head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"does not have: head\.weight"):
        tiny_clip().load(path)
    torch.save({**state, "image_projection.weight": torch.zeros(3, 64)}, path)
    with pytest.raises(ValueError, match=r"image_projection\.weight \(3, 64\) instead of \(16, 64\)"):
        tiny_clip().load(path)


def test_no_file_no_weights_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_state_dict(tmp_path / "none.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no weights"):
        load_state_dict(tmp_path / "empty.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"broken\.pt is not a checkpoint"):
        load_state_dict(tmp_path / "broken.pt")
