"""A classifier of nodule crops slid over volumes whose bright ball is where the test put it, in RAS mm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from monai_medclip.inferers import NoduleScan
from monai_medclip.metrics import peak_mm
from monai_medclip.transforms import CropNoduled
from monai_medclip.writers import scanner_maps

SHAPE, SPACING_MM = (40, 36, 20), (1.5, 1.5, 2.5)
BALL_MM = 5.0


class BallInTheMiddle(nn.Module):
    """Two logits of crops (B, planes, rows, columns): the mean at the middle over that of the rest, and its negative.

    Dropout of everything, in training mode only: a scan that forgot evaluation mode would see nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.largest_batch = nn.Dropout(1.0), 0

    def forward(self, crops: Tensor, scale: float = 1.0) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(crops))
        crops = self.dropout(crops)
        middle = crops[..., 6:10, 6:10].mean(dim=(1, 2, 3))
        score = scale * (2 * middle - crops.mean(dim=(1, 2, 3)))
        return torch.stack([score, -score], dim=1)


def affine_of(kind: str) -> np.ndarray:
    """RAS mm of voxels: straight, as DICOM turns it, oblique, or with the axes in another order."""
    matrix = {
        "straight": np.eye(3),
        "lps": np.diag([-1.0, -1.0, 1.0]),
        "oblique": Rotation.from_euler("xyz", [12, -9, 20], degrees=True).as_matrix(),
        "permuted": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    }[kind]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix * SPACING_MM, (-20.0, 35.0, -110.0)
    return affine


def volume_with_ball(voxel: tuple[int, int, int], kind: str = "straight") -> tuple[MetaTensor, np.ndarray]:
    """A volume (1, 1, x, y, z) of 0 with a ball of 1, and where its middle lies in RAS mm."""
    affine = affine_of(kind)
    at = np.moveaxis(np.indices(SHAPE), 0, -1)
    middle = apply_affine(affine, voxel)
    inside = np.linalg.norm(apply_affine(affine, at) - middle, axis=-1) <= BALL_MM
    image = MetaTensor(torch.from_numpy(inside.astype(np.float32))[None], affine=affine)
    image.meta["spatial_shape"] = np.array(SHAPE)
    return image[None], middle


def scan_of(step_mm: float = 3.0, **options) -> NoduleScan:
    return NoduleScan(CropNoduled("image", size=16, pixel_mm=1.5), step_mm=step_mm, progress=False, **options)


@pytest.mark.parametrize("kind", ["straight", "lps", "oblique", "permuted"])
def test_a_ball_is_found_at_its_place_in_ras_mm(kind: str) -> None:
    image, middle = volume_with_ball((25, 11, 9), kind)
    heat = scan_of()(image, BallInTheMiddle())
    assert heat.shape == (1, 2, *SHAPE)
    assert np.linalg.norm(peak_mm(heat[0, 0].numpy(), affine_of(kind)) - middle) <= 2.6  # half a step per axis
    torch.testing.assert_close(heat[0, 1].as_tensor(), -heat[0, 0].as_tensor())  # the prompts do not mix


def test_every_position_has_the_classifiers_own_score_of_the_crop_there() -> None:
    image, _ = volume_with_ball((25, 11, 9), "oblique")
    crop, network = CropNoduled("image", size=16, pixel_mm=1.5), BallInTheMiddle().eval()
    heat = scan_of(step_mm=4.0)(image, network)  # every 3, 3 and 2 voxels; (40 - 1) % 3 // 2 = 0, (36 - 1) % 3 // 2 = 1
    for voxel in [(24, 10, 8), (0, 1, 0), (39, 34, 18)]:
        center = apply_affine(affine_of("oblique"), voxel)
        own = network(crop({"image": image[0], "center_mm": center})["image"][None].as_tensor())[0]
        torch.testing.assert_close(heat[(0, slice(None), *voxel)].as_tensor(), own, atol=1e-4, rtol=0)
    between = (heat[0, 0, 24, 10, 8] + heat[0, 0, 24, 10, 10]) / 2
    torch.testing.assert_close(heat[0, 0, 24, 10, 9], between, atol=1e-4, rtol=0)
    torch.testing.assert_close(heat[0, 0, :, 35], heat[0, 0, :, 34])  # constant beyond the last position


