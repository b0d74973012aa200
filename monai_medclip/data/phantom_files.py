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

from monai_medclip.data.phantom_ct import CT
from monai_medclip.data.phantom_dicom import phantom_uid, write_ct_series, write_dx
from monai_medclip.data.phantom_lesions import FOCAL
from monai_medclip.data.phantom_patient import PhantomPatient
from monai_medclip.data.phantom_xray import XRay

__all__ = ["CaseRows", "write_case", "write_image"]

Row = dict[str, Any]
_GRAY_LEVELS = 4095


class CaseRows(NamedTuple):
    """Rows for manifest.csv, masks.csv and boxes.csv."""

    images: list[Row]
    masks: list[Row]
    boxes: list[Row]


class _Study(NamedTuple):
    """One imaging study to write, and how."""

    patient: PhantomPatient
    without: tuple[str, ...]
    spec: Mapping[str, Any]

    @property
    def patient_id(self) -> str:
        return f"phantom{self.patient.seed}_{self.patient.index:06d}"

    @property
    def name(self) -> str:
        return self.patient_id + ("_healthy" if self.without else "")

    @property
    def place(self) -> str:
        """A sub-folder per thousand patients."""
        return f"{self.patient.index // 1000:03d}"

    @property
    def sex(self) -> str:
        return "F" if self.patient.anatomy.female else "M"

    @property
    def uid_of(self) -> tuple[object, ...]:
        size = (self.spec["image_size"], *([self.spec["slices"]] if self.spec["slices"] else []))
        return (self.patient.seed, self.patient.index, self.spec["modality"], *size, self.without)

    @property
    def monochrome1(self) -> bool:
        draw = np.random.default_rng([self.patient.seed, self.patient.index, 50]).random()
        return bool(draw < self.spec["monochrome1"])


def write_case(folder: Path, spec: Mapping[str, Any], index: int, split: str) -> CaseRows:
    """Write patient ``index`` and, if the phantom has counterfactuals, the same patient without any finding."""
    patient = PhantomPatient(spec["seed"], index)
    rows = CaseRows([], [], [])
    _write(folder, _Study(patient, (), spec), split, rows)
    if spec["counterfactuals"] and patient.findings:
        everything = tuple(lesion.finding for lesion in patient.findings)
        _write(folder, _Study(patient, everything, spec), split, rows)
    return rows


def write_image(folder: Path, spec: Mapping[str, Any], index: int, without: tuple[str, ...] = ()) -> Path:
    """Write the image of patient ``index`` alone, without some of the findings.

    Args:
        folder: where; need not be the phantom's own.
        spec: the phantom's parameters, as its ``phantom.json`` has them.
        index: which patient.
        without: findings to leave out; everything else is drawn alike.

    Returns:
        The file, or the folder of a DICOM series.
    """
    return folder / _write_image(folder, _Study(PhantomPatient(spec["seed"], index), without, spec))[0]


def _write_image(folder: Path, study: _Study) -> tuple[str, XRay | CT]:
    """File, relative to the folder, and what was drawn."""
    if study.spec["modality"] == "DX":
        xray = study.patient.xray(study.spec["image_size"], study.without)
        return _write_xray(folder, study, xray), xray
    ct = _ct(study)
    return _write_ct(folder, study, ct), ct


def _write(folder: Path, study: _Study, split: str, rows: CaseRows) -> None:
    file, image = _write_image(folder, study)
    for label, mask in image.masks.items():
        rows.masks.append(_mask_row(folder, study, label, mask, image))
        if label in FOCAL and mask.ndim == 2 and mask.any():
            rows.boxes.append(_box_row(study.name, label, mask))
    rows.images.append(_image_row(study, split, file, image))


