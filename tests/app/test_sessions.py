"""Sessions: whose image a path is, and what is cleaned up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

pytest.importorskip("monailabel", reason="monailabel is not installed: pip install 'monai-medclip[label]'")

from monai_medclip.app.sessions import CheckedSessions


@pytest.fixture
def sessions(tmp_path: Path) -> CheckedSessions:
    return CheckedSessions(str(tmp_path / "sessions"))


def added(sessions: CheckedSessions, folder: Path) -> Path:
    (folder / "film.dcm").write_bytes(b"film")
    return Path(sessions.add_session(str(folder / "film.dcm"))[1].image)


def test_a_session_s_image_is_held_and_nothing_around_it(sessions: CheckedSessions, tmp_path: Path) -> None:
    image = added(sessions, tmp_path)
    assert sessions.holds(str(image))
    (tmp_path / "sessions" / "link").symlink_to("/etc/passwd")
    for path in (
        image.parent,
        image.parent / "meta.info",
        image.parent.parent,
        tmp_path / "sessions" / "link",
        "/etc/passwd",
    ):
        assert not sessions.holds(str(path))


def test_a_broken_session_goes_after_an_hour_and_stops_no_clean_up(sessions: CheckedSessions, tmp_path: Path) -> None:
    image = added(sessions, tmp_path)
    broken = tmp_path / "sessions" / "broken"
    broken.mkdir()
    assert sessions.remove_expired() == 0  # it may be a session that is being written
    assert broken.is_dir()
    hours_ago = time.time() - 7200
    os.utime(broken, (hours_ago, hours_ago))
    sessions.remove_expired()
    assert not broken.exists()
    assert image.exists()
