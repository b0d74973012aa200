"""Figures as they begin and end: an empty sheet, the notice, and files that appear only when whole."""

from __future__ import annotations

import os
import textwrap
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from monai_medclip.files import atomic_write
from monai_medclip.notice import RESEARCH_USE

__all__ = ["figure_png", "save_figure", "write_whole"]

DPI = 120


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Writes a file that appears under its name only when all of it is there.

    Args:
        path: the final name; missing parent folders are made, a former file is replaced.
        content: all of it.

    Returns:
        The path.
    """
    with atomic_write(path) as file:
        file.write_bytes(content)
    return Path(path)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG whose metadata say what it may be used for, as the figure itself does."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Disclaimer": RESEARCH_USE})
    return stream.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure of this room as PNG.

    Args:
        figure: as the functions of this room make it.
        path: file name ending in ``.png``.

    Raises:
        ValueError: another ending.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path} must end in .png: pictures are written as PNG.")
    return write_whole(path, figure_png(figure))


def new_figure(size_inches: tuple[float, float]) -> Figure:
    """An empty figure that keeps its parts apart and off the edge; without pyplot, so without global state."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    return Figure(figsize=size_inches, layout=layout)


def put_notice(figure: Figure, *lines: str) -> None:
    """Below a figure: what has to be said about it, wrapped to its width, and what it may be used for."""
    width = max(40, int(figure.get_figwidth() * 15))
    said = [textwrap.fill(line, width) for line in (*lines, RESEARCH_USE) if line]
    figure.supxlabel("\n".join(said), fontsize=8, color="0.25")
