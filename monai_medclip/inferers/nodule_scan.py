"""A classifier of nodule crops slid over a whole CT: where does it look as the prompt says?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from monai_medclip.transforms.nodule import CropNoduled, indices_at, sample_at

__all__ = ["NoduleScan"]

Steps = tuple[int, ...]  # voxels from one position to the next, per axis


class NoduleScan(Inferer):
    """Asks a classifier of nodule crops at every few mm of a CT, and draws its answers as a map on the CT's own grid.

    A high value means: a crop centered here looks like the prompt. MONAI's `SlidingWindowInferer` wants windows of
    voxels and a map per window; a nodule crop has a size in mm, planes as channels, and one score.

    Args:
        crop: the crop of the pipeline that the classifier was trained with.
        transform: what that pipeline does to crops afterward, such as normalization, for a batch (B, C * planes, rows,
            columns) or (B, C, slices, rows, columns). What it does to the volume before, such as windows, is done to
            the input.
        step_mm: from one position to the next; rounded to whole voxels of each axis, one at least. Half a nodule's
            diameter finds it.
        batch_size: crops at a time; they and the maps are all that takes memory.
        progress: ``None`` shows a bar on a terminal and not in a log file.
    """

    def __init__(
        self,
        crop: CropNoduled,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        step_mm: float = 4.0,
        batch_size: int = 256,
        progress: bool | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        if step_mm <= 0 or batch_size < 1:
            raise ValueError(f"step_mm {step_mm} and batch_size {batch_size} must be positive.")
        self.crop, self.transform = crop, transform
        self.step_mm, self.batch_size, self.progress = float(step_mm), batch_size, progress

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        *args: Any,
        mask: Tensor | None = None,
        **kwargs: Any,
    ) -> MetaTensor:
        """Map the classifier's scores.

        Args:
            inputs: one volume (1, C, x, y, z), a MetaTensor as the crop takes it (of `LoadCTd`, in HU, or windowed), in
                any axis order, oblique or not.
            network: gives logits (B, F) of crops (B, channels, *crop); it runs in evaluation mode without gradients.
            args: none.
            mask: where to look: (1, x, y, z) or (1, 1, x, y, z) on the volume's grid, above 0; everywhere if None.
            kwargs: further inputs of the classifier, by name, the same for every crop.

        Returns:
            (1, F, x, y, z) float32 with the volume's meta: the classifier's logit (any number; for a prompt with
            negative ones, the log odds of the pair, above 0 where the prompt wins), linear between positions, and 0
            where the mask is 0. So a mask without any logit above 0 has its maximum inside the mask only.

        Raises:
            TypeError: the input is no MetaTensor, or further inputs come without names.
            ValueError: more than one volume, a mask on another grid, or an empty one.
        """
        if args:
            raise TypeError("give the classifier's further inputs by name, as its context_keys say.")
        if not isinstance(inputs, MetaTensor):
            raise TypeError("a plain tensor has no mm: give the volume as a MetaTensor, as LoadCTd makes it.")
        volume = _one_volume(inputs)
        where = _where(mask, volume)
        steps = _steps(volume, self.step_mm)
        axes = [_positions(n, step) for n, step in zip(where.shape, steps, strict=True)]
        looked = _looked(where, axes, steps)
        with eval_mode(*([network] if isinstance(network, torch.nn.Module) else [])), torch.no_grad():
            scores = torch.cat(list(self._scores(volume, network, axes, looked, kwargs)))  # (P, F)
        out = MetaTensor(_spread(scores, looked, where, axes, steps)).copy_meta_from(inputs)
        out.is_batch = inputs.is_batch
        return out

    def _scores(
        self,
        volume: MetaTensor,
        network: Callable[..., Any],
        axes: Sequence[NDArray[np.int_]],
        looked: NDArray[np.bool_],
        context: Mapping[str, Any],
    ) -> Iterator[Tensor]:
        """Logits (B, F) of the positions looked at, in the order of their indices."""
        places = np.argwhere(looked)  # (P, 3)
        index = np.stack([axis[place] for axis, place in zip(axes, places.T, strict=True)], axis=-1)
        around, voxels = self._around(volume), volume.as_tensor()
        disable = None if self.progress is None else not self.progress
        with tqdm(total=len(index), desc="scan", unit="crop", disable=disable) as bar:
            for some in torch.from_numpy(index).double().split(self.batch_size):
                crops = self._crops(voxels, around + some[:, None, None, None])  # (B, planes, rows, columns, 3)
                crops = crops if self.transform is None else self.transform(crops)
                yield torch.as_tensor(network(crops, **context)).float()
                bar.update(len(some))

    def _around(self, volume: MetaTensor) -> Tensor:
        """Voxels of a crop relative to its center (planes, rows, columns, 3): every crop is this one, shifted."""
        linear = torch.as_tensor(volume.affine, dtype=torch.float64).cpu().clone()
        linear[:3, 3] = 0
        rows, columns = (torch.arange(n, dtype=torch.float64) for n in self.crop.size[-2:])
        slices = torch.tensor(self.crop.offsets_mm, dtype=torch.float64)
        return indices_at([slices, rows, columns], torch.linalg.solve(linear, self.crop.frame(np.zeros(3))))

    def _crops(self, voxels: Tensor, at: Tensor) -> Tensor:
        """What `CropNoduled` gives of voxels (C, x, y, z), as a batch: (B, C * planes, rows, columns) or 3D."""
        crops = sample_at(voxels, at.flatten(0, 1)).unflatten(1, at.shape[:2]).transpose(0, 1)
        return crops.flatten(1, 2) if self.crop.spatial_dims == 2 else crops


def _one_volume(inputs: MetaTensor) -> MetaTensor:
    """The volume (C, x, y, z) of a batch of one, with its affine (4, 4)."""
    if inputs.ndim != 5 or len(inputs) != 1:
        raise ValueError(f"the input has shape {tuple(inputs.shape)}: give one volume (1, C, x, y, z) at a time.")
    return MetaTensor(inputs.as_tensor()[0], affine=inputs.affine.reshape(-1, 4, 4)[0])


def _where(mask: Tensor | None, volume: MetaTensor) -> NDArray[np.bool_]:
    """Where to look (x, y, z)."""
    shape = tuple(volume.shape[1:])
    if mask is None:
        return np.ones(shape, bool)
    if mask.numel() != np.prod(shape) or tuple(mask.shape[-3:]) != shape:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, the volume {shape}: give one mask on its grid.")
    plain = mask.as_tensor() if isinstance(mask, MetaTensor) else mask
    where = (plain.reshape(shape) > 0).cpu().numpy()
    if not where.any():
        raise ValueError("the mask is empty, so there is nowhere to look: see what made it.")
    return np.asarray(where)


def _steps(volume: MetaTensor, step_mm: float) -> Steps:
    spacing_mm = affine_to_spacing(volume.affine.double()).tolist()
    return tuple(max(1, round(step_mm / mm)) for mm in spacing_mm)


def _positions(n: int, step: int) -> NDArray[np.int_]:
    """Indices of an axis of n voxels, a step apart, as far from one end as from the other."""
    return np.arange((n - 1) % step // 2, n, step)


def _looked(where: NDArray[np.bool_], axes: Sequence[NDArray[np.int_]], steps: Steps) -> NDArray[np.bool_]:
    """Positions that are the nearest one to some voxel of the mask, so that none of its voxels goes without."""
    for axis, (positions, step) in enumerate(zip(axes, steps, strict=True)):
        first = np.maximum(positions - step // 2, 0)
        first[0] = 0
        where = np.logical_or.reduceat(where, first, axis=axis)
    return where


def _spread(
    scores: Tensor,
    looked: NDArray[np.bool_],
    where: NDArray[np.bool_],
    axes: Sequence[NDArray[np.int_]],
    steps: Steps,
) -> Tensor:
    """Scores (P, F) of positions, linear in between, over the mask (x, y, z): (1, F, x, y, z).

    Positions that were not looked at have no say: the mean is over the others of the eight around a voxel.
    """
    at, inside = torch.from_numpy(looked).to(scores.device), torch.from_numpy(where).to(scores.device)
    weight = _fine(at.float(), where.shape, axes, steps)
    out = scores.new_zeros(1, scores.shape[1], *where.shape)
    for prompt, values in enumerate(scores.T):
        coarse = scores.new_zeros(at.shape)
        coarse[at] = values
        fine = _fine(coarse, where.shape, axes, steps).div_(weight)
        out[0, prompt] = torch.where(inside, fine, 0.0)
    return out


def _fine(coarse: Tensor, shape: Sequence[int], axes: Sequence[NDArray[np.int_]], steps: Steps) -> Tensor:
    """Values at positions (a, b, c), linear between them and constant beyond, at all voxels of `shape`."""
    between = [(len(positions) - 1) * step + 1 for positions, step in zip(axes, steps, strict=True)]
    fine = F.interpolate(coarse[None, None], size=between, mode="trilinear", align_corners=True)
    beyond = [(int(axis[0]), n - 1 - int(axis[-1])) for axis, n in zip(axes, shape, strict=True)]
    return F.pad(fine, [side for pair in reversed(beyond) for side in pair], mode="replicate")[0, 0]
