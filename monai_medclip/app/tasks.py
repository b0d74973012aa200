"""What MONAI Label's clients can ask: the tasks, each of one trained bundle."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from monai_medclip.app.archive import ARCHIVE_CHOICES, Archive
from monai_medclip.app.limits import Refused, limits
from monai_medclip.app.markups import findings_markups, write_markups
from monai_medclip.app.options import choice, number, prompts_of, text
from monai_medclip.app.readable import readable
from monai_medclip.app.training import ReaderProbe
from monai_medclip.app.volumes import EXTENSIONS, write_nrrd, write_segments
from monai_medclip.engines import BundleModel, Heatmaps, Score, Study
from monai_medclip.engines.method_menu import CLS_OPTIONS
from monai_medclip.index import EmbeddingIndex, similar_cases
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.writers import heat_band_names, heat_bands
from monai_medclip.writers.colors import color_map
from monai_medclip.writers.maps import ras_affine

__all__ = ["Findings", "Heatmap", "ReportGrounding", "SimilarCases", "ZeroShot"]

THRESHOLD = 0.25
MAX_RAW_BYTES = 2 << 30  # of the raw maps of one report
MAX_SENTENCE_LABELS = 12  # names that a viewer's panel is told of before any report is known
Request = Mapping[str, Any]
Answer = tuple[str | None, dict[str, Any]]
Array = NDArray[Any]


class Task(InferTask):
    """Base: a request's image becomes a study, and every answer says which model gave it."""

    def __init__(
        self, model: BundleModel, type: InferType, description: str, config: dict[str, Any], labels: Any = ()
    ) -> None:
        """Name the task to the clients."""
        dimension = 3 if model.volumes else 2
        super().__init__(type, labels, dimension, f"{description} {RESEARCH_USE}.", config)
        self.model = model

    def is_valid(self) -> bool:
        """Always: the bundle was opened before."""
        return True

    def __call__(self, request: Request) -> Answer:
        """A file, or None, and what goes with it as JSON."""
        with readable(str(request["image"])) as path:
            study = self.model.study(path)
            file, says = self.answer(study, request)
        return file, says | {
            "model": self.model.name,
            "model_version": self.model.version,
            "intended_use": RESEARCH_USE,
        }

    @abstractmethod
    def answer(self, study: Study, request: Request) -> Answer:
        """The task itself."""


class Native(NamedTuple):
    """One map on the file's grid."""

    values: Array  # (x, y, z) float32
    affine: Array  # (4, 4), RAS


class Heatmap(Task):
    """Where a prompt is seen, as bands that viewers show or as the raw map."""

    def __init__(self, model: BundleModel, archive: Archive) -> None:
        """Offer prompt, method and the rest as options."""
        names = heat_band_names(THRESHOLD)
        config = {
            "prompt": model.findings[0] if model.findings else "",
            "method": list(model.methods),
            "threshold": THRESHOLD,
            "cls": list(CLS_OPTIONS),
            "map": ["bands", "float"],
            "archive": list(ARCHIVE_CHOICES),
        }
        labels = {name: number for number, name in enumerate(names, start=1)}
        super().__init__(model, InferType.SEGMENTATION, "Where a text prompt is seen.", config, labels)
        self.archive = archive

    def answer(self, study: Study, request: Request) -> Answer:
        """Bands or raw map; prompt, method, scores, range and a faithfulness check beside it."""
        prompt = text(request, "prompt", str(self._config["prompt"]))  # left away; a blank one is refused
        method = choice(request, "method", self.model.methods)
        threshold = number(request, "threshold", THRESHOLD, low=0.0, high=0.99)
        found = self.model.heatmaps(study, [prompt], method=method, cls=choice(request, "cls", CLS_OPTIONS))
        kind, archived = choice(request, "map", ("bands", "float")), choice(request, "archive", ARCHIVE_CHOICES)
        maps = self.model.scanner(found.maps)
        stored = self.archive.store(self.model, found, maps, threshold=threshold, choice=archived)
        native = _native(maps)
        says = heat_facts(self.model, found, threshold)
        if kind == "float":
            return str(write_nrrd(_result(".nrrd"), native.values, native.affine)), says | {"map": kind, **stored}
        names, colors = heat_band_names(threshold), color_map("plasma")([0.35, 0.65, 0.95])[:, :3]
        bands = heat_bands(native.values, threshold)
        file = _written(bands, native.affine, names, colors, _extension(request))
        return file, says | {"map": kind, "label_names": _numbered(names), **stored}


