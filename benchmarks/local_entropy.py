"""Local entropy of an 8-bit image: CPU time of each backend beside skimage's `rank.entropy`, and how far they differ.

    python benchmarks/local_entropy.py [--size 224] [--radius 5] [--rounds 15] [--volume 32]

Three images, since the time of a histogram depends on what is in it: noise of all gray levels, smooth noise (closest to
an X-ray), and a volume of smooth noise. One thread; process CPU time, median over rounds in which the backends take
turns. numba compiles before the clock starts; what that takes is printed.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_medclip.explainers.entropy import local_entropy

BACKENDS = ("skimage", "numba", "torch")
GOAL = 0.15


def smooth(shape: tuple[int, ...], sigma: float) -> Tensor:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), sigma)
    return torch.from_numpy(((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8))[None]


def cpu_seconds(gray: Tensor, radius: int, backend: str) -> float:
    start = time.process_time()
    local_entropy(gray, radius, backend=backend)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--volume", type=int, default=32)
    parser.add_argument("--radius", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    square, cube = (options.size,) * 2, (options.volume,) * 3
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, square).astype(np.uint8))[None]
    images = {"noise": noise, "smooth": smooth(square, 4.0), "smooth volume": smooth(cube, 2.0)}
    print(f"numba compiles in {cpu_seconds(noise[:, :8, :8], 1, 'numba'):.1f} CPU s, once per process\n")
    for name, gray in images.items():
        theirs = local_entropy(gray, options.radius, backend="skimage")
        seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        for _ in range(options.rounds if gray.ndim == 3 else 3):
            for backend in BACKENDS:
                seconds[backend].append(cpu_seconds(gray, options.radius, backend))
        for backend in BACKENDS:
            ours = local_entropy(gray, options.radius, backend=backend).double()
            ratio = median(seconds[backend]) / median(seconds["skimage"])
            goal = f"goal {GOAL}" if backend == "numba" and gray.ndim == 3 else ""
            spent = f"{1000 * median(seconds[backend]):9.1f} CPU ms  ratio {ratio:7.3f}"
            print(f"{name:14s} {backend:8s} {spent}  off by {(ours - theirs).abs().max():.1e}  {goal}")


if __name__ == "__main__":
    main()
