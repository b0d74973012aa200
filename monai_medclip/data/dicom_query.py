"""Which radiographs or CT series there are to ask about: under a folder, or in an archive that matches a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from tqdm import tqdm

from monai_medclip.ct_stacks import CT_CLASSES
from monai_medclip.data.dicom_archive import Archive
from monai_medclip.data.dicom_errors import ArchiveError

__all__ = ["DicomCase", "DicomCases", "DicomInstance", "LeftOut", "archive_cases", "folder_cases", "parse_query"]

_RADIOGRAPHS, _VOLUMES = ("CR", "DX", "RG"), ("CT",)
_STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"  # and below it, the multi-frame ones
_RESULTS = (
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map Storage
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
)
_TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"]


class DicomInstance(NamedTuple):
    """One object of a case."""

    sop_uid: str
    file: str  # empty in an archive


class DicomCase(NamedTuple):
    """What is read as one: a radiograph, or the CT slices of a series."""

    study_uid: str
    series_uid: str
    instances: tuple[DicomInstance, ...]  # of a radiograph, one

    @property
    def key(self) -> str:
        """What tells it from all others: a UID, or a file where the header has none."""
        if len(self.instances) == 1:
            return self.instances[0].sop_uid or self.instances[0].file
        return self.series_uid or self.instances[0].file

    @property
    def file(self) -> str:
        """Its file, or the first one's folder; empty in an archive."""
        first = self.instances[0].file
        return first if len(self.instances) == 1 or not first else str(Path(first).parent)


class LeftOut(NamedTuple):
    """What is not asked about."""

    study_uid: str
    series_uid: str
    sop_uid: str  # empty: the whole series
    file: str  # empty in an archive
    reason: str
    remedy: str = ""  # where it should not be so; empty for what was skipped with good reason


class DicomCases(NamedTuple):
    """What there is."""

    cases: tuple[DicomCase, ...]
    left_out: tuple[LeftOut, ...]