def test_crops_in_3d_and_of_several_channels_are_those_of_the_pipeline() -> None:
    image, _ = volume_with_ball((25, 11, 9), "oblique")
    two = torch.cat([image, 3 * image], dim=1)
    assert isinstance(two, MetaTensor)
    center = apply_affine(affine_of("oblique"), (24, 10, 8))
    for crop in (CropNoduled("image", spatial_dims=3, size=(4, 8, 6), pixel_mm=(2.0, 1.5, 1.5)), CropNoduled("image")):
        own = crop({"image": two[0], "center_mm": center})["image"].as_tensor()
        weights = torch.rand(own.shape, generator=torch.Generator().manual_seed(0))
        scan = NoduleScan(crop, step_mm=4.0, progress=False)
        mask = torch.zeros(1, *SHAPE)
        mask[0, 24, 10, 8] = 1
        heat = scan(two, lambda crops, weights=weights: (crops * weights).flatten(1).sum(1, keepdim=True), mask=mask)
        torch.testing.assert_close(heat[0, 0, 24, 10, 8].as_tensor(), (own * weights).sum(), atol=1e-3, rtol=1e-4)
        assert float(own.std()) > 0


def test_nothing_is_looked_at_outside_the_mask_and_none_of_it_is_left_out() -> None:
    image, _ = volume_with_ball((25, 11, 9))
    mask = torch.zeros(1, *SHAPE)
    mask[0, 4:9, 20:31, 5:12] = 1
    mask[0, 30, 30, 17] = 1  # a single voxel, between positions

    class Always(nn.Module):
        seen = 0

        def forward(self, crops: Tensor) -> Tensor:
            self.seen += len(crops)
            return torch.full((len(crops), 1), 3.0)

    network = Always()
    heat = scan_of(step_mm=6.0)(image, network, mask=mask)
    torch.testing.assert_close(heat[0].as_tensor(), 3 * mask)
    assert network.seen < 40  # of 10 * 9 * 10 positions
    torch.testing.assert_close(scan_of(step_mm=6.0)(image, network, mask=mask[None]), heat)


def test_a_ball_outside_the_mask_is_not_found() -> None:
    image, _ = volume_with_ball((30, 11, 9))
    mask = torch.ones(1, *SHAPE)
    mask[0, 15:] = 0
    assert float(scan_of()(image, BallInTheMiddle())[0, 0].max()) > 1
    assert float(scan_of()(image, BallInTheMiddle(), mask=mask)[0, 0].max()) < 0.05


def test_the_rest_of_the_pipeline_is_applied_and_batches_change_nothing() -> None:
    image, _ = volume_with_ball((25, 11, 9))
    network = BallInTheMiddle()
    plain = scan_of(step_mm=6.0, batch_size=7)(image, network)
    assert network.largest_batch == 7
    torch.testing.assert_close(scan_of(step_mm=6.0, transform=lambda crops: 2 * crops)(image, network), 2 * plain)
    torch.testing.assert_close(scan_of(step_mm=6.0)(image, network, scale=3.0), 3 * plain)


def test_the_network_comes_back_in_its_mode_also_when_it_fails() -> None:
    image, _ = volume_with_ball((25, 11, 9))
    network = BallInTheMiddle().train()
    scan_of(step_mm=9.0)(image, network)
    assert network.training
    with pytest.raises(TypeError):
        scan_of(step_mm=9.0)(image, network, unknown=1)
    assert network.training


def test_a_loaders_batch_keeps_its_meta_and_goes_back_onto_the_scanners_grid() -> None:
    image, middle = volume_with_ball((25, 11, 9), "lps")
    (batch,) = DataLoader(Dataset([{"image": image[0]}]), batch_size=1)
    heat = scan_of()(batch["image"], BallInTheMiddle())
    assert heat.is_batch
    maps = scanner_maps(heat[0], Compose([]))
    assert maps.shape == (2, *SHAPE)
    assert np.linalg.norm(peak_mm(maps[0].numpy(), maps.affine.numpy()) - middle) <= 2.6


def test_what_cannot_be_scanned_is_refused() -> None:
    image, _ = volume_with_ball((25, 11, 9))
    scan, network = scan_of(), BallInTheMiddle()
    with pytest.raises(TypeError, match="MetaTensor"):
        scan(image.as_tensor(), network)
    with pytest.raises(TypeError, match="by name"):
        scan(image, network, torch.zeros(1))
    with pytest.raises(ValueError, match="one volume"):
        scan(torch.cat([image, image]), network)
    with pytest.raises(ValueError, match="on its grid"):
        scan(image, network, mask=torch.ones(1, 40, 36, 19))
    with pytest.raises(ValueError, match="empty"):
        scan(image, network, mask=torch.zeros(1, *SHAPE))
    with pytest.raises(ValueError, match="positive"):
        scan_of(step_mm=0.0)
