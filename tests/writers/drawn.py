"""What tests look for in a drawn figure: its words, its pixels, and parts that overlap."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from monai_medclip.writers.saving import figure_png


def words(figure: Figure) -> str:
    """All visible text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


def pictures(figure: Figure) -> list[np.ndarray]:
    """The RGB arrays of a figure's images, in the order drawn."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def cut_texts(figure: Figure) -> list[str]:
    """Texts that leave the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    cut = []
    unseen = {id(tick.label1) for axes in figure.axes for tick in _unseen_ticks(axes)}
    for text in figure.findobj(Text):
        if id(text) in unseen:
            continue
        box = text.get_window_extent(canvas.get_renderer())
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        if text.get_text().strip() and text.get_visible() and not inside:
            cut.append(text.get_text())
    return cut


def _unseen_ticks(axes: Axes) -> Iterator[Tick]:
    """Ticks that matplotlib holds ready outside what the axes show."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        yield from (tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high)


def png_of(figure: Figure) -> Image.Image:
    """The figure as the PNG that would be written."""
    return Image.open(BytesIO(figure_png(figure)))
