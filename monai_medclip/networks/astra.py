"""The CT backbone of Merlin and Astra: an inflated ResNet-152 that takes volumes in display order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.networks.nets import resnet152
from torch import Tensor, nn

from monai_medclip.networks.checkpoints import load_weights
from monai_medclip.networks.image_encoder import network_input, per_axis

__all__ = ["ASTRA_WINDOW_HU", "AstraImageEncoder"]

ASTRA_WINDOW_HU = (-1000.0, 200.0)  # what Astra shows of a chest as 0 to 1; Merlin: -1000 to 1000
STAGE_WIDTHS = (256, 512, 1024, 2048)  # features behind each stage of a ResNet of bottlenecks


class AstraImageEncoder(nn.Module):
    """Merlin's and Astra's 3D ResNet-152 without its head: volume (B, 1, slices, rows, columns) -> (B, width).

    The weights were learned on whole chests (voxels of 1.5 to 3 mm) with axes that run up, right and forward; volumes
    here are in CT display order, so they are turned on the way in, and feature maps on the way out. Of a crop around a
    nodule, the last stage has few positions left: three stages make 1024 features on a grid four times as fine as four
    stages' 2048.

    Args:
        checkpoint: of either model, as ``packaged_weights("astra")`` finds it; None for random weights.
        image_size: voxels along slices, rows and columns, for what asks; the network takes any.
        stages: how many of the four are built, 1 to 4.

    Attributes:
        mean, std: 0 and 1: volumes enter as they are, in [0, 1] of `ASTRA_WINDOW_HU`.

    Raises:
        ValueError: another number of stages, or a checkpoint that lacks weights.

    References:
        Blankemeier et al., Merlin: A Vision Language Foundation Model for 3D Computed Tomography, arXiv:2406.06512.
        Carreira and Zisserman, Quo Vadis, Action Recognition? CVPR 2017 (inflation).
    """

    spatial_dims = 3
    in_channels = 1
    mean = (0.0,)
    std = (1.0,)

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        image_size: int | Sequence[int] = (24, 96, 96),
        stages: int = 3,
    ) -> None:
        """Build MONAI's ResNet-152 as torchvision's is inflated, and leave out what is not asked for."""
        super().__init__()
        if stages not in range(1, 5):
            raise ValueError(f"stages={stages}: a ResNet has four, ask for the first 1 to 4 of them.")
        self.image_size = per_axis(image_size, 3)
        self.stages = stages
        self.width = STAGE_WIDTHS[stages - 1]
        self.trunk: Any = resnet152(
            spatial_dims=3,
            n_input_channels=3,
            feed_forward=False,
            conv1_t_size=(3, 7, 7),
            conv1_t_stride=(1, 2, 2),
            bias_downsample=False,
        )
        for number in range(stages + 1, 5):
            delattr(self.trunk, f"layer{number}")
        if checkpoint is not None:
            load_weights(self.trunk, checkpoint, ignore_extra=True)

    def forward(self, image: Tensor) -> Tensor:
        """Pooled features (B, width), 0 or more."""
        return self.pool_features(self.feature_map(image))

    def feature_map(self, image: Tensor) -> Tensor:
        """The last stage's feature map (B, width, slices, rows, columns), in display order as the volume is."""
        trunk = self.trunk
        x = _turned(network_input(image, 1)).expand(-1, 3, -1, -1, -1)
        x = trunk.maxpool(trunk.act(trunk.bn1(trunk.conv1(x))))
        for number in range(1, self.stages + 1):
            x = getattr(trunk, f"layer{number}")(x)
        return _turned(x)

    def pool_features(self, features: Tensor) -> Tensor:
        """Pooled features (B, width) of a feature map; ``pool_features(feature_map(x))`` equals ``forward(x)``."""
        return features.mean(dim=(2, 3, 4))


def _turned(volume: Tensor) -> Tensor:
    """Display order (up, backward, to the patient's left) as (up, right, forward), and the other way round."""
    return volume.flip(-2, -1).transpose(-2, -1)  # (B, C, slices, rows, columns) -> (B, C, slices, columns, rows)
