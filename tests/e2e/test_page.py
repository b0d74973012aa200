"""The /medclip/ page on studies of the archive: pick one, type a prompt, see the overlay on the phantom's lesion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="pip install 'monai-medclip[label]', or run .ci/e2e")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from playwright.sync_api import Page

from .browser import chromium
from .cases import Seen
from .conftest import Site

_ALPHA = """() => {
    const {width, height} = document.getElementById("overlay");
    const pixels = document.getElementById("overlay").getContext("2d").getImageData(0, 0, width, height).data;
    return [height, width, Array.from(pixels.filter((_, index) => index % 4 === 3))];
}"""


def ask(page: Page, server: str, study: str, prompt: str) -> np.ndarray:
    """Walk through the page; the overlay's opacity (rows, columns)."""
    page.goto(f"{server}/medclip/")
    page.get_by_label("Where is …?").wait_for()
    page.locator("#open:enabled").wait_for()  # the page's policy forbids playwright's own waiting for a function
    page.select_option("#study", study)
    page.click("#open")
    page.locator("#show:enabled").wait_for(timeout=60_000)
    page.fill("#prompt", prompt)
    with page.expect_response(lambda answer: answer.url.endswith("/medclip/heatmap"), timeout=60_000) as answered:
        page.click("#show")
    assert answered.value.ok, answered.value.text()
    page.locator("#caption", has_text=prompt).wait_for()
    rows, columns, alpha = page.evaluate(_ALPHA)
    return np.array(alpha).reshape(rows, columns)


def test_a_picked_study_shows_its_overlay(
    archive_sites: dict[str, Site], seen: dict[str, list[Seen]], modality: str, chromium_path: Path, tmp_path: Path
) -> None:
    case, server = seen[modality][1].case, archive_sites[modality].server
    with chromium(tmp_path / "profile") as page:
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        opacity = ask(page, server.url, str(case.header.SeriesInstanceUID), case.finding)
        caption = page.text_content("#caption")
        shown = page.text_content("body")
    assert said == []
    assert case.finding in str(caption)
    assert "Research use only" in str(shown)
    assert opacity.max() > 0
    assert 0 < (opacity > 0).mean() < 0.6
    if modality == "DX":  # square, and not cropped: rows and columns of the mask, scaled
        lesion = np.asarray(Image.open(case.mask).resize(opacity.shape[::-1], Image.Resampling.NEAREST)) > 0
        hottest = opacity > 0.9 * opacity.max()
        assert (hottest & lesion).sum() / hottest.sum() > 0.5


def test_the_page_leaves_no_names_in_the_log(archive_sites: dict[str, Site], seen: dict[str, list[Seen]]) -> None:
    for modality, (server, *_) in archive_sites.items():
        assert seen[modality][1].case.patient not in server.printed()
