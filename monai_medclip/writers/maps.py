"""Raw maps on the scanner's own grid, as NIfTI and NPY: native shape, native affine, values as they were computed."""

from __future__ import annotations

import gzip
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps, to_affine_nd
from monai.transforms import Invertd, InvertibleTransform
from monai.utils import MetaKeys, SpaceKeys

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.saving import write_whole

__all__ = ["MapFiles", "scanner_maps", "write_maps"]

_COMMENT = 6  # NIfTI-1 extension code for plain text
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
        maps (F, x, y[, z]) with the native affine.

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
    native = heatmap.clone()
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
    if len(maps) != len(prompts):
        raise ValueError(f"{len(maps)} maps for {len(prompts)} prompts: give one of each.")
    folder, affine = Path(folder), ras_affine(maps)
    values = maps.detach().cpu().float().as_tensor().numpy()  # (F, x, y[, z])
    about: dict[str, Any] = {"intended_use": RESEARCH_USE, "method": method, "units": units, "scaling": "raw"}
    nifti = []
    for index, (prompt, map_) in enumerate(zip(prompts, values), start=1):
        content = _nifti(map_, affine, {**about, "prompt": prompt})
        nifti.append(write_whole(folder / f"{stem}_{index:02d}_{_slug(prompt)}.nii.gz", content))
    stream = BytesIO()
    np.save(stream, values)
    npy = write_whole(folder / f"{stem}.npy", stream.getvalue())
    about |= {"prompts": list(prompts), "axes": ["prompt", "x", "y", "z"][: values.ndim]}
    about |= {"shape": list(values.shape), "affine_ras_mm": affine.tolist(), "nifti": [file.name for file in nifti]}
    sidecar = write_whole(folder / f"{stem}.json", (json.dumps(about, indent=2) + "\n").encode())
    return MapFiles(tuple(nifti), npy, sidecar)


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


def _nifti(values: np.ndarray, affine: np.ndarray, about: dict[str, Any]) -> bytes:
    """One map (x, y[, z]) as a compressed NIfTI-1 file that says what it is."""
    image = nib.Nifti1Image(values if values.ndim == 3 else values[..., None], affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = RESEARCH_USE.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, json.dumps(about).encode()))
    return gzip.compress(image.to_bytes(), mtime=0)  # no time of day: equal maps make equal files


def _slug(prompt: str) -> str:
    """A file name's worth of a prompt: ASCII letters and digits, at most 40."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode()  # accents go, letters stay
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:40].strip("-") or "prompt"
