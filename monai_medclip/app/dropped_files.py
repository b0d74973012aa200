"""Files that come from a browser: what they are by their content, unpacked only if nothing in them can do harm."""

from __future__ import annotations

import gzip
import lzma
import math
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import nibabel as nib
from nibabel.spatialimages import HeaderDataError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_medclip.app.limits import Limits, Refused
from monai_medclip.transforms import BadInputError
from monai_medclip.transforms.dicom import read_dicom

__all__ = ["DroppedFile", "decoded_bytes", "kind_of", "stored_images"]

SUFFIXES = (".dcm", ".png", ".jpg", ".nii", ".nii.gz")
READABLE = "DICOM, PNG, JPEG, NIfTI and zip files of these"
BOMB_BYTES, BOMB_RATIO = 16 << 20, 200  # an archive that unpacks to more than both is made to fill a disk
_CHUNK = 1 << 20
# What zipfile raises for archives that it cannot read; the last one for encryption and compression unknown to it.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
_DRIVE = re.compile(r"[A-Za-z]:")


class DroppedFile(NamedTuple):
    """One file of an upload."""

    name: str  # as its sender calls it; never used as a path
    stream: IO[bytes]


def kind_of(path: Path) -> str | None:
    """What a file is by its first bytes: one of `SUFFIXES`, ".zip", or None for anything else."""
    with path.open("rb") as file:
        head = file.read(352)
    if head[128:132] == b"DICM":
        return ".dcm"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".nii.gz" if _is_nifti(_unzipped_head(path)) else None
    return ".nii" if _is_nifti(head) else None


def stored_images(files: Sequence[DroppedFile], folder: Path, limits: Limits) -> dict[Path, str]:
    """Store an upload's images under numbers, an archive unpacked.

    Args:
        files: what was dropped.
        folder: an empty folder; it is in an undefined state after an error.
        limits: how much is accepted.

    Returns:
        The stored files with the names that their sender gave them.

    Raises:
        Refused: no image, several studies, too much, or an archive that leads out of its folder, links, nests, asks
            for a password or is a bomb.
    """
    stored: dict[Path, str] = {}
    others: list[str] = []
    for number, (name, stream) in enumerate(_unpacked(files, folder, limits)):
        path = folder / f"{number:05d}"
        with path.open("wb") as file:
            _copy(stream, file, name)
        kind = kind_of(path)
        if kind == ".zip":
            raise Refused(f"{name}: an archive among other files. Drop one zip file that holds the images.")
        if kind is None or PurePosixPath(name).name.upper() == "DICOMDIR":
            others.append(name)
            path.unlink()
            continue
        stored[path.rename(path.with_name(path.name + kind))] = name
    _check_one_study(stored, others)
    _check_sizes(stored, limits)
    return stored


