"""One phantom patient's files: image, masks, boxes, report, and the manifest rows that name them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from monai_medclip.data.phantom_dicom import phantom_uid, write_dx
from monai_medclip.data.phantom_lesions import FOCAL
from monai_medclip.data.phantom_patient import PhantomPatient

__all__ = ["CaseRows", "write_case"]

Row = dict[str, Any]


class CaseRows(NamedTuple):
    """Rows for manifest.csv, masks.csv and boxes.csv."""

    images: list[Row]
    masks: list[Row]
    boxes: list[Row]


def write_case(folder: Path, spec: Mapping[str, Any], index: int, split: str) -> CaseRows:
    """Write patient ``index`` and, if asked for, the same patient without any finding."""
    patient = PhantomPatient(spec["seed"], index)
    rows = CaseRows([], [], [])
    _write(folder, spec, patient, split, (), rows)
    if spec["counterfactuals"] and patient.findings:
        everything = tuple(lesion.finding for lesion in patient.findings)
        _write(folder, spec, patient, split, everything, rows)
    return rows


def _write(
    folder: Path, spec: Mapping[str, Any], patient: PhantomPatient, split: str, without: tuple[str, ...], rows: CaseRows
) -> None:
    case = f"phantom{spec['seed']}_{patient.index:06d}"
    name = f"{case}_healthy" if without else case
    place = f"{patient.index // 1000:03d}"
    lesions = [lesion for lesion in patient.findings if lesion.finding not in without]
    study = (spec["seed"], patient.index, spec["modality"], spec["image_size"], without)
    image = _write_xray if spec["modality"] == "DX" else _write_ct
    file, meta, masks = image(folder, place, name, spec, patient, without, study)
    for label, mask in masks.items():
        rows.masks.append(_mask_row(folder, place, name, label, mask))
        if label in FOCAL and mask.ndim == 2 and mask.any():
            rows.boxes.append(_box_row(name, label, mask))
    meta |= {
        "findings": [
            {"name": x.finding, "side": x.side, "zone": x.zone, "size_mm": round(x.size_mm, 1)} for x in lesions
        ]
    }
    rows.images.append(
        {
            "id": name,
            "source": "phantom",
            "file": file,
            "dim": "2d" if spec["modality"] == "DX" else "3d",
            "modality": spec["modality"],
            "view": "PA" if spec["modality"] == "DX" else "axial",
            "patient_id": case,
            "study_id": phantom_uid(*study),
            "split": split,
            "labels": ";".join(x.finding for x in lesions) or "normal",
            "text": patient.report_without(without),
            "text_kind": "generated",
            "counterfactual_of": case if without else "",
            "width": spec["image_size"],
            "height": spec["image_size"],
            "meta": json.dumps(meta),
        }
    )


def _write_xray(
    folder: Path,
    place: str,
    name: str,
    spec: Mapping[str, Any],
    patient: PhantomPatient,
    without: tuple[str, ...],
    study: Any,
) -> tuple[str, Row, dict[str, NDArray[np.bool_]]]:
    xray = patient.xray(spec["image_size"], without)
    (folder / "images" / place).mkdir(parents=True, exist_ok=True)
    sex = "F" if patient.anatomy.female else "M"
    inverted = bool(np.random.default_rng([spec["seed"], patient.index, 50]).random() < spec["monochrome1"])
    file = f"images/{place}/{name}" + (".dcm" if spec["file_format"] == "dicom" else ".nii.gz")
    if spec["file_format"] == "dicom":
        write_dx(
            folder / file,
            xray.image,
            patient_id=name.removesuffix("_healthy"),
            sex=sex,
            spacing_mm=xray.spacing_mm,
            study=study,
            monochrome1=inverted,
        )
    else:
        _write_nifti(folder / file, (xray.image * 4095).round().astype(np.int16).T[:, :, None], (xray.spacing_mm,) * 3)
    return file, {"spacing_mm": round(xray.spacing_mm, 4), "sex": sex}, xray.masks


def _write_ct(
    folder: Path,
    place: str,
    name: str,
    spec: Mapping[str, Any],
    patient: PhantomPatient,
    without: tuple[str, ...],
    study: Any,
) -> tuple[str, Row, dict[str, NDArray[np.bool_]]]:
    raise ValueError("CT")


def _write_nifti(path: Path, array: NDArray[Any], spacing_mm: tuple[float, float, float]) -> None:
    """Write (x, y, z) voxels whose axes run to the patient's left, back and feet (LPI)."""
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], -spacing_mm[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _mask_row(folder: Path, place: str, name: str, label: str, mask: NDArray[np.bool_]) -> Row:
    (folder / "masks" / place).mkdir(parents=True, exist_ok=True)
    file = f"masks/{place}/{name}_{label.replace(' ', '_')}" + (".png" if mask.ndim == 2 else ".nii.gz")
    if mask.ndim == 2:
        Image.fromarray(mask).save(folder / file, compress_level=1)
    return {"id": name, "label": label, "file": file, "area_frac": round(float(mask.mean()), 6)}


def _box_row(name: str, label: str, mask: NDArray[np.bool_]) -> Row:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = {"x0": int(columns[0]), "y0": int(rows[0]), "x1": int(columns[-1]) + 1, "y1": int(rows[-1]) + 1}
    return {"id": name, "label": label, **corners, "kind": "derived_from_mask"}
