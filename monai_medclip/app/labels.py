"""What readers say is in an image: corrected findings, kept beside MONAI Label's own labels."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from monai_medclip.app.ids import check_id
from monai_medclip.engines import BundleModel
from monai_medclip.files import atomic_write

__all__ = [
    "FORMAT",
    "FindingsLabels",
    "ModelFacts",
    "ReaderFindings",
    "Readings",
    "accept_submission",
    "all_findings",
    "findings_in_markups",
    "read_findings",
    "save_findings",
    "unlabeled_images",
]

FORMAT, VERSION = "monai_medclip findings", 1
FINAL = DefaultLabelTag.FINAL.value
APART = "findings"  # beside the folders of MONAI Label's tags: a DICOMweb datastore deletes final labels without a SEG
_SUBMITTED = ".submitted"  # between a client's upload and `accept_submission`
_LARGEST = 1 << 20  # bytes of a label file


class ModelFacts(NamedTuple):
    """Which model's findings a reader looked at."""

    model: str
    model_version: str
    findings: tuple[str, ...]  # those that it knows

    @classmethod
    def of(cls, model: BundleModel) -> ModelFacts:
        """Those of an open bundle."""
        return cls(model.name, model.version, model.findings)


class ReaderFindings(NamedTuple):
    """What a reader says of one image."""

    image_id: str
    findings: dict[str, bool]  # present or absent; what is not in it is not said
    model: str  # that was looked at; "" where the file does not say
    model_version: str


class Readings(NamedTuple):
    """What readers say of all images of a datastore, in the order of their ids."""

    readings: tuple[ReaderFindings, ...]
    damaged: tuple[str, ...]  # one line per label that cannot be used, with its rule and remedy


def save_findings(datastore: Datastore, image_id: str, findings: Mapping[str, bool], facts: ModelFacts) -> Path:
    """Keep what a reader says; it replaces what was said before.

    In a folder of images it becomes the image's final label, unless that is a segmentation, which stays. Of an archive
    it stays in the datastore's local cache: a final label there is a DICOM SEG that is pushed, and findings have no
    voxels.

    Args:
        datastore: a folder of images or a DICOMweb archive.
        image_id: of an image in it.
        findings: present (True) or absent (False), at least one; those not named stay unknown.
        facts: of the model whose findings they are.

    Returns:
        The file, which appears whole or not at all.

    Raises:
        ValueError: findings that the model does not know, none, answers other than True and False, an unknown image,
            or another kind of datastore.
    """
    said = _checked(findings, facts.findings)
    path = _file(datastore, image_id)
    if isinstance(datastore, DICOMWebDatastore):
        if not image_id.replace(".", "").isdigit():
            raise ValueError(f"{image_id!r} is no SeriesInstanceUID: give one that GET /datastore lists.")
    elif image_id not in datastore.list_images():
        raise ValueError(f"there is no image {image_id!r}: give an id that GET /datastore lists.")
    else:
        _register(datastore, image_id, path)
    content = {"format": FORMAT, "version": VERSION, **facts._asdict(), "findings": said}
    with atomic_write(path) as file:
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def read_findings(datastore: Datastore, image_id: str, known: Sequence[str]) -> ReaderFindings | None:
    """What a reader says of an image; None where nobody has said anything.

    Args:
        datastore: as for `save_findings`.
        image_id: of an image in it.
        known: the model's findings, to read Slicer's points by.

    Raises:
        ValueError: a damaged file, or points that name no known finding.
    """
    path = _file(datastore, image_id)
    return _parsed(path, image_id, known) if path.is_file() else None


def all_findings(datastore: Datastore, known: Sequence[str]) -> Readings:
    """What readers say of every image.

    Args:
        datastore: as for `save_findings`.
        known: the model's findings.
    """
    found, damaged = [], []
    for image_id in _said_images(datastore):
        try:
            found.append(_parsed(_file(datastore, image_id), image_id, known))
        except ValueError as error:
            damaged.append(str(error))
    return Readings(tuple(found), tuple(damaged))


def unlabeled_images(datastore: Datastore) -> list[str]:
    """Images that have neither a final label nor findings, in the order of their ids."""
    return sorted(set(datastore.get_unlabeled_images()) - set(_said_images(datastore)))