class ReportGrounding(Task):
    """Where each sentence of a report is seen."""

    def __init__(self, model: BundleModel) -> None:
        """Offer the report as a text."""
        config = {"report": "", "method": list(model.methods), "threshold": THRESHOLD, "map": ["bands", "float"]}
        labels = {f"sentence {number}": number for number in range(1, MAX_SENTENCE_LABELS + 1)}
        super().__init__(model, InferType.SEGMENTATION, "Where each sentence of a report is seen.", config, labels)

    def answer(self, study: Study, request: Request) -> Answer:
        """One label per sentence, where its map is above the threshold and, of its own maximum, above the others'."""
        report, method = text(request, "report"), choice(request, "method", self.model.methods)
        threshold = number(request, "threshold", THRESHOLD, low=0.0, high=0.99)
        found, spans = self.model.ground(study, report, method=method)
        sentences = [
            {"text": score.finding, "start": start, "end": end, "logit": score.logit, "maximum": float(heat.max())}
            for score, (start, end), heat in zip(found.scores, spans, found.maps, strict=True)
        ]
        says = {"sentences": sentences, "method": found.method, "threshold": threshold, "units": "logit"}
        natives = (_native(self.model.scanner(found.maps[one : one + 1])) for one in range(len(sentences)))
        if choice(request, "map", ("bands", "float")) == "float":
            return str(_raw_maps(natives, len(sentences))), says
        labels, affine = _strongest(natives, threshold)
        names = [f"sentence {number}" for number in range(1, len(sentences) + 1)]
        colors = color_map("plasma")(np.linspace(0.1, 0.95, len(names)))[:, :3]
        return _written(labels, affine, names, colors, _extension(request)), says | {"label_names": _numbered(names)}


class Findings(Task):
    """All findings' scores as text in the viewer, each where its own map is hottest."""

    def __init__(self, model: BundleModel, probe_folder: Path) -> None:
        """Offer the method that says where."""
        super().__init__(
            model,
            InferType.DETECTION,
            "Scores of all findings, as markups with text.",
            {"method": list(model.methods)},
            list(model.findings),
        )
        self.probe_folder = probe_folder

    def answer(self, study: Study, request: Request) -> Answer:
        """Markups JSON, and the scores; the readers' probe, once it is trained, beside them."""
        method = choice(request, "method", self.model.methods)
        found = self.model.heatmaps(study, self.model.findings, method=method)
        places: list[list[int]] = []
        for one in range(len(found.prompts)):  # one map of the file's grid at a time
            values, affine = _native(self.model.scanner(found.maps[one : one + 1]))
            places.append([int(index) for index in np.unravel_index(int(values.argmax()), values.shape)])
        content = findings_markups(found.scores, places, affine)
        return str(write_markups(_result(".json"), content)), scores_json(self.model, study, found.scores) | {
            "method": method,
            **probe_json(self.model, study, self.probe_folder),
        }


class ZeroShot(Task):
    """Scores as JSON."""

    def __init__(self, model: BundleModel, probe_folder: Path) -> None:
        """Offer prompts instead of the bundle's findings."""
        super().__init__(model, InferType.CLASSIFICATION, "Scores of findings or prompts, as JSON.", {"prompts": ""})
        self.probe_folder = probe_folder

    def answer(self, study: Study, request: Request) -> Answer:
        """Scores of the prompts, or of all findings."""
        prompts = prompts_of(request)
        probe = probe_json(self.model, study, self.probe_folder) if prompts is None else {}
        return None, scores_json(self.model, study, self.model.scores(study, prompts)) | probe


