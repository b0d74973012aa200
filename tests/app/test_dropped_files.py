"""What is accepted from a browser, known by its content, and what is refused before it can do harm."""

from __future__ import annotations

import gzip
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_medclip.app.dropped_files import DroppedFile, kind_of, stored_images
from monai_medclip.app.limits import Limits, Refused

from .served import radiograph, zipped

LIMITS = Limits(upload_bytes=1 << 20, seconds=1)  # so 4 MB of images


def stored(tmp_path: Path, *files: tuple[str, bytes], limits: Limits = LIMITS) -> dict[str, bytes]:
    """Names that the sender gave, with the bytes that were stored."""
    folder = tmp_path / "stored"
    folder.mkdir()
    found = stored_images([DroppedFile(name, BytesIO(content)) for name, content in files], folder, limits)
    assert set(folder.iterdir()) == set(found)
    return {name: path.read_bytes() for path, name in found.items()}


def refused(tmp_path: Path, words: str, *files: tuple[str, bytes], limits: Limits = LIMITS) -> Refused:
    with pytest.raises(Refused, match=words) as caught:
        stored(tmp_path, *files, limits=limits)
    assert str(tmp_path) not in str(caught.value)
    assert {path.name for path in tmp_path.rglob("*") if "evil" in path.name} == set()
    return caught.value


def picture(kind: str) -> bytes:
    stream = BytesIO()
    Image.new("L", (9, 7)).save(stream, kind)
    return stream.getvalue()


def volume(shape: tuple[int, ...] = (4, 5, 6), kind: type[nib.Nifti1Pair] = nib.Nifti1Image) -> bytes:
    return kind(np.zeros(shape, np.int16), np.eye(4)).to_bytes()


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    return radiograph(tmp_path / "film").read_bytes()


def test_kinds_are_known_by_content_whatever_the_name(tmp_path: Path, film: bytes) -> None:
    kinds = {
        ".dcm": film,
        ".png": picture("png"),
        ".jpg": picture("jpeg"),
        ".nii": volume(),
        ".nii.gz": gzip.compress(volume(kind=nib.Nifti2Image)),
        ".zip": zipped({"a": b"b"}),
        None: b"MZ this is a program" + bytes(400),
    }
    path = tmp_path / "file.txt"
    for kind, content in kinds.items():
        path.write_bytes(content)
        assert kind_of(path) == kind
    for content in (b"", film[:131], gzip.compress(b"text" * 200), b"\x1f\x8bbroken"):
        path.write_bytes(content)
        assert kind_of(path) is None


def test_images_are_stored_byte_for_byte_under_names_of_our_own(tmp_path: Path, film: bytes) -> None:
    assert stored(tmp_path, ("../../evil.dcm", film), ("b\0", film)) == {"../../evil.dcm": film, "b\0": film}
    assert sorted(path.name for path in (tmp_path / "stored").iterdir()) == ["00000.dcm", "00001.dcm"]


def test_an_archive_gives_its_images_and_leaves_the_rest(tmp_path: Path, film: bytes) -> None:
    members = {"DICOM/IM1": film, "DICOMDIR": film, "viewer.exe": b"MZ", "__MACOSX/._IM1": film, "DICOM/IM2": film}
    assert stored(tmp_path, ("study.zip", zipped(members))) == {"DICOM/IM1": film, "DICOM/IM2": film}


@pytest.mark.parametrize("name", ["../evil.dcm", "a/../../evil.dcm", "/evil.dcm", "C:\\evil.dcm", "..\\evil.dcm"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path, film: bytes, name: str) -> None:
    refused(tmp_path, "outside its own folder", ("a.zip", zipped({"good.dcm": film, name: film})))


def test_links_passwords_and_nested_archives_are_refused(tmp_path: Path, film: bytes) -> None:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        link = zipfile.ZipInfo("evil.dcm")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "link", "symbolic link", ("a.zip", stream.getvalue()))
    locked = bytearray(zipped({"a.dcm": film}))
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(header) + at] |= 1  # bit 0: encrypted
    refused(tmp_path / "locked", "password", ("a.zip", bytes(locked)))
    refused(tmp_path / "nested", "among other files", ("a.zip", zipped({"b.zip": zipped({"c.dcm": film})})))


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("link", "locked", "nested", "a", "b", "c"):
        (tmp_path / name).mkdir()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    bomb = zipped({"0.dcm": bytes(64 << 20)})
    assert len(bomb) < 100_000
    roomy = Limits(upload_bytes=1 << 30, seconds=1)
    assert refused(tmp_path / "a", "unpacks from .* to 64 MB", ("a.zip", bomb), limits=roomy).status == 413
    refused(tmp_path / "b", "unpacks", ("a.zip", zipped({"0.dcm": bytes(5 << 20)})))
    packed = gzip.compress(volume()[:352] + bytes(8 << 20))
    assert refused(tmp_path / "c", "a.nii.gz: decoded", ("a.nii.gz", packed)).status == 413


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path, film: bytes) -> None:
    header = bytearray(volume()[:352])
    header[42:48] = np.array([30_000, 30_000, 30_000], "<i2").tobytes()  # NIfTI-1: dim[1] to dim[3]
    refused(tmp_path / "a", "decoded images take more than 4 MB", ("a.nii", bytes(header)))
    dataset = pydicom.dcmread(BytesIO(film))
    dataset.Rows = dataset.Columns = 60_000
    stream = BytesIO()
    dataset.save_as(stream)
    refused(tmp_path / "b", "decoded images take more than 4 MB", ("a.dcm", stream.getvalue()))
    dataset = pydicom.dcmread(BytesIO(film))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = BytesIO()
    dataset.save_as(stream)
    refused(tmp_path / "c", "deflated as a whole", ("a.dcm", stream.getvalue()))


def test_too_many_files_are_refused(tmp_path: Path, film: bytes) -> None:
    few = LIMITS._replace(upload_files=2)
    assert len(stored(tmp_path, ("1", film), ("2", film), limits=few)) == 2
    refused(tmp_path / "a", "3 files: at most 2", *[(str(n), film) for n in range(3)], limits=few)
    many = zipped({str(n): film for n in range(3)})
    refused(tmp_path / "b", "holds 3 files: at most 2", ("a.zip", many), limits=few)


def test_several_studies_and_no_image_are_refused(tmp_path: Path, film: bytes) -> None:
    refused(tmp_path / "a", "only DICOM slices may come together", ("a.dcm", film), ("b.png", picture("png")))
    assert refused(tmp_path / "b", "letter.txt: there is no image", ("letter.txt", b"hello")).status == 415
    assert refused(tmp_path / "c", "there is no image", ("a.zip", zipped({}))).status == 415


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_damaged_archive_is_refused_in_words(tmp_path: Path, film: bytes, cut: float) -> None:
    whole = zipped({"a.dcm": film, "b.dcm": film})
    refused(tmp_path, "a.zip: the archive is damaged", ("a.zip", whole[: int(cut * len(whole))]))


def test_a_damaged_member_is_refused_in_words(tmp_path: Path, film: bytes) -> None:
    broken = bytearray(zipped({"a.dcm": film}))
    broken[len(broken) // 2] ^= 0xFF
    refused(tmp_path, "a.dcm: damaged in its archive", ("a.zip", bytes(broken)))