def findings_in_markups(content: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    """Findings of a Slicer Markups document: those with a point are present, the others absent.

    Args:
        content: the parsed JSON. A label is a finding's name, and whatever follows it after a space, as in
            ``pleural effusion p=0.83``; a point without a position counts as deleted.
        known: all findings that had a point.

    Raises:
        ValueError: no markups at all, which cannot be told from a submission of nothing; or unknown names.
    """
    markups = content.get("markups")
    if not isinstance(markups, list) or not markups or not all(isinstance(one, dict) for one in markups):
        raise ValueError(
            "the markups are empty, which says nothing about the findings: 3D Slicer's MONAI Label module sends boxes "
            "only. Send the list of points, without those of absent findings."
        )
    points = [point for one in markups for point in one.get("controlPoints") or []]
    labels = [str(point.get("label", "")) for point in points if point.get("positionStatus", "defined") == "defined"]
    present = {label: _named(label, known) for label in labels}
    unknown = sorted(label for label, name in present.items() if name is None)
    if unknown:
        raise ValueError(_unknown(unknown, known))
    return {name: name in present.values() for name in known}


class FindingsLabels:
    """Before a datastore of MONAI Label: findings that a client submits wait for `accept_submission`.

    So an archive is not asked to take JSON for a segmentation, and a bad submission replaces no good one.
    """

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Any, *rest: Any, **named: Any
    ) -> str:
        """A final ``.json`` file waits; everything else goes to the datastore."""
        if not str(label_filename).endswith(".json") or label_tag != FINAL:
            _submitted(self, image_id).unlink(missing_ok=True)  # findings that nobody has checked are none
            return super().save_label(image_id, label_filename, label_tag, label_info, *rest, **named)  # type: ignore[misc]  # a mixin
        with atomic_write(_submitted(self, image_id)) as file:
            shutil.copyfile(label_filename, file)
        return image_id


def accept_submission(datastore: Datastore, image_id: str, facts: ModelFacts) -> ReaderFindings | None:
    """Check what a client has submitted by a `FindingsLabels` datastore, and keep it.

    Returns:
        The findings; None where none were submitted: the label is a segmentation.

    Raises:
        ValueError: as `save_findings`, or a file that is neither ours nor Slicer's. What was kept before stays.
    """
    path = _submitted(datastore, image_id)
    if not path.is_file():
        return None
    try:
        reading = _parsed(path, image_id, facts.findings)
        save_findings(datastore, image_id, reading.findings, facts)
    finally:
        path.unlink(missing_ok=True)
    return ReaderFindings(image_id, reading.findings, facts.model, facts.model_version)


def _register(datastore: LocalDatastore, image_id: str, path: Path) -> None:
    """Make the file the image's final label for MONAI Label, if the image has none."""
    final = datastore.get_label_uri(image_id, FINAL)
    if final and Path(final).name == path.name:
        datastore.update_label_info(image_id, FINAL, {"ts": int(time.time())})
    elif not final or final.endswith(".json"):
        with tempfile.NamedTemporaryFile(suffix=".json") as empty:
            LocalDatastore.save_label(datastore, image_id, empty.name, FINAL, {"format": FORMAT})


def _file(datastore: Any, image_id: str) -> Path:
    return _folder(datastore) / f"{check_id(image_id)}.json"


def _submitted(datastore: Any, image_id: str) -> Path:
    return _folder(datastore, APART) / f"{check_id(image_id)}{_SUBMITTED}"


def _folder(datastore: Any, tag: str | None = None) -> Path:
    """Where labels of a tag lie; MONAI Label has no public name for it."""
    if not isinstance(datastore, LocalDatastore):
        raise ValueError(
            f"findings cannot be kept in a {type(datastore).__name__}: start the server on a folder or a DICOMweb URL."
        )
    tag = tag or (APART if isinstance(datastore, DICOMWebDatastore) else FINAL)
    return Path(datastore._datastore.label_path(tag))


def _said_images(datastore: Any) -> list[str]:
    """Ids of images with a file of findings."""
    said = [path.stem for path in _folder(datastore).glob("*.json")]
    there = said if isinstance(datastore, DICOMWebDatastore) else set(datastore.list_images())
    return sorted(image_id for image_id in said if image_id in there)


def _parsed(path: Path, image_id: str, known: Sequence[str]) -> ReaderFindings:
    """A file of ours or of Slicer's."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        if "markups" in content:
            return ReaderFindings(image_id, findings_in_markups(content, known), "", "")
        if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
            raise ValueError(f"it is neither {FORMAT!r} version {VERSION} nor a Markups document of 3D Slicer")
        findings = _checked(content.get("findings"), None)
    except (OSError, ValueError) as error:
        raise ValueError(f"the findings of image {image_id!r} cannot be used: {error}. Submit them again.") from error
    return ReaderFindings(image_id, findings, str(content.get("model", "")), str(content.get("model_version", "")))


def _checked(findings: Any, known: Sequence[str] | None) -> dict[str, bool]:
    """The findings; with ``known``, only such."""
    if not isinstance(findings, Mapping) or not findings:
        raise ValueError("no finding is named: say of at least one whether it is present (true) or absent (false)")
    other = sorted(str(name) for name, present in findings.items() if not isinstance(present, bool))
    if other:
        raise ValueError(f"{', '.join(map(repr, other[:10]))} must be true (present) or false (absent)")
    unknown = [] if known is None else sorted(str(name) for name in findings if name not in known)
    if unknown:
        raise ValueError(_unknown(unknown, known or ()))
    return {str(name): present for name, present in findings.items()}


def _unknown(names: Sequence[str], known: Sequence[str]) -> str:
    listed = ", ".join(repr(name[:60]) for name in names[:10])
    return f"unknown findings {listed}: this model knows {', '.join(known) or 'none'}. Rename or leave them out"


def _named(label: str, known: Sequence[str]) -> str | None:
    """The longest known name that a label begins with."""
    words = f"{label.strip().casefold()} "
    found = [name for name in known if words.startswith(f"{name.casefold()} ")]
    return max(found, key=len, default=None)