class SimilarCases(Task):
    """The nearest cases of the index, as JSON."""

    def __init__(self, model: BundleModel, index: EmbeddingIndex) -> None:
        """Offer how many."""
        super().__init__(model, InferType.OTHERS, "The nearest cases of the index, as JSON.", {"k": 5})
        self.index = index

    def answer(self, study: Study, request: Request) -> Answer:
        """Cases, nearest first."""
        k = int(number(request, "k", 5, low=1, high=limits().cases))
        (cases,) = similar_cases(self.index, self.model.embedding(study)[None], k)
        return None, {"cases": [{"rank": case.rank, "cosine": case.score, **_plain(case.record)} for case in cases]}


def heat_facts(model: BundleModel, found: Heatmaps, threshold: float) -> dict[str, Any]:
    """What travels beside a heatmap: plain Python, no NaN."""
    score, check = found.scores[0], model.faithfulness(found)
    return {
        "prompt": found.prompts[0],
        "method": found.method,
        "score": score.logit,
        "probability": score.probability,
        "maximum": float(found.maps.max()),
        "threshold": threshold,
        "units": "logit",
        "faithfulness": check._asdict() | {"supports": check.supports},
    }


def scores_json(model: BundleModel, study: Study, scores: Any) -> dict[str, Any]:
    """Scores as JSON, highest first."""
    ordered: list[Score] = sorted(scores, key=lambda score: -score.logit)
    return {"scores": [score._asdict() for score in ordered], "rule": model.rule}


def probe_json(model: BundleModel, study: Study, folder: Path) -> dict[str, Any]:
    """What the probe says that was trained on the readers' findings, if there is one of this model."""
    probe = ReaderProbe.load(folder, model)
    return {} if probe is None else {"reader_probe": probe.probabilities(model.embedding(study))}


def _native(maps: MetaTensor) -> Native:
    values = np.asarray(maps.as_tensor()[0].to(torch.float32).numpy())
    return Native(values if values.ndim == 3 else values[..., None], ras_affine(maps))


def _strongest(natives: Iterator[Native], threshold: float) -> Native:
    """Labels 1 to S (x, y, z): whose share of its own maximum is largest; 0 where none reaches the threshold."""
    first = next(natives)
    best = np.full_like(first.values, threshold)
    labels = np.zeros_like(first.values, np.uint8)
    for label, (values, _) in enumerate(chain([first], natives), start=1):
        share = values / max(float(values.max()), 1e-12)
        wins = (share > best) & (values > 0)
        labels[wins], best[wins] = label, share[wins]
    return Native(labels, first.affine)


def _raw_maps(natives: Iterator[Native], count: int) -> Path:
    """All maps in one file.

    Raises:
        Refused: they would take more memory than a server should give to one answer.
    """
    first = next(natives)
    if count * first.values.nbytes > MAX_RAW_BYTES:
        gigabytes = MAX_RAW_BYTES >> 30
        raise Refused(f"{count} maps of this volume take more than {gigabytes} GB: ask for fewer sentences.", 413)
    values = np.stack([first.values, *(native.values for native in natives)])  # (S, x, y, z)
    return write_nrrd(_result(".nrrd"), values, first.affine)


def _numbered(names: Any) -> dict[str, int]:
    return {name: number for number, name in enumerate(names, start=1)}


def _extension(request: Request) -> str:
    extension = text(request, "result_extension", EXTENSIONS[0]) or EXTENSIONS[0]
    if extension in (".nii", ".nii.gz"):  # clients that ask for what they sent; every one of them reads NRRD too
        return EXTENSIONS[0]
    if extension not in EXTENSIONS:
        raise Refused(f"result_extension={extension[:20]!r}: use one of {', '.join(EXTENSIONS)}.", 400)
    return extension


def _written(labels: Array, affine: Array, names: Any, colors: Any, extension: str) -> str:
    path = _result(extension)
    if extension == ".seg.nrrd":
        return str(write_segments(path, labels, affine, names, colors))
    return str(write_nrrd(path, labels, affine))


def _result(extension: str) -> Path:
    """A new file that MONAI Label removes once it is sent."""
    with tempfile.NamedTemporaryFile(prefix="medclip_", suffix=extension, delete=False) as file:
        return Path(file.name)


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("id", "text", "labels") if key in record}
