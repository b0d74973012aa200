"""Trying settings: one training per combination, compared on validation alone, each kept and resumed."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigWorkflow
from sklearn.model_selection import ParameterGrid, ParameterSampler
from tqdm import tqdm

from ..writers import Picture, Section, SweepRun, Table, sweep_figure, varied_settings
from .answer_page import AnswerPage
from .files import write_csv, write_json

__all__ = ["STRATEGIES", "Trial", "combinations", "sweep"]

logger = logging.getLogger(__name__)

STRATEGIES = ("one at a time", "grid", "random")


class Trial(NamedTuple):
    """One combination and what it reached on validation."""

    settings: dict[str, Any]
    folder: Path
    value: float  # the best validation figure over its epochs; NaN where training failed
    epoch: int  # at which it was reached, counted from 1; 0 where training failed
    error: str  # why training failed, or empty


def combinations(
    grid: Mapping[str, Sequence[Any]], *, strategy: str = "one at a time", trials: int = 20, seed: int = 0
) -> list[dict[str, Any]]:
    """Settings to try, without repetition.

    Args:
        grid: config id -> values; the first of each is the base.
        strategy: ``"one at a time"``: the base, then every other value with all else at the base; ``"grid"``: all
            combinations; ``"random"``: `trials` of them.
        trials: of ``"random"``.
        seed: of the draw.

    Raises:
        ValueError: another strategy, or a setting without values.
    """
    empty = [name for name, values in grid.items() if isinstance(values, str) or not len(values)]
    if strategy not in STRATEGIES or empty or not grid:
        raise ValueError(
            f"strategy {strategy!r}, settings without a list of values {empty}: choose one of {', '.join(STRATEGIES)}, "
            "and give every setting a list."
        )
    if strategy == "grid":
        return [dict(one) for one in ParameterGrid(dict(grid))]
    if strategy == "random":
        total = len(ParameterGrid(dict(grid)))
        return [dict(one) for one in ParameterSampler(dict(grid), min(trials, total), random_state=seed)]
    base = {name: values[0] for name, values in grid.items()}
    others = [{**base, name: value} for name, values in grid.items() for value in values[1:]]
    return [base, *others]


def sweep(
    config_files: Sequence[str],
    grid: Mapping[str, Sequence[Any]],
    *,
    output_dir: str,
    metric: str,
    settings: Mapping[str, Any] | None = None,
    strategy: str = "one at a time",
    trials: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> list[Trial]:
    """Trains every combination and compares them by their best validation figure; test items are not looked at.

    Each trial has a folder of its own, named by its settings. A sweep that was killed goes on where it was: finished
    trials are kept, an unfinished one resumes from its last epoch.

    Args:
        config_files: of the training task, as ``monai.bundle run`` takes them.
        grid: config id -> values, see `combinations`.
        output_dir: folder of ``trials.csv``, ``metrics.json``, ``report.html`` and the trials.
        metric: column of ``history.csv``; the larger the better.
        settings: config id -> value for all trials.
        strategy: see `combinations`.
        trials: see `combinations`.
        seed: see `combinations`; the trainings' own seed is a setting.
        progress: show a progress bar.

    Returns:
        The trials, best first.

    Raises:
        ValueError: see `combinations`; or every trial failed.
    """
    asked = combinations(grid, strategy=strategy, trials=trials, seed=seed)
    folder = Path(output_dir)
    found = []
    for one in tqdm(asked, desc="trials", disable=not progress):
        found.append(_trial(config_files, one, dict(settings or {}), folder, metric))
        _write(folder, found, len(asked), metric)
    if all(trial.error for trial in found):
        raise ValueError(f"all {len(found)} trials failed, the first because: {found[0].error}")
    ranked = _ranked(found)
    best = ranked[0]
    logger.info("best on validation: %s %.4f with %s (%s)", metric, best.value, best.settings, best.folder)
    return ranked


def _ranked(found: Sequence[Trial]) -> list[Trial]:
    """Best first, failed ones last, equal ones in their order."""
    return sorted(found, key=lambda trial: (trial.error != "", 0.0 if trial.error else -trial.value))


def _trial(
    config_files: Sequence[str], varied: dict[str, Any], fixed: dict[str, Any], folder: Path, metric: str
) -> Trial:
    configs = [Path(file).read_text(encoding="utf-8") for file in config_files]  # wherever they lie; edited: new trials
    name = hashlib.sha256(json.dumps([configs, varied, fixed], sort_keys=True, default=str).encode())
    own = folder / "trials" / name.hexdigest()[:12]
    record = own / "trial.json"
    if record.is_file():
        done = json.loads(record.read_text(encoding="utf-8"))
        if done["metric"] == metric and not done["error"]:
            return Trial(varied, own, float(done["value"]), int(done["epoch"]), "")
    error = ""
    try:
        overrides = {**fixed, **varied, "output_dir": str(own), "resume": (own / "last.pt").is_file()}
        workflow = ConfigWorkflow(list(config_files), workflow_type="train", logging_file=False, **overrides)
        workflow.parser["run"] = ["$@train#trainer.run()"]  # the test items stay unseen
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    except Exception as problem:  # whatever it was, the other trials go on
        error = _told(problem)
        logger.warning("the trial %s failed: %s", varied, error)
    value, epoch = (math.nan, 0) if error else _best(own / "history.csv", metric)
    if not error and math.isnan(value):
        error = f"no validation gave a finite {metric}"
    write_json(record, {"settings": varied, "metric": metric, "value": value, "epoch": epoch, "error": error})
    return Trial(varied, own, value, epoch, error)


def _told(problem: BaseException) -> str:
    """What went wrong, without the errors that MONAI's configuration wraps around it."""
    while isinstance(problem, RuntimeError) and problem.__cause__:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {problem}"


