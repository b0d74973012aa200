"""How long the phantom takes: seconds of wall clock and of processor for N patients, written as DICOM.

python benchmarks/phantom_speed.py --patients 500 --image-size 224 --workers 2
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

from monai_medclip.data import make_phantom


def _cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--modality", choices=("DX", "CT"), default="DX")
    parser.add_argument("--file-format", choices=("dicom", "nifti"), default="dicom")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="phantom_"))
    wall, cpu = time.perf_counter(), _cpu_seconds()
    make_phantom(
        folder,
        patients=options.patients,
        image_size=options.image_size,
        modality=options.modality,
        file_format=options.file_format,
        workers=options.workers,
        progress=False,
    )
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    shutil.rmtree(folder)
    each = 1000 * cpu / options.patients
    done = f"{options.patients} patients, {options.image_size} px, {options.modality}, {options.file_format}"
    spent = f"{wall:.1f} s wall, {cpu:.1f} s processor ({each:.1f} ms each)"
    print(f"{done}: {spent}, {size_mb:.1f} MiB, {options.workers} workers")


if __name__ == "__main__":
    main()
