"""Raw maps on the scanner's own grid, as NIfTI and NPY: native shape, native affine, values as they were computed."""

from __future__ import annotations

import gzip
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.transforms import Invertd, InvertibleTransform
from monai.utils import MetaKeys, SpaceKeys

from monai_medclip.files import atomic_write
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.saving import write_whole

__all__ = ["MapFiles", "scanner_maps", "write_maps", "write_scanner_maps"]

_COMMENT = 6  # NIfTI-1 extension code for plain text
_COMPRESSION = 1  # of gzip's 9: a fifth of the time, for 4 % more bytes of a smooth map
_AFFINE_ATOL = 1e-3  # mm; MONAI's own inverses are exact to far less


class MapFiles(NamedTuple):
    """What `write_maps` wrote."""

    nifti: tuple[Path, ...]  # one volume per prompt, (x, y, z); z is 1 for a film
    npy: Path  # (F, x, y[, z]) float32
    sidecar: Path  # JSON: prompts, units, affine and intended use, which NPY cannot hold


def scanner_maps(heatmap: MetaTensor, transform: InvertibleTransform, *, key: str = "image") -> MetaTensor:
    """Maps back on the grid that the reader gave: crops, resizing, padding, flips and rotations are undone.

    Values are interpolated as the image was, not changed otherwise; where a crop left the image out they are 0.

    Args:
        heatmap: one image's maps (F, *spatial), with the image's ``meta`` and ``applied_operations``.
        transform: the pipeline that made the image, as MONAI's `Invertd` wants it.
        key: the image's key in that pipeline.

    Returns:
        maps (F, x, y[, z]) with the native affine; the heatmap's own memory where nothing was resampled.

    Raises:
        TypeError: the heatmap is a plain tensor, whose history is lost.
        ValueError: it is a batch, has no history, or the way back does not end on the native grid.
    """
    if not isinstance(heatmap, MetaTensor):
        raise TypeError(
            "a plain tensor does not know its image's grid, and Invertd would ignore it: make the heatmap with "
            "HeatmapInferer from a MetaTensor image."
        )
    if heatmap.is_batch:
        raise ValueError(
            f"the heatmap {tuple(heatmap.shape)} is a batch: use decollate_batch, then one item at a time."
        )
    native = MetaTensor(heatmap.as_tensor()).copy_meta_from(heatmap)  # a history of its own, over the same values
    if heatmap.applied_operations:  # without any, a pipeline's inverse would look for them in vain
        item = {"heatmap": native, key: heatmap}
        native = Invertd("heatmap", transform=transform, orig_keys=key, nearest_interp=False)(item)["heatmap"]
    elif MetaKeys.SPATIAL_SHAPE not in heatmap.meta:
        raise ValueError(
            "the heatmap has lost its image's history: make it with HeatmapInferer from a MetaTensor image."
        )
    _check_native(native)
    return native


def write_maps(
    folder: str | os.PathLike[str],
    maps: MetaTensor,
    prompts: Sequence[str],
    *,
    method: str,
    units: str = "logit",
    stem: str = "heatmap",
) -> MapFiles:
    """Writes maps as NIfTI (one volume per prompt, RAS, mm) and all of them as NPY with a JSON sidecar.

    Args:
        folder: made if missing.
        maps: (F, x, y[, z]), raw, on the scanner's grid, as `scanner_maps` gives them.
        prompts: F questions.
        method: the explainer's name.
        units: of the maps.
        stem: how file names begin: ``STEM_01_pleural-effusion.nii.gz``, ``STEM.npy``, ``STEM.json``.

    Raises:
        ValueError: maps and prompts are not equally many.
    """
    _check_prompts(maps, prompts)
    return _write(folder, iter(maps.split(1)), prompts, {"method": method, "units": units}, stem)


def write_scanner_maps(
    folder: str | os.PathLike[str],
    heatmap: MetaTensor,
    transform: InvertibleTransform,
    prompts: Sequence[str],
    *,
    method: str,
    units: str = "logit",
    stem: str = "heatmap",
    key: str = "image",
) -> MapFiles:
    """`scanner_maps`, then `write_maps`, prompt by prompt: memory holds one map of the scanner's grid, however many.

    Args:
        folder, prompts, method, units, stem: see `write_maps`.
        heatmap, transform, key: see `scanner_maps`.

    Raises:
        TypeError, ValueError: as those two.
    """
    _check_prompts(heatmap, prompts)
    native = (scanner_maps(heatmap[index : index + 1], transform, key=key) for index in range(len(prompts)))
    return _write(folder, native, prompts, {"method": method, "units": units}, stem)


def _check_prompts(maps: MetaTensor, prompts: Sequence[str]) -> None:
    if not prompts or len(maps) != len(prompts):
        raise ValueError(f"{len(maps)} maps for {len(prompts)} prompts: give one of each, and at least one.")


