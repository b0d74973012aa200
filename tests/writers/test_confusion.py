"""Counts stay counts, the shade is the share of the true class."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers.confusion import confusion_figure

from .drawn import cut_texts, words


def test_cells_are_counts_and_shades_are_shares_of_the_row() -> None:
    figure = confusion_figure([[3, 1, 0], [0, 0, 0], [2, 0, 198]], ["normal", "mass $x$", "nodule"], title="run")
    axes = figure.axes[0]
    shares = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [np.nan] * 3, [0.01, 0, 0.99]])
    assert [text.get_text() for text in axes.texts[:3]] == ["3\n75 %", "1\n25 %", "0\n0 %"]
    assert [text.get_text() for text in axes.texts[3:6]] == ["0", "0", "0"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["normal (4)", r"mass \$x\$ (0)", "nodule (200)"]
    said = words(figure)
    assert "201 of 204" in said
    assert r"no case: mass \$x\$" in said
    assert RESEARCH_USE in said


def test_twenty_classes_with_long_names_are_readable() -> None:
    names = [f"class {number} with a name of some length" for number in range(20)]
    figure = confusion_figure(np.full((20, 20), 1234), names)
    assert cut_texts(figure) == []
    axes = figure.axes[0]
    assert axes.texts[0].get_text() == "1234"
    assert len(axes.texts) == 400
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert not any(left.overlaps(right) for left, right in pairwise(boxes))
    labels = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert not any(upper.overlaps(lower) for upper, lower in pairwise(labels))


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, -1], [0, 1]], [[1, np.nan], [0, 1]]])
def test_what_is_no_matrix_of_counts_is_refused(matrix) -> None:
    with pytest.raises(ValueError, match="counts from 0 for 2 x 2"):
        confusion_figure(matrix, ["a", "b"])
