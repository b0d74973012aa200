"""Datastores of MONAI Label that the tests write findings into: a folder of radiographs, and a watched archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore

from monai_medclip.app.datastores import guarded
from monai_medclip.app.labels import FindingsLabels
from monai_medclip.data import PhantomPatient
from monai_medclip.data.phantom_dicom import write_dx

FOLDER_EXTENSIONS = ("*.nii.gz", "*.png", "*.dcm")
SERIES = ("1.2.3.1", "1.2.3.2", "1.2.3.3")


def folder_of_images(folder: Path, images: int, *, per_patient: int = 1) -> Path:
    """DICOM files x000.dcm, x001.dcm, ...; `per_patient` of them in a row are of one PatientID."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        image = PhantomPatient(0, number).xray(64).image
        patient = f"Plantagenet{number // per_patient}"
        write_dx(
            folder / f"x{number:03d}.dcm", image, patient_id=patient, sex="F", spacing_mm=5.0, study=("dx", number)
        )
    return folder


def local_store(folder: Path, *mixins: type) -> Any:
    """As `monailabel start_server --studies folder` opens it, without its watching threads."""
    return guarded(LocalDatastore(str(folder), extensions=FOLDER_EXTENSIONS), *mixins)


def archive_store(folder: Path, series: Sequence[str] = SERIES) -> Any:
    """A DICOMweb datastore whose archive lists series and breaks when anything is stored."""
    found = [{"0020000E": {"vr": "UI", "Value": [uid]}} for uid in series]

    def search(search_filters: dict[str, Any]) -> list[dict[str, Any]]:
        return [] if search_filters.get("Modality") == "SEG" else found

    def store(*given: Any, **named: Any) -> None:
        raise AssertionError("something was pushed to the archive")

    client = SimpleNamespace(base_url=f"http://{folder.name}", search_for_series=search, store_instances=store)
    datastore = DICOMWebDatastore(client, {"Modality": "DX"}, cache_path=str(folder), convert_to_nifti=False)
    datastore._observer.stop()
    return guarded(datastore, FindingsLabels)
