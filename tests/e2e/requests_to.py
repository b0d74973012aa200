"""What clients ask a MONAI Label server for, in one line each."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import requests
import SimpleITK as sitk  # noqa: N813 - its usual name

from .servers import Server

_PATIENCE_S = 120


def infer(server: Server, task: str, image: str, /, *, output: str | None = None, **params: Any) -> requests.Response:
    """The stock route, as every client uses it."""
    asked = {"image": image} | ({"output": output} if output else {})
    form = {"params": json.dumps(params)}
    return requests.post(f"{server.url}/infer/{task}", params=asked, data=form, timeout=_PATIENCE_S)


def volume(answer: requests.Response) -> sitk.Image:
    """The NRRD image that a server sent."""
    assert answer.ok, (answer.status_code, answer.text[:500])
    return image_of(answer.content)


def image_of(content: bytes) -> sitk.Image:
    """An NRRD file's content, read by ITK."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.nrrd"
        file.write_bytes(content)
        return sitk.ReadImage(str(file))


def float_map(server: Server, image: str, prompt: str, **params: Any) -> sitk.Image:
    """The raw map of a prompt."""
    return volume(infer(server, "heatmap", image, output="image", prompt=prompt, map="float", **params))


def bands(server: Server, image: str, prompt: str, **params: Any) -> sitk.Image:
    """The bands of a prompt, as viewers get them."""
    return volume(infer(server, "heatmap", image, output="image", prompt=prompt, **params))
