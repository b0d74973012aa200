"""Training from the viewer: `POST /train/reader_probe` fits the readers' probe on the findings they have corrected."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from monai_medclip.app.image_answers import ImageAnswers, ImagePath, stock_path
from monai_medclip.app.labels import ReaderFindings, all_findings
from monai_medclip.app.reader_probe import FewReadingsError, ReaderImage, ReaderProbe, fit_reader_probe
from monai_medclip.engines import BundleModel, write_json

__all__ = ["FewReadingsError", "FitReaderProbe", "ReaderProbe", "fit_reader_probe"]

logger = logging.getLogger(__name__)

STATS = "train_stats.json"
_EVERY = 1.0  # seconds between two notes of progress

Stats = dict[str, Any]


class FitReaderProbe(TrainTask):
    """Fits a logistic probe per finding on the embeddings of all images whose findings a reader has corrected.

    MONAI Label runs it in a process of its own. Every image that is read is kept at once, so that a training that was
    stopped goes on where it was; the server sees the new probe as soon as it is whole.

    Args:
        model: whose embeddings are fitted on.
        image_path: where an image of the datastore lies.
        folder: where probes and `stats` are kept.
    """

    def __init__(self, model: BundleModel, image_path: ImagePath = stock_path, *, folder: str | Path) -> None:
        """See the class."""
        super().__init__("A probe on the readers' findings, beside the zero-shot scores")
        self.answers, self.folder = ImageAnswers(model, image_path), Path(folder)

    def stats(self) -> Stats:
        """Progress and result of the last training, from whatever process, as MONAI Label's clients show them.

        ``epoch`` of ``total_epochs`` counts images, and the fit as one more; ``best_metric`` is the mean
        cross-validated AUC; ``total_time`` (seconds) is there once it has ended. Empty before the first training of
        this model.
        """
        with suppress(OSError, ValueError):
            found = json.loads(self._stats_file.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> Stats:
        """Read, fit, write.

        Returns:
            The stats, with what was fitted and what was left out and why; without ids, as MONAI Label logs it.

        Raises:
            FewReadingsError: no finding has enough readings.
        """
        readings = all_findings(datastore, self.answers.model.findings)
        progress = _Progress(self._stats_file, len(readings.readings) + 1)
        progress.note(damaged=len(readings.damaged), damaged_labels=list(readings.damaged))
        images, unreadable = [], 0
        for reading in readings.readings:
            image = self._image(datastore, reading)
            images += [image] if image else []
            unreadable += image is None
            progress.step(unreadable=unreadable)
        try:
            record = fit_reader_probe(self.answers.model, images, self.folder)
        except FewReadingsError as error:
            progress.done(best_metric=0.0, error=str(error))
            raise
        fits = {fit.finding: fit._asdict() for fit in record.findings}
        return progress.done(
            best_metric=record.mean_auc or 0.0,
            model_version=record.model_version,
            images=len(record.images),
            patients=len(record.groups),
            findings=fits,
            left_out=record.left_out,
        )

    @property
    def _stats_file(self) -> Path:
        return self.folder / self.answers.model.version / STATS

    def _image(self, datastore: Datastore, reading: ReaderFindings) -> ReaderImage | None:
        """An image with its embedding; None for one that cannot be read."""
        try:
            answer = self.answers.get(datastore, reading.image_id)
        except Exception as error:  # one bad file among many must not cost the training
            logger.warning("an image with findings cannot be read: %s", type(error).__name__)
            return None
        key = self.answers.digest(datastore, reading.image_id)
        return ReaderImage(key, answer.embedding, reading.findings, answer.patient)


class _Progress:
    """What `FitReaderProbe.stats` tells, as a file that other processes read."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self._start, self._noted = path, time.monotonic(), 0.0
        self.stats: Stats = {"epoch": 0, "total_epochs": steps, "best_metric": 0.0, "start_ts": int(time.time())}

    def note(self, **facts: Any) -> None:
        self.stats |= {"current_ts": int(time.time()), **facts}
        self._noted = time.monotonic()
        write_json(self.path, self.stats)

    def step(self, **facts: Any) -> None:
        self.stats |= {"epoch": self.stats["epoch"] + 1, **facts}
        if time.monotonic() > self._noted + _EVERY:
            self.note()

    def done(self, **facts: Any) -> Stats:
        self.stats["epoch"] = self.stats["total_epochs"]
        self.note(total_time=round(time.monotonic() - self._start, 3) or 0.001, **facts)
        return {name: fact for name, fact in self.stats.items() if name != "damaged_labels"}
