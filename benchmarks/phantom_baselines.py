"""How hard the phantom is: what models that see no anatomy reach on it, and how large its focal lesions are.

python benchmarks/phantom_baselines.py --patients 5600 --test 600
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from monai_medclip.audits import pixel_baselines
from monai_medclip.data.phantom_lesions import FINDING_NAMES, FOCAL
from monai_medclip.data.phantom_patient import PhantomPatient


def _case(index: int, *, seed: int, image_size: int) -> tuple[np.ndarray, list[bool], list[float]]:
    """8-bit image, labels (F,), and the share of the image that each focal lesion covers."""
    patient = PhantomPatient(seed, index)
    xray = patient.xray(image_size)
    present = {lesion.finding for lesion in patient.findings}
    areas = [float(mask.mean()) for finding, mask in xray.masks.items() if finding in FOCAL]
    return (xray.image * 255).round().astype(np.uint8), [name in present for name in FINDING_NAMES], areas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=5600)
    parser.add_argument("--test", type=int, default=600, help="the last patients, held out")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    case = partial(_case, seed=options.seed, image_size=options.image_size)
    with ProcessPoolExecutor(options.workers) as pool:
        images, labels, areas = zip(*pool.map(case, range(options.patients), chunksize=50), strict=True)
    cut, truth = options.patients - options.test, np.asarray(labels, float)
    print(pixel_baselines(images[:cut], truth[:cut], images[cut:], truth[cut:], names=FINDING_NAMES))
    print(f"median area of focal lesions: {100 * float(np.median(np.concatenate(areas))):.2f} % of the image")


if __name__ == "__main__":
    main()