def _best(history: Path, metric: str) -> tuple[float, int]:
    """The largest figure of a run and its epoch; NaN and 0 where none is finite."""
    with history.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    figures = [(float(row[metric]), int(row["epoch"])) for row in rows if row.get(metric)]
    if not figures:
        known = sorted({name for row in rows for name, value in row.items() if value})
        raise ValueError(f"{history} has no figure {metric!r}, only {known}: name one of them.")
    finite = [figure for figure in figures if math.isfinite(figure[0])]
    return max(finite, key=lambda figure: figure[0], default=(math.nan, 0))


def _write(folder: Path, found: Sequence[Trial], asked: int, metric: str) -> None:
    ranked = _ranked(found)
    rows = [
        {**trial.settings, metric: trial.value, "epoch": trial.epoch, "error": trial.error, "folder": trial.folder.name}
        for trial in ranked
    ]
    write_csv(folder / "trials.csv", rows)
    best = ranked[0]
    write_json(
        folder / "metrics.json",
        {"metric": metric, "trials": len(found), "of": asked, "best": best._asdict(), "validation": rows},
    )
    if best.error:
        return
    page = AnswerPage(folder, "Settings tried")
    page.add([_section(ranked, metric)], "sweep")
    page.write(
        [
            f"{len(found)} of {asked} trials, compared by {metric} on validation items. The test items were not looked "
            f"at: the best trial's figures on them are still to be asked for. Best: {best.settings}.",
            "The best of many trials is too good: on validation, some of its lead is luck.",
        ]
    )


def _section(ranked: Sequence[Trial], metric: str) -> Section:
    """The table, and where settings vary already, the picture."""
    best = ranked[0]
    columns = [*best.settings, metric, "epoch", "error"]
    cells = [[*map(str, trial.settings.values()), trial.value, trial.epoch, trial.error] for trial in ranked]
    table = Table(columns, cells, "Trials, best first")
    runs = [SweepRun(trial.settings, trial.value) for trial in ranked]
    if not varied_settings(runs):
        return Section("Trials", (), [table])
    picture = Picture(
        sweep_figure(runs, measure=f"{metric}\n(validation)"),
        "Every trial's best validation figure against each setting that varied.",
        f"Best: {metric} {best.value:.3f} with {best.settings}.",
    )
    return Section("Trials", (), [table], [picture])
