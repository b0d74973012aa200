"""What the tests of the page do with it and see of it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from .served import StandIn

ALPHA = """() => {
  const canvas = document.getElementById("overlay"), {width, height} = canvas;
  const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return [height, width, [...data].filter((_, i) => i % 4 === 3)];
}"""


def opened(page: Any, study: str) -> None:
    page.select_option("#study", study)
    page.click("#open")
    page.locator("#show:enabled").wait_for()


def asked(page: Any, prompt: str) -> None:
    page.fill("#prompt", prompt)
    page.press("#prompt", "Enter")
    page.locator("#caption", has_text=f"“{prompt}”").wait_for()


def alpha(page: Any) -> np.ndarray:
    rows, columns, values = page.evaluate(ALPHA)
    return np.reshape(values, (rows, columns)) / 255


def slide(page: Any, name: str, value: int) -> None:
    page.locator(f"#{name}").fill(str(value))


def heat(app: StandIn, study: str, prompt: str) -> np.ndarray:
    """The map as a share of its maximum, where it is positive."""
    values = app.medclip.heatmaps(app.medclip.study(app.known[study]), [prompt]).maps[0].as_tensor().numpy()
    return np.clip(values / values.max(), 0, 1)


def screenshot(page: Any) -> np.ndarray:
    content = page.locator("#viewport").screenshot()
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"), np.float64)
