"""Several runs at once: mean and spread of every figure over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FigureSummary", "RunsSummary", "summarize_runs"]


class FigureSummary(NamedTuple):
    """One figure over the runs that have it."""

    name: str  # path in metrics.json, such as ``zero_shot/macro_auc``
    mean: float
    spread: float  # sample standard deviation; 0 for a single run
    low: float
    high: float
    runs: int


class RunsSummary(NamedTuple):
    """All figures over all runs."""

    folders: tuple[Path, ...]
    figures: tuple[FigureSummary, ...]

    def table(self, containing: str = "") -> str:
        """A Markdown table of the figures whose name contains a text."""
        rows = [one for one in self.figures if containing in one.name]
        lines = ["| figure | mean ± spread | lowest to highest | runs |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {one.name} | {one.mean:.3f} ± {one.spread:.3f} | {one.low:.3f} to {one.high:.3f} | {one.runs} |"
            for one in rows
        ]
        return "\n".join(lines)


def summarize_runs(folders: Iterable[str | Path]) -> RunsSummary:
    """Reads the ``metrics.json`` of several runs, usually one configuration with several seeds.

    Args:
        folders: folders of the runs.

    Raises:
        ValueError: without folders.
        FileNotFoundError: when a folder has no ``metrics.json``.
    """
    paths = tuple(Path(folder) for folder in folders)
    if not paths:
        raise ValueError("There are no runs to summarize: name the folders that hold a metrics.json.")
    values: dict[str, list[float]] = {}
    for path in paths:
        for name, value in _figures(_read(path / "metrics.json")):
            values.setdefault(name, []).append(value)
    return RunsSummary(paths, tuple(_summary(name, found) for name, found in values.items()))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: evaluate that run first (evaluate.json writes it).")
    return json.loads(path.read_text(encoding="utf-8"))


def _figures(content: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _figures(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield prefix, float(content)


def _summary(name: str, values: list[float]) -> FigureSummary:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return FigureSummary(name, statistics.fmean(values), spread, min(values), max(values), len(values))
