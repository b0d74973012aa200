"""Confusion matrix: what was called what, as counts, with each true class shaded by its shares."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from monai_medclip.writers.figure import escaped
from monai_medclip.writers.saving import new_figure, put_notice

__all__ = ["confusion_figure"]

_NAME_LETTERS = 26  # of a class name in one line
_FEW = 8  # classes up to which a cell has room for its share in words


def confusion_figure(matrix: ArrayLike, names: Sequence[str], *, title: str = "") -> Figure:
    """Counts in every cell, shaded by their share of the true class, so that rare classes show as well.

    scikit-learn's ``ConfusionMatrixDisplay`` draws either counts or shares, and needs pyplot.

    Args:
        matrix: (K, K) counts, rows true, columns predicted.
        names: K classes.
        title: such as the model and the data.

    Raises:
        ValueError: no square of counts that fits the names.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(names), len(names)) or not len(names) or not (counts >= 0).all():
        raise ValueError(f"the matrix {counts.shape} must hold counts from 0 for {len(names)} x {len(names)} classes.")
    cases = counts.sum(axis=1)  # (K,)
    shares = np.divide(counts, cases[:, None], out=np.full(counts.shape, np.nan), where=cases[:, None] > 0)  # (K, K)
    cell = 0.62 if len(names) <= _FEW else 0.48
    figure = new_figure((cell * len(names) + 4.6, cell * len(names) + 3.2))
    axes = figure.subplots()
    shade = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor("0.85")  # of classes without a case
    for row, column in np.ndindex(*counts.shape):
        _count(axes, row, column, float(counts[row, column]), float(shares[row, column]), len(names) <= _FEW)
    labels = [escaped(textwrap.fill(name, _NAME_LETTERS)) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_yticks(range(len(names)), [f"{one} ({n:g})" for one, n in zip(labels, cases, strict=True)], fontsize=8.5)
    axes.set(xlabel="predicted", ylabel="true (cases)")
    bar = figure.colorbar(shade, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(escaped(title))
    right = int(np.trace(counts))
    absent = ", ".join(escaped(name) for name, n in zip(names, cases, strict=True) if not n)
    put_notice(figure, f"right, on the diagonal: {right} of {int(cases.sum())}", f"no case: {absent}" if absent else "")
    return figure


def _count(axes: Axes, row: int, column: int, count: float, share: float, in_words: bool) -> None:
    """One cell: its count, and its share of the row where there is room."""
    said = f"{count:g}\n{100 * share:.0f} %" if in_words and np.isfinite(share) else f"{count:g}"
    color = "white" if share > 0.55 else "0.15" if count else "0.6"
    axes.text(column, row, said, ha="center", va="center", fontsize=8, color=color)
