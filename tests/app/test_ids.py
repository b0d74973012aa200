"""No request names a file that it has no business with."""

from __future__ import annotations

import tempfile

import pytest

from monai_medclip.app.ids import check_archive, check_id, is_received
from monai_medclip.app.limits import Refused

BAD = ["", ".", "..", "../secret", "/etc/passwd", "a/b", "a\\b", "a\0b", "x" * 257, "a\nb"]


@pytest.mark.parametrize("identity", BAD)
def test_ways_out_of_a_folder_are_refused(identity: str) -> None:
    with pytest.raises(Refused, match="refused"):
        check_id(identity)


@pytest.mark.parametrize("identity", ["case 1", "1.2.840.113", "Größe", "a..b"])
def test_plain_names_pass(identity: str) -> None:
    assert check_id(identity) == identity


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x", "\\\\host\\x", "a\\..\\x"])
def test_archives_that_write_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="archive"):
        check_archive([("good.dcm", 1), (name, 1)])


def test_archives_that_would_fill_the_disk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDCLIP_MAX_UPLOAD_MB", "1")
    check_archive([("a.dcm", 4 << 20)])
    for members in ([("a.dcm", (4 << 20) + 1)], [(f"{number}.dcm", 0) for number in range(4001)]):
        with pytest.raises(Refused, match="send less"):
            check_archive(members)


@pytest.mark.parametrize(
    "name", ["tmpab12_xyz.nii.gz", "tmpab12_xyz.840.113619.2.55.3.604688119.969.dcm", "tmpab12_xyz"]
)
def test_what_the_server_received_has_a_name_of_its_own_making(name: str) -> None:
    assert is_received(f"{tempfile.gettempdir()}/{name}")


@pytest.mark.parametrize("name", ["case.nii.gz", "tmpab12_xyz/../passwd", "sub/tmpab12_xyz.dcm", "../etc/passwd"])
def test_other_files_are_not_received(name: str) -> None:
    assert not is_received(f"{tempfile.gettempdir()}/{name}")
