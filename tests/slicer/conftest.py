"""The Slicer module on the path, as Slicer puts it there, and a server for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .contract_server import ContractServer

sys.path.insert(0, str(Path(__file__).parents[2] / "slicer" / "MedCLIP" / "MedCLIP"))


@pytest.fixture
def server() -> Iterator[ContractServer]:
    running = ContractServer()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def scene() -> Any:
    import slicer

    return slicer.vtkMRMLScene()


@pytest.fixture
def app() -> Iterator[Any]:
    """Slicer without windows: views draw off the screen."""
    from trame_slicer.core import SlicerApp
    from trame_slicer.views import DirectViewFactory

    running = SlicerApp()
    running.view_manager.register_factory(DirectViewFactory(do_render_offscreen=True))
    yield running
    for view in running.view_manager.get_slice_views():  # a view may outlive the colors of what it shows
        view.set_foreground_volume_id(None)
        view.set_background_volume_id(None)
