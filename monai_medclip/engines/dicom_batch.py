"""A folder or an archive of DICOM studies, one image after the other: scores, heatmaps, and DICOM results stored."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..data import (
    Archive,
    ArchiveError,
    DicomCase,
    DicomCases,
    LeftOut,
    archive_cases,
    case_folder,
    folder_cases,
    is_archive,
)
from ..writers import DICOM_KINDS, ArchiveStore, DicomStore, FolderStore
from ..writers.dicom_parts import highdicom
from .bundle_model import BundleModel
from .dicom_answers import CaseAsker, Questions, failed_row
from .dicom_ledger import DONE, FAILED, SKIPPED, BatchRow, Ledger
from .files import write_csv

__all__ = ["USUAL_KINDS", "BatchRequest", "BatchSummary", "run_dicom_batch"]

USUAL_KINDS = ("parametric_map", "capture", "report")
"""A Segmentation must be asked for: archives and readers take it for a label that somebody has drawn."""

_SILENT_CASES = 3  # in a row whose archive does not answer: then the batch stops


class BatchRequest(NamedTuple):
    """What to ask of which studies, and where to put it."""

    bundle: str | Path  # a training run's folder, or a packed bundle
    studies: str  # a folder or file, or the address of a DICOMweb archive
    output: str | Path  # folder of results.csv, of what is needed to resume, and of DICOM results without `stow`
    prompts: tuple[str, ...] = ()  # free text or findings; none: the bundle's findings
    method: str | None = None  # None: the bundle's first
    kinds: tuple[str, ...] = USUAL_KINDS  # of DICOM_KINDS
    query: Mapping[str, str] = {}  # QIDO-RS filters, for an archive; see `parse_query`
    stow: str | None = None  # address of the DICOMweb archive that results go to
    resume: bool = False  # go on with the batch in `output`
    device: str = "cpu"


class BatchSummary(NamedTuple):
    """How a batch ended, in images; what was done by the runs before counts too."""

    done: int
    failed: int
    skipped: int  # objects that are not asked about, with good reason
    resumed: int  # of those done, by the runs before
    csv: Path

    def __str__(self) -> str:
        """One line, without any patient."""
        before = f" ({self.resumed} by earlier runs)" if self.resumed else ""
        return f"{self.done} done{before}, {self.failed} failed, {self.skipped} skipped: see {self.csv}"


def run_dicom_batch(request: BatchRequest, *, progress: bool | None = None) -> BatchSummary:
    """Ask a bundle about every radiograph or CT stack, and store what it says as DICOM.

    ``results.csv`` has a line for each image and question, each failure with its rule and remedy, and each object that
    was skipped. It is written at the end, also of a run that is stopped; after a kill, by the run that resumes.

    Args:
        request: what to ask of which studies.
        progress: whether to show progress bars; None shows them on a terminal.

    Returns:
        Counts; `failed` above 0 should end a program with an error.

    Raises:
        ValueError: the request cannot be met: unknown method or kind, bad prompts, `query` for a folder, another batch
            in `output`.
        FileNotFoundError: no such bundle or folder.
        ImportError: highdicom or dicomweb-client is missing.
        ArchiveError: the archive does not answer at the start, or for three cases in a row.
    """
    highdicom()  # missing, it is missed now and not once per image
    archive = _source(request)
    output = Path(request.output)
    store = ArchiveStore(Archive(request.stow)) if request.stow else FolderStore(output / "dicom")
    model = BundleModel.open(request.bundle, device=request.device, studies=1)
    questions = _questions(model, request)
    ledger = Ledger(output / "ledger.jsonl", _settings(model, questions, store), resume=request.resume)
    with _quiet():
        if archive:
            found = archive_cases(archive, request.query, volumes=model.volumes, progress=progress)
        else:
            found = folder_cases(request.studies, volumes=model.volumes, progress=progress)
        batch = _Batch(CaseAsker(model, questions, store), ledger, archive, output / "unfinished")
        before = sum(ledger.is_done(case.key) for case in found.cases)
        try:
            batch.run(found, progress)
        finally:
            shutil.rmtree(batch.work, ignore_errors=True)
            rows = [*ledger.rows, *map(_left_out_row, found.left_out)]
            csv = write_csv(output / "results.csv", [row._asdict() for row in rows])
    return _summary(rows, before, csv)


class _Batch(NamedTuple):
    """All cases, one after the other."""

    ask: CaseAsker
    ledger: Ledger
    archive: Archive | None
    work: Path  # holds the files of the case at hand

    def run(self, found: DicomCases, progress: bool | None) -> None:
        """Ask about each case that is not done.

        Raises:
            ArchiveError: the archive does not answer for several cases in a row.
            WrongQuestionError: a ValueError; no case can be asked so.
        """
        shutil.rmtree(self.work, ignore_errors=True)  # of a run that was killed
        silent = 0
        disable = None if progress is None else not progress
        for number, case in enumerate(tqdm(found.cases, "Asking", unit="case", disable=disable)):
            if self.ledger.is_done(case.key):
                continue
            try:
                rows, silent = self._rows(case, number), 0
            except ArchiveError as error:
                silent = 0 if error.status else silent + 1
                rows = [failed_row(case, error)]
                if silent == _SILENT_CASES:
                    self.ledger.end(case.key, rows)
                    raise
            self.ledger.end(case.key, rows)

    def _rows(self, case: DicomCase, number: int) -> list[BatchRow]:
        # A folder of its own for each case: the model knows an image again by path, size and time.
        try:
            with case_folder(case, self.work / f"{number:06d}", self.archive) as files:
                return self.ask(case, files, lambda: self.ledger.begin(case.key))
        except OSError as error:  # a file that is gone, a full disk
            return [failed_row(case, error)]


def _source(request: BatchRequest) -> Archive | None:
    if is_archive(request.studies):
        return Archive(request.studies)
    if request.query:
        raise ValueError(f"a query ({', '.join(request.query)}) is for an archive: name its address, or leave it out.")
    return None


def _questions(model: BundleModel, request: BatchRequest) -> Questions:
    method = request.method or model.methods[0]
    if method not in model.methods:
        raise ValueError(f"unknown method {method!r}: use one of {', '.join(model.methods)}.")
    unknown = [kind for kind in request.kinds if kind not in DICOM_KINDS]
    if unknown or not request.kinds:
        raise ValueError(f"kinds={request.kinds!r}: name one or more of {', '.join(DICOM_KINDS)}.")
    prompts = tuple(prompt.strip() for prompt in request.prompts) or model.findings
    return Questions(prompts, method, tuple(dict.fromkeys(request.kinds)))


def _settings(model: BundleModel, questions: Questions, store: DicomStore) -> dict[str, object]:
    return {"model_version": model.version, **questions._asdict(), "destination": store.name}


def _left_out_row(one: LeftOut) -> BatchRow:
    return BatchRow(
        study_uid=one.study_uid,
        series_uid=one.series_uid,
        sop_uid=one.sop_uid,
        stack_uid="",
        file=one.file,
        status=FAILED if one.remedy else SKIPPED,
        reason=one.reason,
        remedy=one.remedy,
    )


def _summary(rows: list[BatchRow], before: int, csv: Path) -> BatchSummary:
    """Counts of images and objects, whose rows share their identifiers."""
    images = {(row.study_uid, row.series_uid, row.sop_uid, row.stack_uid, row.file): row.status for row in rows}
    counts = Counter(images.values())
    return BatchSummary(counts[DONE], counts[FAILED], counts[SKIPPED], before, csv)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of libraries that quote a header's values or a query: a patient's, too."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom", "urllib3", "retrying", "dicomweb_client")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