def _write(
    folder: str | os.PathLike[str], maps: Iterator[MetaTensor], prompts: Sequence[str], says: dict[str, Any], stem: str
) -> MapFiles:
    """Maps (1, x, y[, z]) as they come, each into its own NIfTI and all into one NPY."""
    folder = Path(folder)
    about: dict[str, Any] = {"intended_use": RESEARCH_USE, **says, "scaling": "raw"}
    nifti = [folder / f"{stem}_{index:02d}_{slug(prompt)}.nii.gz" for index, prompt in enumerate(prompts, start=1)]
    with atomic_write(folder / f"{stem}.npy") as file, file.open("wb") as npy:
        for path, prompt in zip(nifti, prompts, strict=True):  # no name for a map here: it would outlive its turn
            shape, affine = _write_one(path, next(maps), npy, len(prompts), {**about, "prompt": prompt})
    about |= {"prompts": list(prompts), "axes": ["prompt", "x", "y", "z"][: len(shape)]}
    about |= {"shape": list(shape), "affine_ras_mm": affine.tolist(), "nifti": [path.name for path in nifti]}
    sidecar = write_whole(folder / f"{stem}.json", (json.dumps(about, indent=2) + "\n").encode())
    return MapFiles(tuple(nifti), folder / f"{stem}.npy", sidecar)


def _write_one(
    path: Path, one: MetaTensor, npy: IO[bytes], count: int, about: dict[str, Any]
) -> tuple[tuple[int, ...], np.ndarray]:
    """One map (1, x, y[, z]) into its NIfTI, and into an NPY of so many: the shape of that, and the affine in RAS."""
    affine, values = ras_affine(one), one.detach().cpu().float().as_tensor().numpy()[0]  # (x, y[, z])
    shape = (count, *values.shape)
    if npy.tell() == 0:
        np.lib.format.write_array_header_1_0(npy, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for part in values:  # plane by plane: turned axes are put in order without a copy of the whole
        npy.write(part.astype("<f4", copy=False).tobytes())
    _write_nifti(path, values, affine, about)
    return shape, affine


def ras_affine(maps: MetaTensor) -> np.ndarray:
    """Affine (4, 4) from voxel indices to RAS in mm, whatever the reader's convention and number of axes."""
    affine = np.asarray(maps.affine.cpu(), dtype=float)
    affine = to_affine_nd(3, affine)
    return orientation_ras_lps(affine) if maps.meta.get(MetaKeys.SPACE) == SpaceKeys.LPS else affine


def _check_native(native: MetaTensor) -> None:
    """Compare with what the reader recorded of the file, as far as it did."""
    shape, found = native.meta.get(MetaKeys.SPATIAL_SHAPE), tuple(native.shape[1:])
    wanted = None if shape is None else tuple(int(n) for n in np.asarray(shape).ravel())
    remedy = "Give the whole pipeline that made the image, with invertible transforms only."
    if native.applied_operations or (wanted is not None and wanted != found):
        left = [operation["class"] for operation in native.applied_operations]
        raise ValueError(f"the maps came back as {found}, the image was read as {wanted}; left over: {left}. {remedy}")
    affine = native.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if affine is not None:
        original = to_affine_nd(3, np.asarray(affine, dtype=float))
        back = to_affine_nd(3, np.asarray(native.affine.cpu(), dtype=float))
        if not np.allclose(back, original, atol=_AFFINE_ATOL):
            raise ValueError(f"the maps came back at {back.tolist()}, the image lies at {original.tolist()}. {remedy}")


def _write_nifti(path: Path, values: np.ndarray, affine: np.ndarray, about: dict[str, Any]) -> None:
    """One map (x, y[, z]) as a compressed NIfTI-1 file that says what it is.

    A quaternion has no shear: of a tilted gantry's series it would put the map elsewhere than the sform, so such a file
    has the sform alone.
    """
    image = nib.Nifti1Image(values if values.ndim == 3 else values[..., None], affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    if not np.allclose(image.get_qform(), affine, atol=_AFFINE_ATOL):
        image.set_qform(None, code="unknown")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = RESEARCH_USE.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, json.dumps(about).encode()))
    with (
        atomic_write(path) as file,
        file.open("wb") as raw,
        # No name and no time of day: equal maps make equal files.
        gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as stream,
    ):
        # Smooth values repeat nothing but zeros: to look for runs alone takes a third of the time, for 3 % more bytes.
        stream.compress = zlib.compressobj(_COMPRESSION, wbits=-zlib.MAX_WBITS, strategy=zlib.Z_RLE)
        image.to_stream(stream)


def slug(prompt: str) -> str:
    """A file name's worth of a prompt: ASCII letters and digits, at most 40."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()  # accents go, letters stay
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:40].strip("-") or "prompt"
