"""Under which ids a server may have a volume already: by a script, the MONAI Label module, or DICOM."""

from __future__ import annotations

from typing import Any

import slicer

__all__ = ["IMAGE_ID_ATTRIBUTE", "candidate_ids"]

IMAGE_ID_ATTRIBUTE = "MedCLIP.ImageId"  # of a volume whose id in the server's datastore a script knows
_SERIES_INSTANCE_UID = "0020,000E"


def candidate_ids(volume: Any, address: str) -> list[str]:
    """Ids to try, the surest first.

    Args:
        volume: vtkMRMLScalarVolumeNode.
        address: of the server, without a slash at the end.
    """
    ids = (volume.GetAttribute(IMAGE_ID_ATTRIBUTE), _stock_id(volume, address), _series_uid(volume))
    return [image_id for image_id in ids if image_id]


def _stock_id(volume: Any, address: str) -> str:
    """The id of a volume that the MONAI Label module has fetched from the same server; "" if it has not.

    That module keeps ids in its widget, by the volume's name, and no word of them in the scene.
    """
    stock = getattr(getattr(slicer, "modules", None), "MONAILabelWidget", None)
    server = getattr(getattr(stock, "logic", None), "server_url", None) or ""
    if server.rstrip("/") != address:
        return ""
    samples = [sample for sample in stock.samples.values() if not sample.get("session")]
    named = [sample["id"] for sample in samples if sample.get("VolumeNodeName") == volume.GetName()]
    return str(named[0]) if len(named) == 1 else ""  # two of one name: better send it than take the wrong one


def _series_uid(volume: Any) -> str:
    """What servers of a DICOM archive call a volume that Slicer has read from its DICOM database; "" for others."""
    instances = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    return str(database.instanceValue(instances[0], _SERIES_INSTANCE_UID)) if instances and database else ""
