"""A picture of training: loss and validation figures over the epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .files import RESEARCH_USE, atomic_write
from .history import History

__all__ = ["CurvesPlot"]


class CurvesPlot:
    """Handler that draws ``curves.png``: losses on the left, retrieval and other figures from 0 to 1 on the right.

    Args:
        output_dir: folder of the run.
        history: where the figures are read; attach this handler after it.
        metrics: names on the right; all columns that stay within 0 and 1 by default.
        every: epochs between drawings; the end of training is always drawn.
    """

    def __init__(self, output_dir: str, history: History, metrics: Sequence[str] | None = None, every: int = 5) -> None:
        """See the class."""
        self.path = Path(output_dir) / "curves.png"
        self.history = history
        self.metrics = None if metrics is None else list(metrics)
        self.every = every

    def attach(self, engine: Engine) -> None:
        """Registers the handler with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every) | Events.COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Draws what the history holds, if anything."""
        rows = self.history.rows
        if not rows:
            return
        figure = Figure(figsize=(11, 4.2), layout="constrained")  # no pyplot: no global state, no display needed
        left, right = figure.subplots(1, 2)
        names = list(dict.fromkeys(name for row in rows for name in row))
        _draw(left, rows, [name for name in names if name.endswith("loss")])
        left.set(title="Contrastive loss", xlabel="epoch", ylabel="loss (nats)")
        _draw(right, rows, self._shown(names))
        right.set(title="Validation", xlabel="epoch", ylim=(0, 1.02))
        figure.supxlabel(RESEARCH_USE, fontsize=8, color="0.4")
        with atomic_write(self.path) as file:
            figure.savefig(file, format="png", dpi=110)

    def _shown(self, names: Sequence[str]) -> list[str]:
        if self.metrics is not None:
            return self.metrics
        own = {"epoch", "iteration", "learning_rate"}
        others = [name for name in names if name not in own and not name.endswith("loss")]
        return [name for name in others if all(0 <= row[name] <= 1 for row in self.history.rows if name in row)]


def _draw(axes: Axes, rows: Sequence[dict[str, float]], names: Sequence[str]) -> None:
    for name in names:
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points), marker="o" if len(points) < 40 else None, markersize=3, label=name.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if names:
        axes.legend(fontsize=8)
