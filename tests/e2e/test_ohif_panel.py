"""The OHIF that MONAI Label ships, on a CT in the archive: list, open, connect, type a prompt, run, look."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from . import ohif
from .browser import changed, chromium, overlap, picture, save_screenshot, settled
from .cases import Seen, at, mask_image
from .conftest import Site
from .requests_to import bands


@pytest.fixture(scope="module")
def site(archive_sites: dict[str, Site], chromium_path: Path) -> Site:
    return archive_sites["CT"]


@pytest.fixture(scope="module")
def target(seen: dict[str, list[Seen]]) -> Seen:
    """A patient without results in the archive."""
    return seen["CT"][1]


def test_run_with_a_typed_prompt_tints_the_lesion(
    site: Site, target: Seen, tmp_path: Path, screenshots: Path | None
) -> None:
    header, prompt = target.case.header, target.case.finding.capitalize()  # not the default, which OHIF does not send
    expected = bands(site.server, str(header.SeriesInstanceUID), prompt)
    with chromium(tmp_path / "profile") as page:
        ohif.open_panel(page, site.server.url, str(header.PatientID), "CT")
        ohif.connect(page, site.server.url)
        ohif.set_option(page, "heatmap", "prompt", prompt)
        ohif.look_at(page, target.lps)
        box = ohif.box_of(page)
        before = settled(page, box)
        sent = ohif.run_task(page, "heatmap")
        ohif.wait_for_overlay(page, before, box)
        ohif.look_at(page, target.lps)
        after, plane = settled(page, box), ohif.plane_of(page)
        whole = picture(page)
    if screenshots:
        save_screenshot(whole, screenshots / "ohif_panel_ct.png")
    assert str(header.SeriesInstanceUID) in sent.url
    assert json.loads(re.search(r"\{.*\}", sent.form).group())["prompt"] == prompt

    points = plane.points(*before.shape[:2])
    tinted, hot = changed(before, after), at(expected, points) > 0
    assert overlap(tinted, hot) > 0.8  # the overlay is what the server answered, where it answered it
    lesion = at(mask_image(target.case, expected), points) > 0
    assert lesion.sum() > 30
    assert (tinted & lesion).sum() / lesion.sum() > 0.5  # and it lies on the phantom's lesion
    nearest = np.linalg.norm(points - target.lps, axis=-1).argmin()
    assert tinted.flat[nearest]


def test_no_request_of_the_panel_is_in_the_log(site: Site, target: Seen) -> None:
    printed = site.server.printed()
    assert target.case.patient not in printed
    assert str(target.case.header.SeriesInstanceUID) not in printed
