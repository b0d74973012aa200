"""Similar cases: a query and what was found like it, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from monai_medclip.writers.figure import escaped, show
from monai_medclip.writers.saving import new_figure, put_notice
from monai_medclip.writers.thumbnails import thumbnail

__all__ = ["similar_cases_figure"]


def similar_cases_figure(pictures: Sequence[tuple[str, np.ndarray]], *, title: str = "") -> Figure:
    """A row of pictures, the query first.

    Args:
        pictures: heading and image, as `thumbnail` takes it, of the query and of each case, nearest first.
        title: such as the data.

    Raises:
        ValueError: no picture, or an image that cannot be drawn.
    """
    if not pictures:
        raise ValueError("no picture to draw: give the query and its similar cases.")
    figure = new_figure((2.5 * len(pictures), 3.4))
    grid = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axes, (head, image) in zip(grid, pictures, strict=True):
        show(axes, thumbnail(image))
        axes.set_title(escaped(head), fontsize=8.5, color="0.25")
    figure.suptitle(escaped(title))
    put_notice(figure)
    return figure