def _ct(study: _Study) -> CT:
    size = study.spec["image_size"]
    return study.patient.ct((study.spec["slices"] or size // 2, size, size), study.without)


def _image_row(study: _Study, split: str, file: str, image: XRay | CT) -> Row:
    lesions = [lesion for lesion in study.patient.findings if lesion.finding not in study.without]
    findings = [
        {"name": lesion.finding, "side": lesion.side, "zone": lesion.zone, "size_mm": round(lesion.size_mm, 1)}
        for lesion in lesions
    ]
    spacing = [image.spacing_mm] * 2 if isinstance(image, XRay) else image.spacing_mm
    meta = {"spacing_mm": [round(mm, 4) for mm in spacing], "sex": study.sex, "findings": findings}
    radiograph = isinstance(image, XRay)
    return {
        "id": study.name,
        "source": "phantom",
        "file": file,
        "dim": "2d" if radiograph else "3d",
        "modality": study.spec["modality"],
        "view": "PA" if radiograph else "axial",
        "patient_id": study.patient_id,
        "study_id": phantom_uid(*study.uid_of),
        "split": split,
        "labels": ";".join(lesion.finding for lesion in lesions) or "normal",
        "text": study.patient.report_without(study.without),
        "text_kind": "generated",
        "counterfactual_of": study.patient_id if study.without else "",
        "width": study.spec["image_size"],
        "height": study.spec["image_size"],
        "meta": json.dumps(meta),
    }


def _write_xray(folder: Path, study: _Study, xray: XRay) -> str:
    (folder / "images" / study.place).mkdir(parents=True, exist_ok=True)
    file = f"images/{study.place}/{study.name}"
    if study.spec["file_format"] == "nifti":
        gray = np.rint(xray.image * _GRAY_LEVELS).astype(np.int16)
        _write_nifti(folder / f"{file}.nii.gz", gray.T, np.diag([-xray.spacing_mm, -xray.spacing_mm, 1, 1]))
        return f"{file}.nii.gz"
    write_dx(
        folder / f"{file}.dcm",
        xray.image,
        patient_id=study.patient_id,
        sex=study.sex,
        spacing_mm=xray.spacing_mm,
        study=study.uid_of,
        monochrome1=study.monochrome1,
    )
    return f"{file}.dcm"


def _write_ct(folder: Path, study: _Study, ct: CT) -> str:
    file = f"images/{study.place}/{study.name}"
    if study.spec["file_format"] == "nifti":
        (folder / "images" / study.place).mkdir(parents=True, exist_ok=True)
        _write_nifti(folder / f"{file}.nii.gz", np.rint(ct.volume).astype(np.int16).T, _affine(ct))
        return f"{file}.nii.gz"
    write_ct_series(
        folder / file,
        ct.volume,
        patient_id=study.patient_id,
        sex=study.sex,
        spacing_mm=ct.spacing_mm,
        origin_mm=ct.origin_mm,
        study=study.uid_of,
    )
    return file


def _affine(ct: CT) -> NDArray[np.float64]:
    """From voxel (column, row, slice) to (right, front, head) mm: all three run the other way."""
    affine = np.diag([-ct.spacing_mm[2], -ct.spacing_mm[1], -ct.spacing_mm[0], 1.0])
    affine[:3, 3] = -ct.origin_mm[0], -ct.origin_mm[1], ct.origin_mm[2]
    return affine


def _write_nifti(path: Path, array: NDArray[Any], affine: NDArray[Any]) -> None:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _mask_row(folder: Path, study: _Study, label: str, mask: NDArray[np.bool_], image: XRay | CT) -> Row:
    (folder / "masks" / study.place).mkdir(parents=True, exist_ok=True)
    file = f"masks/{study.place}/{study.name}_{label.replace(' ', '_')}"
    if isinstance(image, XRay):
        file += ".png"
        Image.fromarray(mask).save(folder / file, compress_level=1)
    else:
        file += ".nii.gz"
        _write_nifti(folder / file, mask.astype(np.uint8).T, _affine(image))
    return {"id": study.name, "label": label, "file": file, "area_frac": round(float(mask.mean()), 6)}


def _box_row(name: str, label: str, mask: NDArray[np.bool_]) -> Row:
    """Half-open box in pixels: x0 <= column < x1, y0 <= row < y1."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = {"x0": int(columns[0]), "y0": int(rows[0]), "x1": int(columns[-1]) + 1, "y1": int(rows[-1]) + 1}
    return {"id": name, "label": label, **corners, "kind": "derived_from_mask"}
