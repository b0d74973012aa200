"""Headless Chromium that reaches this machine only, and pictures of what it shows."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
SIZE = {"width": 1280, "height": 720}
_FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    # No name but this machine's resolves. Aborting requests one by one does the same and is six times as slow.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_CHANGED = 5  # of 255, in any channel: the same view is drawn with the same values twice; dark tints on air are faint
_COLORED = 24  # between channels: more than the edges of grays

Picture = NDArray[np.uint8]


class Box(NamedTuple):
    """A rectangle of the page, in pixels."""

    x: float
    y: float
    width: float
    height: float


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A page in a new profile; afterwards, that nothing outside this machine has answered it."""
    outside: list[str] = []

    def note(url: str) -> None:
        if urlparse(url).scheme in ("http", "https", "ws", "wss") and urlparse(url).hostname != "127.0.0.1":
            outside.append(url)

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, headless=True, args=list(_FLAGS), viewport=SIZE
        )
        try:
            context.on("response", lambda response: note(response.url))
            yield context.pages[0]
        finally:
            context.close()
    assert not outside, f"answered from outside this machine: {outside}"


def picture(page: Page, box: Box | None = None) -> Picture:
    """What the page shows, or a part of it: (rows, columns, 3)."""
    shown = page.screenshot(clip=box._asdict() if box else None)
    return np.asarray(Image.open(io.BytesIO(shown)).convert("RGB"))


def settled(page: Page, box: Box | None = None, *, seconds: float = 60) -> Picture:
    """A picture that three looks in a row agree on.

    Raises:
        TimeoutError: if it never stands still.
    """
    deadline = time.monotonic() + seconds
    looks = [picture(page, box)]
    while len(looks) < 3 or not all(np.array_equal(look, looks[-1]) for look in looks[-3:]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the page still changes after {seconds} s")
        page.wait_for_timeout(150)
        looks.append(picture(page, box))
    return looks[-1]


def changed(before: Picture, after: Picture) -> NDArray[np.bool_]:
    """Which pixels differ visibly: (rows, columns)."""
    return (np.abs(after.astype(int) - before.astype(int)) > _CHANGED).any(axis=-1)


def colored(shown: Picture) -> NDArray[np.bool_]:
    """Which pixels are not gray: (rows, columns)."""
    return np.ptp(shown.astype(int), axis=-1) > _COLORED


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union; nan when both are empty."""
    return float((a & b).sum() / max((a | b).sum(), 1)) if (a | b).any() else float("nan")


def save_screenshot(shown: Picture, path: Path) -> None:
    """A PNG of at most 256 colors: small enough for a repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shown).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
