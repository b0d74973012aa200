"""What a bundle says of one DICOM case: its DICOM results, stored, and the lines that tell of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from ..data import ArchiveError, DicomCase, link_file
from ..transforms import BadInputError, find_ct_stacks
from ..writers import DicomStatements, DicomStore, RefusedError, Statement, dicom_results, dicom_source
from .bundle_model import BundleModel, Score, Study
from .dicom_ledger import DONE, FAILED, BatchRow

__all__ = ["CaseAsker", "Questions", "WrongQuestionError", "dicom_statements"]

_UNKNOWN_REMEDY = "Ask about this image alone, which shows the whole error; if the image is sound, report it."


class Questions(NamedTuple):
    """What is asked about each image."""

    prompts: tuple[str, ...]  # F
    method: str  # of the bundle's
    kinds: tuple[str, ...]  # of DICOM_KINDS, each once


class WrongQuestionError(ValueError):
    """Questions that no image can answer: the batch stops."""


class _Image(NamedTuple):
    """What the network reads as one."""

    path: Path  # a radiograph's file, or a folder with one CT stack
    stack_uid: str


class _Answers(NamedTuple):
    objects: list[Dataset]  # prompt by prompt, the report last
    asked: list[Score]  # one per prompt
    others: list[Score]  # the bundle's other findings


class CaseAsker:
    """Asks about one case after the other and stores what comes of it.

    Args:
        model: the bundle.
        questions: the same for all cases.
        store: where DICOM results go.
    """

    def __init__(self, model: BundleModel, questions: Questions, store: DicomStore) -> None:
        """See the class."""
        self.model, self.questions, self.store = model, questions, store

    def __call__(self, case: DicomCase, files: Sequence[Path], begin: Callable[[], bool]) -> list[BatchRow]:
        """Ask about a case.

        Args:
            case: whose files these are.
            files: in a folder of their own.
            begin: called before the first object is stored; says whether some may be there from a former attempt.

        Returns:
            One row per image and question; one per image that fails.

        Raises:
            WrongQuestionError: a bad prompt.
            ArchiveError: the archive that is stored in does not answer.
        """
        try:
            images = list(self._images(files))
        except BadInputError as error:
            return [failed_row(case, error)]
        return [row for image in images for row in self._image_rows(case, image, begin)]

    def _images(self, files: Sequence[Path]) -> Iterator[_Image]:
        if not self.model.volumes:
            yield from (_Image(file, "") for file in files)
            return
        folder = files[0].parent
        stacks = find_ct_stacks(folder)
        for number, stack in enumerate(stacks, start=1):
            own = folder if len(stacks) == 1 else folder / f"stack_{number}"
            own.mkdir(exist_ok=True)
            for file in stack.files if own != folder else ():
                link_file(Path(file), own / Path(file).name)
            yield _Image(own, stack.uid)

    def _image_rows(self, case: DicomCase, image: _Image, begin: Callable[[], bool]) -> list[BatchRow]:
        started = time.monotonic()
        try:
            answers = self._answers(image.path)
            places = self.store.store(answers.objects, again=begin())
        except (ArchiveError, WrongQuestionError):
            raise
        except Exception as error:  # whatever it is, the other images are asked
            return [failed_row(case, error, image.stack_uid)]
        return self._rows(case, image, answers, places, time.monotonic() - started)

    def _answers(self, path: Path) -> _Answers:
        source = dicom_source(path)  # first: what results cannot refer to is not worth the network's time
        study = self.model.study(path)
        prompts, method, kinds = self.questions
        asked = self._scores(path, prompts)
        statements = dicom_statements(self.model, study, asked, method=method)
        told = {one.text for one in statements.findings}
        others = [one for one in self.model.scores(study) if one.finding in told]
        maps = None
        if kinds != ("report",):
            maps = self.model.scanner(self.model.heatmaps(study, prompts, method=method).maps)
        return _Answers(dicom_results(source, maps, statements, kinds=kinds), asked, others)

    def _scores(self, path: Path, prompts: Sequence[str]) -> list[Score]:
        try:
            return self.model.scores(self.model.study(path), prompts)
        except BadInputError:
            raise
        except ValueError as error:
            raise WrongQuestionError(str(error)) from error

    def _rows(
        self, case: DicomCase, image: _Image, answers: _Answers, places: Sequence[str], seconds: float
    ) -> list[BatchRow]:
        reported = "report" in self.questions.kinds
        each = len(self.questions.kinds) - reported
        common = case_row(case, DONE, image.stack_uid)._replace(
            model=self.model.name,
            model_version=self.model.version,
            report=places[-1] if reported else "",
            seconds=round(seconds, 3),
        )
        rows = []
        for number, (prompt, score) in enumerate(zip(self.questions.prompts, answers.asked, strict=True)):
            finding = score.finding if score.finding in self.model.findings else ""
            own = " ".join(places[number * each : (number + 1) * each])
            method = self.questions.method if each else ""
            rows.append(_scored(common, score)._replace(finding=finding, prompt=prompt, method=method, objects=own))
        return rows + [_scored(common, score)._replace(finding=score.finding) for score in answers.others]


def dicom_statements(
    model: BundleModel, study: Study, asked: Sequence[Score], *, method: str, threshold: float = 0.25
) -> DicomStatements:
    """What DICOM results tell of an image: the answers that have maps, and the scores of all other findings.

    Args:
        model: that gave them.
        study: the image.
        asked: scores of the prompts, one per map.
        method: the explainer's name.
        threshold: share of a map's maximum from which it is tinted.
    """
    known = {score.finding for score in asked}
    others = [one for one in model.scores(study) if one.finding not in known]
    answers, findings = (
        tuple(Statement(one.finding, one.logit, one.probability) for one in scores) for scores in (asked, others)
    )
    return DicomStatements(answers, method, model.name, model.version, findings, threshold)


def case_row(case: DicomCase, status: str, stack_uid: str = "") -> BatchRow:
    """A row that says which image it is about, and nothing else."""
    sop_uid = "" if stack_uid or len(case.instances) > 1 else case.instances[0].sop_uid
    return BatchRow(case.study_uid, case.series_uid, sop_uid, stack_uid, case.file, status)


def failed_row(case: DicomCase, error: Exception, stack_uid: str = "") -> BatchRow:
    """A row with the rule that is broken and the remedy; our own errors name them, others are told as they are."""
    row = case_row(case, FAILED, stack_uid)
    if isinstance(error, BadInputError | ArchiveError | RefusedError):
        return row._replace(reason=error.reason, remedy=error.remedy)
    told = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
    return row._replace(reason=told, remedy=_UNKNOWN_REMEDY)


def _scored(row: BatchRow, score: Score) -> BatchRow:
    return row._replace(logit=score.logit, probability=score.probability)
