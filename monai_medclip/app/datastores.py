"""MONAI Label's datastores behind this server: every id checked, and series fetched whole, one at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import RLock
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore

from monai_medclip.app.ids import check_id

__all__ = ["guarded"]


class CheckedIds:
    """Before a datastore of MONAI Label, which joins any id to its folders: what is no plain name is refused."""

    def get_image_uri(self, image_id: str) -> str:
        return super().get_image_uri(check_id(image_id))  # type: ignore[misc]  # a mixin, as below

    def add_image(self, image_id: str, image_filename: str, image_info: Any) -> str:
        if image_id:
            check_id(image_id)
        return super().add_image(image_id, image_filename, image_info)  # type: ignore[misc]

    def remove_image(self, image_id: str) -> None:
        super().remove_image(check_id(image_id))  # type: ignore[misc]

    def get_label_uri(self, label_id: str, label_tag: str, *rest: Any, **named: Any) -> str:
        check_id(label_tag, "label tag")
        return super().get_label_uri(check_id(label_id, "label id"), label_tag, *rest, **named)  # type: ignore[misc]

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Any, *rest: Any, **named: Any
    ) -> str:
        check_id(label_tag, "label tag")
        check_id(image_id)
        return super().save_label(image_id, label_filename, label_tag, label_info, *rest, **named)  # type: ignore[misc]

    def remove_label(self, label_id: str, label_tag: str) -> None:
        check_id(label_tag, "label tag")
        super().remove_label(check_id(label_id, "label id"), label_tag)  # type: ignore[misc]


class WholeSeries:
    """Before a DICOMweb datastore, which was made to be asked by one thread at a time.

    It takes a folder with one file in it for a whole series, and hands a temporary NIfTI out when it fetches a series
    for the first time, from its cache later on.
    """

    _one_at_a_time: RLock

    def get_image_uri(self, image_id: str) -> str:
        with self._one_at_a_time:
            folder = Path(self._datastore.image_path()) / image_id  # type: ignore[attr-defined]
            known = folder.is_dir()
            try:
                found = Path(super().get_image_uri(image_id))  # type: ignore[misc]
            except Exception:
                if not known:  # half a series is none
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            cached = folder.with_name(f"{folder.name}.nii.gz")
            if found.is_dir() or found.resolve() == cached.resolve() or not cached.is_file():
                return str(found)
            found.unlink(missing_ok=True)
            return str(cached)

    def list_images(self) -> list[str]:
        with self._one_at_a_time:
            return super().list_images()  # type: ignore[misc]

    def get_labeled_images(self, *rest: Any, **named: Any) -> list[str]:
        with self._one_at_a_time:
            return super().get_labeled_images(*rest, **named)  # type: ignore[misc]


def guarded(datastore: Any, *mixins: type) -> Any:
    """The same datastore, whichever MONAI Label has built, with every id checked first.

    Args:
        datastore: as MONAI Label's app makes it, from the settings that only it knows.
        mixins: what else comes before its own methods.
    """
    kind = type(datastore)
    if isinstance(datastore, DICOMWebDatastore):
        mixins, datastore._one_at_a_time = (*mixins, WholeSeries), RLock()
    datastore.__class__ = type(f"Checked{kind.__name__}", (CheckedIds, *mixins, kind), {})
    return datastore
