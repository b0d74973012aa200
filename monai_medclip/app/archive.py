"""Results as DICOM objects in the archive that the studies came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from monai_medclip.app.limits import Refused
from monai_medclip.engines import BundleModel, Heatmaps, dicom_statements
from monai_medclip.transforms.dicom import is_dicom
from monai_medclip.writers import dicom_results, dicom_source

__all__ = ["ARCHIVE_CHOICES", "Archive"]

# A pushed SEG marks its image as labeled, and active learning then skips it: segmentations are opt-in.
_KINDS = {
    "off": (),
    "store": ("parametric_map", "capture", "report"),
    "store with segmentation": ("parametric_map", "segmentation", "capture", "report"),
}
ARCHIVE_CHOICES = tuple(_KINDS)


class Archive:
    """Stores heatmaps in the DICOMweb archive of a datastore.

    Args:
        client: a ``DICOMwebClient``; None where the studies are local files.
    """

    def __init__(self, client: Any = None) -> None:
        """See the class."""
        self.client = client

    def store(
        self, model: BundleModel, found: Heatmaps, maps: MetaTensor, *, threshold: float, choice: str
    ) -> dict[str, Any]:
        """Store a heatmap's objects by STOW-RS.

        Args:
            model: that made it.
            found: the map and its score.
            maps: the same on the file's own grid.
            threshold: share of the maximum from which the picture is tinted.
            choice: one of `ARCHIVE_CHOICES`.

        Returns:
            ``stored``: SOP Instance UIDs; empty for ``off``.

        Raises:
            Refused: there is no archive, the image is no DICOM, or the archive does not take all objects.
        """
        if choice == "off":
            return {}
        if self.client is None:
            raise Refused("the studies are local files: archive='off', or start the server on a DICOMweb URL.", 400)
        if not is_dicom_study(found.study.path):
            raise Refused("the image is no DICOM: results can be stored for DICOM studies alone.", 400)
        study, scores = found.study, found.scores
        statements = dicom_statements(model, study, scores, method=found.method, threshold=threshold)
        objects = dicom_results(dicom_source(study.path), maps, statements, kinds=_KINDS[choice])
        try:
            reply = self.client.store_instances(objects)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors: no answer, or 4xx and 5xx
            raise Refused(
                f"the archive did not take the results ({type(error).__name__}): ask again later.", 502
            ) from error
        failed = reply.get("FailedSOPSequence") or []
        if failed:
            raise Refused(f"the archive refused {len(failed)} of {len(objects)} objects: ask its administrator.", 502)
        return {"stored": [str(one.SOPInstanceUID) for one in objects]}


def is_dicom_study(path: str | Path) -> bool:
    """Whether a path is a DICOM file or a folder of them."""
    path = Path(path)
    files = sorted(path.iterdir())[:1] if path.is_dir() else [path]
    return bool(files) and is_dicom(files[0])
