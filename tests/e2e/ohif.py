"""What a reader does in OHIF: open a study, connect the MONAI Label panel, type a prompt, run, look at a point."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

from .browser import Box, Picture, changed, picture

AXIAL = "mpr-axial"  # of the mode with the MONAI Label panel
VIEWPORT = "default"  # of the basic viewer
PATIENCE_MS = 90_000
_VIEWPORT = """id => cornerstone.getRenderingEngines().flatMap(e => e.getViewports()).find(v => v.id === id)"""


class Sent(NamedTuple):
    """A request that the panel made."""

    url: str
    form: str


class Plane(NamedTuple):
    """Where the pixels of a viewport lie in the patient: LPS mm of the top left pixel, and a step right and down."""

    origin: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]

    def points(self, rows: int, columns: int) -> NDArray[np.float64]:
        """(rows, columns, 3) LPS mm of the pixels' centers."""
        row, column = np.mgrid[:rows, :columns] + 0.5
        return self.origin + column[..., None] * self.right + row[..., None] * self.down


def open_panel(page: Page, server: str, patient_id: str, modality: str) -> None:
    """Take a study from the list that MONAI Label's OHIF shows, into the mode with the panel."""
    page.goto(f"{server}/ohif/")
    page.get_by_role("button", name="Confirm and Hide").click(timeout=PATIENCE_MS)
    page.locator("tr", has_text=patient_id).filter(has_text=modality).first.click()
    page.get_by_role("button", name="MONAI Label").click()
    _wait_for_image(page, AXIAL)


def open_study(page: Page, viewer: str, study_uid: str) -> None:
    """Open a study in the basic viewer, without the tour of its buttons."""
    page.goto(f"{viewer}/viewer?StudyInstanceUIDs={study_uid}")
    page.get_by_text("Skip all").click(timeout=PATIENCE_MS)
    _wait_for(page, "view => view.getActors().length > 0", VIEWPORT)


def open_series(page: Page, description: str, *, actors: int) -> None:
    """Double-click a series in the list of the study's, and wait until that many images lie in the viewport."""
    page.locator("[data-cy^='study-browser-thumbnail']", has_text=description).dblclick(timeout=PATIENCE_MS)
    _wait_for(page, f"view => view.getActors().length >= {actors}", VIEWPORT)


def wait_for_instance(page: Page, instance_uid: str) -> None:
    """Until the viewport shows an instance."""
    test = f"view => view.getCurrentImageId && view.getCurrentImageId().includes('{instance_uid}') && view.csImage"
    _wait_for(page, test, VIEWPORT)


def wait_for_volumes(page: Page) -> None:
    """Until all volumes in the viewport have their values."""
    test = """view => view.getActors().every(actor => {
        const volume = cornerstone.cache.getVolume(actor.referencedId);
        return volume && (!volume.loadStatus || volume.loadStatus.loaded);
    })"""
    _wait_for(page, test, VIEWPORT)


def pixel_centers(page: Page, rows: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which column and row of the image a stack viewport shows at each of its pixels: twice (rows, columns)."""
    corners = page.evaluate(
        f"""id => {{
            const view = ({_VIEWPORT})(id);
            const place = point => cornerstone.utilities.worldToImageCoords(view.getCurrentImageId(), point);
            return [[0, 0], [1000, 0], [0, 1000]].map(p => Array.from(place(view.canvasToWorld(p))));
        }}""",
        VIEWPORT,
    )
    origin, right, down = (np.array(corner) for corner in corners)
    plane = Plane(origin, (right - origin) / 1000, (down - origin) / 1000)
    column, row = np.moveaxis(np.floor(plane.points(rows, columns)).astype(int), -1, 0)
    return column, row


def connect(page: Page, server: str) -> None:
    """Tell the panel its server (it begins with port 8000) and wait until it says that it has found one."""
    page.fill("#monailabelServerURL", server)
    page.locator("tr:has(#monailabelServerURL) button").click()
    page.get_by_text("Connected to MONAI Label - Successful").wait_for(timeout=PATIENCE_MS)


def set_option(page: Page, task: str, option: str, value: str) -> None:
    """Change one option of a task in the panel's dialog."""
    page.get_by_text("Options / Configurations").click()
    page.locator("select[name='selectName']").select_option(task)
    row = page.locator("tr").filter(has=page.get_by_role("cell", name=option, exact=True))
    row.locator("input").fill(value)
    page.get_by_role("button", name="Confirm").click()


def run_task(page: Page, task: str) -> Sent:
    """Run a task of the panel's segmentation section; what it asked the server."""
    page.locator("select.selectBox", has_text=task).first.select_option(task)
    with page.expect_response(lambda response: f"/infer/{task}" in response.url, timeout=PATIENCE_MS) as sent:
        page.locator("button[title='Run Segmentation']").click()
    assert sent.value.ok, (sent.value.status, sent.value.text())
    return Sent(sent.value.url, sent.value.request.post_data or "")


def wait_for_overlay(page: Page, before: Picture, box: Box) -> None:
    """Until a viewport shows something else than before.

    Raises:
        TimeoutError: if it does not.
    """
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not changed(before, picture(page, box)).any():
        if time.monotonic() > deadline:
            raise TimeoutError("the viewport shows no overlay")
        page.wait_for_timeout(200)


def look_at(page: Page, lps: Sequence[float], viewport: str = AXIAL) -> None:
    """Scroll a viewport to the slice through a point."""
    page.evaluate(
        f"([id, point]) => {{ const view = ({_VIEWPORT})(id); view.jumpToWorld(point); view.render(); }}",
        [viewport, [float(value) for value in lps]],
    )


def box_of(page: Page, viewport: str = AXIAL) -> Box:
    """Where a viewport's image lies on the page."""
    rectangle = page.evaluate(f"id => ({_VIEWPORT})(id).canvas.getBoundingClientRect().toJSON()", viewport)
    return Box(*(rectangle[side] for side in ("x", "y", "width", "height")))


def plane_of(page: Page, viewport: str = AXIAL) -> Plane:
    """Where a viewport's pixels lie in the patient."""
    corners = page.evaluate(
        f"id => [[0, 0], [1, 0], [0, 1]].map(p => Array.from(({_VIEWPORT})(id).canvasToWorld(p)))", viewport
    )
    origin, right, down = (np.array(corner) for corner in corners)
    return Plane(origin, right - origin, down - origin)


def _wait_for_image(page: Page, viewport: str) -> None:
    """Until the viewport's volume has all its slices."""
    test = """view => {
        const actor = view.getDefaultActor && view.getDefaultActor();
        const volume = actor && cornerstone.cache.getVolume(actor.referencedId);
        return volume && volume.loadStatus && volume.loadStatus.loaded;
    }"""
    _wait_for(page, test, viewport)


def _wait_for(page: Page, test: str, viewport: str) -> None:
    """Until a viewport is there and passes a test."""
    page.wait_for_function(
        f"""id => {{
            const view = window.cornerstone && ({_VIEWPORT})(id);
            return Boolean(view && ({test})(view));
        }}""",
        arg=viewport,
        timeout=PATIENCE_MS,
    )
