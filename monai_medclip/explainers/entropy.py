"""Local entropy: how much the gray values around each pixel or voxel vary, in bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from math import isqrt, log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import rank
from skimage.morphology import ball, disk
from torch import Tensor
from torch.nn import functional as F

__all__ = ["local_entropy"]

LEVEL_PIXELS = 2**24  # gray levels times pixels that the torch version looks at in one go: 64 MiB per intermediate


def local_entropy(gray: Tensor, radius: int = 5, *, backend: str | None = None) -> Tensor:
    """Shannon entropy of the gray values within a radius of each pixel (a disk) or voxel (a ball).

    At the border only what lies inside the image counts, as in skimage's ``rank.entropy``, whose values these are. Both
    are histograms that slide along the rows. skimage takes logarithms of a whole histogram at every pixel; here a pixel
    costs what enters and leaves, O(radius) in 2D and O(radius^2) in 3D, whatever the number of gray levels.

    Args:
        gray: (B, *spatial) uint8, 2 or 3 spatial axes.
        radius: of the disk or ball, in pixels or voxels, at least 1.
        backend: ``"numba"`` (compiled once per process, on first use), ``"skimage"``, or ``"torch"``; None takes torch
            for images that are not on the CPU, else numba where it is installed, else skimage.

    Returns:
        (B, *spatial) bits on the image's device, in [0, 8]: float64, equal to skimage's to 1e-9; torch's are float32,
        equal to 1e-5.

    Raises:
        ValueError: for another dtype, other axes, a radius below 1, or an unknown backend.
        ImportError: if numba is asked for and not installed.
    """
    if gray.dtype != torch.uint8 or gray.ndim not in (3, 4):
        raise ValueError(f"gray is {gray.dtype} {tuple(gray.shape)}: give uint8 of (B, rows, columns) or (B, z, y, x).")
    if radius < 1:
        raise ValueError(f"radius={radius} pixels: a neighborhood needs at least 1.")
    if backend is None:
        on_host = "numba" if find_spec("numba") else "skimage"
        backend = on_host if gray.device.type == "cpu" else "torch"
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: use one of {', '.join(BACKENDS)}.")
    return BACKENDS[backend](gray, radius)


def _by_numba(gray: Tensor, radius: int) -> Tensor:
    spatial_dims = gray.ndim - 1
    chords = _chords(radius, spatial_dims)
    counts = np.arange((2 * chords[:, 2] + 1).sum() + 2)
    bits = np.log2(np.maximum(counts, 1))
    gains = np.diff(counts * bits)  # what one more of a gray value adds to the sum of h log2 h
    volumes = gray.reshape(-1, *_as_volume(gray)).cpu().numpy()
    entropy = np.empty(volumes.shape)
    slide = _compiled()
    for volume, result in zip(volumes, entropy, strict=True):
        slide(volume, chords, gains, bits, result)
    return torch.from_numpy(entropy).reshape(gray.shape).to(gray.device)


def _by_skimage(gray: Tensor, radius: int) -> Tensor:
    footprint = disk(radius) if gray.ndim == 3 else ball(radius)
    entropy = [torch.from_numpy(rank.entropy(image, footprint)) for image in gray.cpu().numpy()]
    return torch.stack(entropy).to(gray.device)


def _by_torch(gray: Tensor, radius: int) -> Tensor:
    chords = _chords(radius, gray.ndim - 1).tolist()
    volumes = gray.reshape(-1, 1, *_as_volume(gray))  # (B, 1, z, y, x)
    total = _counts(torch.ones_like(volumes[:1]), chords, radius).float()
    entropy = torch.zeros_like(volumes, dtype=torch.float32)
    for levels in gray.unique().split(max(1, LEVEL_PIXELS // gray.numel())):
        share = _counts(volumes == levels.view(-1, 1, 1, 1), chords, radius) / total  # (B, L, z, y, x)
        entropy -= torch.xlogy(share, share).sum(dim=1, keepdim=True)
    return (entropy / log(2)).reshape(gray.shape)


BACKENDS: dict[str, Callable[[Tensor, int], Tensor]] = {"numba": _by_numba, "skimage": _by_skimage, "torch": _by_torch}


def _as_volume(gray: Tensor) -> tuple[int, ...]:
    """Spatial size as (slices, rows, columns): a 2D image is a volume of one slice."""
    return (1, *gray.shape[1:])[-3:]


def _chords(radius: int, spatial_dims: int) -> NDArray[np.int64]:
    """A disk or ball as rows of pixels: (chords, 3) with slice offset, row offset, and half of the length along x."""
    reach = range(-radius, radius + 1)
    slices = reach if spatial_dims == 3 else (0,)
    rest = {(z, y): radius * radius - z * z - y * y for z in slices for y in reach}
    return np.array([(z, y, isqrt(square)) for (z, y), square in rest.items() if square >= 0])


def _slide(
    gray: NDArray[np.uint8],
    chords: NDArray[np.int64],
    gains: NDArray[np.float64],
    bits: NDArray[np.float64],
    entropy: NDArray[np.float64],
) -> None:
    """Move a histogram along every row of a volume (z, y, x); H = log2 n - sum(h log2 h) / n is kept up to date."""
    depth, rows, columns = gray.shape
    reach = chords[:, 2].max()
    histogram = np.zeros(256, np.int64)
    for z in range(depth):
        for y in range(rows):
            histogram[:] = 0
            weighted, n = 0.0, 0  # sum of h log2 h, and pixels in the neighborhood
            for x in range(-reach, columns):
                for chord in range(len(chords)):
                    other_z, other_y, half = z + chords[chord, 0], y + chords[chord, 1], chords[chord, 2]
                    if other_z < 0 or other_z >= depth or other_y < 0 or other_y >= rows:
                        continue
                    enters, leaves = x + half, x - half - 1
                    if 0 <= enters < columns:
                        level = gray[other_z, other_y, enters]
                        weighted += gains[histogram[level]]
                        histogram[level] += 1
                        n += 1
                    if leaves >= 0:
                        level = gray[other_z, other_y, leaves]
                        histogram[level] -= 1
                        weighted -= gains[histogram[level]]
                        n -= 1
                if x >= 0:
                    entropy[z, y, x] = max(bits[n] - weighted / n, 0.0)


@cache
def _compiled() -> Callable[..., Any]:
    """The loop in machine code. It is not cached on disk: an installation may be read-only."""
    try:
        from numba import njit
    except ImportError as error:
        raise ImportError("backend='numba' needs numba: pip install 'monai-medclip[numba]'") from error
    return njit(_slide, nogil=True)


def _counts(marked: Tensor, chords: list[list[int]], radius: int) -> Tensor:
    """How many pixels within the radius are marked: (B, L, z, y, x) bool -> integers."""
    *_, depth, rows, columns = marked.shape
    margin = radius if any(z for z, _, _ in chords) else 0
    padded = F.pad(marked.int(), (radius + 1, radius, radius, radius, margin, margin))
    running = padded.cumsum(-1, dtype=torch.int32)  # the count of a chord is a difference of two of these
    counts = torch.zeros_like(marked, dtype=torch.int32)
    for z, y, half in chords:
        line = running[..., margin + z :, radius + y :, :][..., :depth, :rows, :]
        counts += line[..., radius + half + 1 :][..., :columns] - line[..., radius - half :][..., :columns]
    return counts