def _unpacked(files: Sequence[DroppedFile], folder: Path, limits: Limits) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the dropped files, or of the one archive."""
    if len(files) > limits.upload_files:
        raise Refused(f"{len(files)} files: at most {limits.upload_files} are accepted.", 413)
    if len(files) != 1 or not _is_zip(files[0].stream):
        yield from files
        return
    try:
        with zipfile.ZipFile(files[0].stream) as archive:
            for member in _checked_members(archive, files[0].name, limits):
                with archive.open(member) as stream:
                    yield member.filename, stream
    except _DAMAGED as error:
        raise Refused(f"{files[0].name}: the archive is damaged or of an unknown kind. Make it anew.") from error


def _checked_members(archive: zipfile.ZipFile, name: str, limits: Limits) -> list[zipfile.ZipInfo]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        _check_member(member)
    members = [member for member in members if "__MACOSX" not in PurePosixPath(member.filename).parts]
    total, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if len(members) > limits.upload_files:
        raise Refused(f"{name} holds {len(members)} files: at most {limits.upload_files} are accepted.", 413)
    if total > limits.expanded_bytes or (total > BOMB_BYTES and total > BOMB_RATIO * max(packed, 1)):
        raise Refused(f"{name} unpacks from {_mb(packed)} to {_mb(total)}: that is too much. Drop one study.", 413)
    return members


def _check_member(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # zipfile cuts a name at its NUL
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if "\0" in name or ".." in parts or parts[:1] == ("/",) or _DRIVE.match(name):
        raise Refused("the archive names a file outside its own folder. Make it anew from the folder of the images.")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise Refused("the archive holds a symbolic link. Make it anew from the files themselves.")
    if member.flag_bits & 1:
        raise Refused("the archive asks for a password. Make it anew without.")


def _copy(source: IO[bytes], target: IO[bytes], name: str) -> None:
    try:
        shutil.copyfileobj(source, target, _CHUNK)
    except _DAMAGED as error:
        raise Refused(f"{name}: damaged in its archive. Make the archive anew.") from error


def _check_one_study(stored: dict[Path, str], others: Sequence[str]) -> None:
    if not stored:
        named = f"{others[0]}: " if others else ""
        raise Refused(f"{named}there is no image in what was dropped. This page reads {READABLE}.", 415)
    kinds = {path.name.partition(".")[2] for path in stored}
    if len(stored) > 1 and kinds != {"dcm"}:
        names = ", ".join(sorted(stored.values())[:3])
        raise Refused(f"{len(stored)} images ({names}): only DICOM slices may come together. Drop one study.")


def _check_sizes(stored: dict[Path, str], limits: Limits) -> None:
    """Refuse files whose images would not fit once decoded, before anything decodes them."""
    total = 0
    for path, name in stored.items():
        total += decoded_bytes(path, name, limits.expanded_bytes)
        if total > limits.expanded_bytes:
            raise Refused(f"{name}: decoded images take more than {_mb(limits.expanded_bytes)}. Drop less.", 413)


def decoded_bytes(path: Path, name: str, most: int) -> int:
    """What a file's image takes in memory; counts no further than beyond `most`."""
    try:
        if path.suffix == ".dcm":
            return _dicom_bytes(path, name)
        if path.name.endswith(".nii.gz") and _more_than(path, most):
            return most + 1
        if ".nii" in path.name:
            header = nib.load(path).header
            return math.prod(int(n) for n in header.get_data_shape()) * int(header.get_data_dtype().itemsize)
    except Refused:
        raise
    except BadInputError as error:
        raise Refused(f"{name}: {error.reason}. {error.remedy}") from error
    except (OSError, EOFError, zlib.error, ValueError, HeaderDataError) as error:
        raise Refused(f"{name}: the file is damaged or incomplete. Export it again.") from error
    return path.stat().st_size  # Pillow itself refuses pictures of too many pixels


def _dicom_bytes(path: Path, name: str) -> int:
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise Refused(f"{name}: a DICOM file that is deflated as a whole. Export it without that compression.")
    header = read_dicom(path, header_only=True)
    bits = int(header.get("BitsAllocated", 8) or 8) * int(header.get("SamplesPerPixel", 1) or 1)
    pixels = int(header.get("Rows", 0) or 0) * int(header.get("Columns", 0) or 0)
    return pixels * int(header.get("NumberOfFrames", 1) or 1) * bits // 8


def _more_than(path: Path, most: int) -> bool:
    """Whether a gzip file unpacks to more bytes than that."""
    count = 0
    with gzip.open(path) as file:
        while count <= most and (part := file.read(_CHUNK)):
            count += len(part)
    return count > most


def _is_zip(stream: IO[bytes]) -> bool:
    head = stream.read(4)
    stream.seek(0)
    return head == b"PK\x03\x04"


def _unzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(352)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    if len(head) < 348:
        return False
    sizes = {struct.unpack(f"{order}i", head[:4])[0] for order in "<>"}
    return (348 in sizes and head[344:347] == b"n+1") or (540 in sizes and head[4:7] == b"n+2")


def _mb(count: int) -> str:
    return f"{count / (1 << 20):.3g} MB"