def folder_cases(root: str | Path, *, volumes: bool, progress: bool | None = None) -> DicomCases:
    """Read the headers of all DICOM files under a folder.

    Left out are results (SEG, Parametric Map, SR, Secondary Capture), other modalities, copies of an object, and
    damaged files; what is hidden or no DICOM is passed over.

    Args:
        root: a folder, searched with its subfolders, or one file.
        volumes: look for CT series rather than radiographs.
        progress: whether to show a progress bar; None shows it on a terminal.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root} is no file or folder: name what holds the DICOM studies.")
    files = [root] if root.is_file() else sorted(file for file in root.rglob("[!.]*") if file.is_file())
    left_out: list[LeftOut] = []
    fitting: dict[tuple[str, ...], list[tuple[Dataset, DicomInstance]]] = {}
    seen: set[str] = set()
    for file in tqdm(files, "Reading headers", unit="file", disable=None if progress is None else not progress):
        try:
            header = _header(file)
        except Exception as error:  # what pydicom raises depends on where a file was cut
            reason = f"unusable header: {str(error) or type(error).__name__}"
            left_out.append(LeftOut("", "", "", str(file), reason, "Export the file again, or take it out."))
            continue
        if header is None:
            continue
        study_uid, series_uid, sop_uid = _uids(header)
        reason = _unfit(str(header.get("SOPClassUID", "")), str(header.get("Modality", "") or ""), volumes)
        if reason or (sop_uid and sop_uid in seen):
            reason = reason or "copy of another file: it has the same SOP Instance UID"
            left_out.append(LeftOut(study_uid, series_uid, sop_uid, str(file), reason))
            continue
        seen.add(sop_uid)
        key = (study_uid, series_uid or str(file.parent)) if volumes else (str(file),)
        fitting.setdefault(key, []).append((header, DicomInstance(sop_uid, str(file))))
    cases = [DicomCase(*_uids(group[0][0])[:2], tuple(one for _, one in group)) for group in fitting.values()]
    return DicomCases(tuple(cases), tuple(left_out))


def archive_cases(
    archive: Archive, query: Mapping[str, str], *, volumes: bool, progress: bool | None = None
) -> DicomCases:
    """Ask an archive for series that match and for their objects' identifiers; pixels stay there.

    Args:
        archive: to ask.
        query: QIDO-RS filters, see `parse_query`; without ``Modality``, the modalities that are looked for.
        volumes: look for CT series rather than radiographs.
        progress: whether to show a progress bar; None shows it on a terminal.

    Returns:
        the cases; and what was left out: results, other modalities, and series that the archive does not list.

    Raises:
        ArchiveError: it does not answer, or refuses to search.
    """
    wanted = _VOLUMES if volumes else _RADIOGRAPHS
    modalities = [query["Modality"]] if "Modality" in query else wanted  # archives know no list of modalities
    found = [series for modality in modalities for series in archive.series({**query, "Modality": modality})]
    cases: list[DicomCase] = []
    left_out: list[LeftOut] = []
    for series in tqdm(found, "Asking the archive", unit="series", disable=None if progress is None else not progress):
        study_uid, series_uid, _ = _uids(series)
        modality = str(series.get("Modality", "") or "")
        if modality and modality.upper() not in wanted:  # empty: the objects' headers will tell
            left_out.append(LeftOut(study_uid, series_uid, "", "", _other(modality, wanted)))
            continue
        try:
            listed = archive.instances(study_uid, series_uid)
        except ArchiveError as error:
            if not error.status:
                raise
            left_out.append(LeftOut(study_uid, series_uid, "", "", error.reason, error.remedy))
            continue
        fitting = []
        for one in listed:
            reason = _unfit(str(one.get("SOPClassUID", "")), modality, volumes)
            sop_uid = _uids(one)[2]
            if reason:
                left_out.append(LeftOut(study_uid, series_uid, sop_uid, "", reason))
            else:
                fitting.append(DicomInstance(sop_uid, ""))
        groups = [fitting] * bool(fitting) if volumes else [[one] for one in fitting]
        cases.extend(DicomCase(study_uid, series_uid, tuple(group)) for group in groups)
    return DicomCases(tuple(cases), tuple(left_out))


def parse_query(words: Sequence[str]) -> dict[str, str]:
    """QIDO-RS filters from words such as ``StudyDate=20200101-20201231``.

    Args:
        words: ``Attribute=value``, the attribute by its keyword in the DICOM dictionary.

    Raises:
        ValueError: no such attribute, no value, or one attribute twice.
    """
    query: dict[str, str] = {}
    for word in words:
        attribute, _, value = word.partition("=")
        if not value.strip() or tag_for_keyword(attribute) is None:
            raise ValueError(f"{attribute!r}: write a query as Attribute=value, such as Modality=DX or PatientID=17.")
        if attribute in query:
            raise ValueError(f"{attribute} is asked twice: an archive takes one value or range of an attribute.")
        query[attribute] = value.strip()
    return query


def _header(file: Path) -> Dataset | None:
    """What identifies an object; ``None`` for what is not DICOM and does not claim to be, and for a DICOMDIR."""
    try:
        header = pydicom.dcmread(str(file), stop_before_pixels=True, specific_tags=_TAGS)
    except InvalidDicomError as error:
        if file.suffix.lower() in (".dcm", ".dicom"):
            raise ValueError("not a DICOM file: no DICM prefix") from error
        return None
    directory = str(header.file_meta.get("MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10"
    return None if directory else header


def _uids(header: Dataset) -> tuple[str, str, str]:
    """Study, series and object."""
    study_uid, series_uid, sop_uid = (
        str(header.get(tag, "") or "") for tag in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    return study_uid, series_uid, sop_uid


def _unfit(sop_class: str, modality: str, volumes: bool) -> str:
    """Why an object is not asked about; empty for one that is. Minimal headers may leave class and modality out."""
    wanted, modality = (_VOLUMES if volumes else _RADIOGRAPHS), modality.upper()
    capture = sop_class == _CAPTURES or sop_class.startswith(f"{_CAPTURES}.")
    result = sop_class in _RESULTS or sop_class.startswith(_STRUCTURED_REPORTS)
    # Published collections hold radiographs as captures that keep the Modality; a result that is one says OT.
    if result or (capture and modality not in _RADIOGRAPHS):
        return f"{UID(sop_class).name} is a result, not an image of the patient"
    if modality not in wanted and (modality or not volumes):
        return _other(modality, wanted)
    if volumes and sop_class not in ("", *CT_CLASSES):
        return f"{UID(sop_class).name} holds no CT slice"
    return ""


def _other(modality: str, wanted: Sequence[str]) -> str:
    return f"Modality {modality or 'unknown'}: this bundle reads {', '.join(wanted)}"
