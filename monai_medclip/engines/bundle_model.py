"""A trained bundle that answers questions about one image after the other: scores, heatmaps, words, embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from ..explainers import ReportGrounding, TextGradECLIP, remembering_tokens
from ..findings import Finding
from ..index import EmbeddingIndex
from ..inferers import HeatmapInferer
from ..networks import ZeroShotClassifier, as_findings
from ..outputs import WordWeights
from ..transforms import bad_input_cause
from ..writers import scanner_maps, unit_image
from .asked import asked_findings, checked_report, checked_sentences
from .faithfulness import Faithfulness, faithfulness
from .method_menu import CLS_OPTIONS, PREFIX_METHOD, method_menu
from .recent import Recent
from .run_config import trained_config
from .stored_embeddings import weights_digest

__all__ = ["BundleModel", "Heatmaps", "Score", "Study"]

_PAIR_RULES = ("positive_minus_normal", "positive_minus_negative", "name_pair")


class Score(NamedTuple):
    """What the network says of one question."""

    finding: str  # or the prompt
    logit: float  # finite
    probability: float | None  # 0 to 1, of the pair for and against, not calibrated; None where there is no pair


class Study(NamedTuple):
    """One image as the network reads it."""

    key: str  # of its file, its size and time
    path: str
    image: MetaTensor  # (C, *spatial) in display order, with its history


class Heatmaps(NamedTuple):
    """Maps of one image, one per prompt, and the scores that they explain."""

    study: Study
    prompts: tuple[str, ...]  # F
    method: str
    scores: tuple[Score, ...]  # F
    maps: MetaTensor  # (F, *spatial) float32, logits, display order; carries the image's history


class BundleModel:
    """A trained CLIP, its preprocessing and its prompts, opened once and asked by any number of threads.

    The network is used by one thread at a time. Prepared images, answers and prompts are kept, the least recently used
    go first, so memory is bounded; a new prompt on an image that was asked before reads neither file nor weights again.

    Attributes:
        name: of the bundle's folder.
        version: 12 hexadecimal digits that change with the weights.
        findings: those that the bundle was made for.
        methods: names of the explainers on offer; the first is the default.
        volumes: whether it reads CT volumes; otherwise radiographs or photographs.
    """

    def __init__(self, config: dict[str, Any], *, name: str, device: str = "cpu", studies: int = 4) -> None:
        """Build the network and load its weights; see `open`."""
        parser = ConfigParser(config)
        self.name, self.device = name, torch.device(device)
        self.clip = parser.get_parsed_content("clip").to(self.device)
        _load(parser, name)
        self.clip.eval().requires_grad_(False)
        self.tokenizer: Callable[..., Any] = parser.get_parsed_content("tokenizer")
        self.rule: str = parser.get_parsed_content("rule")
        self.prepare: Any = parser.get_parsed_content("image_preprocessing")
        self.read_report: Any = parser.get_parsed_content("read_report")
        self.image_key: str = parser.get_parsed_content("image_key")
        self.channel: int | None = parser.get_parsed_content("channel")
        self.volumes = bool(parser.get_parsed_content("volumes"))
        self.known = as_findings(parser.get_parsed_content("prompts"))
        self.findings = tuple(finding.name for finding in self.known)
        self.version = weights_digest(self.clip)[:12]
        self.methods = tuple(method_menu(self._asking(self.known)))
        self._lock = Lock()  # around the network: explainers borrow its mode and its flags
        self._studies: Recent[Study] = Recent(studies)
        self._answers: Recent[Heatmaps] = Recent(4 * studies)
        self._classifiers: Recent[ZeroShotClassifier] = Recent(64)
        self._embeddings: Recent[Tensor] = Recent(64 * studies)
        self._batches: Recent[Tensor] = Recent(studies)
        self._tokens: Recent[dict[Hashable, Tensor]] = Recent(studies)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "cpu", studies: int = 4) -> BundleModel:
        """Open a trained bundle.

        Args:
            folder: a training run's output folder, or a packed bundle; see `trained_config`.
            device: where the network runs.
            studies: how many prepared images are kept.

        Raises:
            FileNotFoundError, ValueError: as `trained_config`; weights that do not fit the configuration.
        """
        return cls(trained_config(folder), name=Path(folder).resolve().name, device=device, studies=studies)

    def study(self, path: str | Path) -> Study:
        """Read and prepare an image, or take it from those kept.

        Args:
            path: a file, or a folder of DICOM slices.

        Raises:
            BadInputError: the file cannot be used; with rule and remedy.
        """
        path = self._file(Path(path))
        key = _file_key(path)
        return self._studies.get(key, lambda: Study(key, str(path), self._prepared(path)))

    def scores(self, study: Study, prompts: Sequence[str] | None = None) -> list[Score]:
        """Scores of prompts, or of the bundle's findings.

        Args:
            study: the image.
            prompts: free text; a finding's name is asked by its prompt ensemble.

        Raises:
            ValueError: a blank or too long prompt, or more than 16.
        """
        classifier = self._classifier(prompts)
        embedding = self.embedding(study)
        with self._lock, torch.no_grad():
            logits = classifier.score(embedding[None])[0]
        return _scores(classifier, logits)

    def heatmaps(
        self, study: Study, prompts: Sequence[str], *, method: str | None = None, cls: str = "default"
    ) -> Heatmaps:
        """One map per prompt, all by one method.

        Args:
            study: the image.
            prompts: as for `scores`.
            method: one of `methods`; None for the first.
            cls: see `method_menu`; only for the method that has this choice.

        Raises:
            ValueError: bad prompts, an unknown method, or `cls` for a method without it.
        """
        method = self._method(method, cls)
        asked = tuple(prompt.strip() for prompt in prompts)

        def explained() -> Heatmaps:
            classifier = self._classifier(asked)
            inferer = HeatmapInferer(method_menu(classifier, cls=cls)[method])
            with self._network(study) as batch:
                found = inferer.explain(batch, classifier)
            maps = MetaTensor(found.heatmap[0].cpu()).copy_meta_from(study.image)
            return Heatmaps(study, asked, method, tuple(_scores(classifier, found.scores[0])), maps)

        self._classifier(asked)  # bad prompts are refused before anything is kept
        return self._answers.get((study.key, asked, method, cls), explained)

    def ground(self, study: Study, report: str, *, method: str | None = None) -> tuple[Heatmaps, list[tuple[int, int]]]:
        """One map for every sentence of a report, and where each stands in it (character spans, end exclusive).

        Raises:
            ValueError: an empty or too long report, or an unknown method.
        """
        method = self._method(method, "default")
        text = checked_report(report)
        spans = checked_sentences(text)
        explainer = method_menu(self._asking(self.known))[method]
        sentences = [text[slice(*span)] for span in spans]
        with self._network(study) as batch:
            found = ReportGrounding(explainer, self.tokenizer)(self.clip, batch, sentences, spans)
        maps = MetaTensor(found.heatmap[0].cpu()).copy_meta_from(study.image)
        scores = tuple(
            Score(sentence, float(logit), None)
            for sentence, logit in zip(found.sentences, found.scores[0], strict=True)
        )
        return Heatmaps(study, found.sentences, method, scores, maps), spans

    def words(self, study: Study, text: str) -> WordWeights:
        """Which words of a report carry the score of image and report (Grad-ECLIP from the text side).

        Raises:
            ValueError: an empty or too long report.
        """
        item = self.read_report({"text": checked_report(text)})
        with self._lock:
            return TextGradECLIP()(
                self.clip,
                self._batch(study),
                str(item.get("text_original", text)),
                item["input_ids"],
                item["token_spans"],
            )

    def embedding(self, study: Study) -> Tensor:
        """The image's unit embedding (E,)."""

        def embedded() -> Tensor:
            with self._lock, torch.no_grad():
                return self.clip.encode_image(self._batch(study))[0]

        return self._embeddings.get(study.key, embedded)

    def text_embedding(self, text: str) -> Tensor:
        """The unit embedding (E,) of a text.

        Raises:
            ValueError: an empty or too long text.
        """
        item = self.read_report({"text": checked_report(text)})
        with self._lock, torch.no_grad():
            return self.clip.encode_text(*(item[key][None].to(self.device) for key in ("input_ids", "attention_mask")))[
                0
            ]

    def index(self, folder: str | Path) -> EmbeddingIndex:
        """The index of this model's image embeddings.

        Args:
            folder: an index, or a folder of them, such as a run's ``index``, which `retrieve.json` fills.

        Raises:
            FileNotFoundError: there is none in it.
            ValueError: those in it were made by other weights.
        """
        folder = Path(folder).expanduser()
        found = [path.parent for path in (folder / "index.json", *sorted(folder.glob("**/images/index.json")))]
        indexes = [EmbeddingIndex(path) for path in dict.fromkeys(found) if (path / "index.json").is_file()]
        if not indexes:
            raise FileNotFoundError(f"{folder} holds no index: make one with retrieve.json, in the run's folder.")
        own = {weights_digest(self.clip, str(amp), "embedding") for amp in (False, True)}
        for index in indexes:
            if index.model in own:
                return index
        raise ValueError(
            f"{folder}: its embeddings are not of {self.name}. Make an index with retrieve.json and this run."
        )

    def faithfulness(self, heatmaps: Heatmaps, prompt: int = 0) -> Faithfulness:
        """Does the score fall when the hottest tenth of the picture goes? See `faithfulness`."""
        classifier = self._classifier(heatmaps.prompts)
        with self._lock:
            image, heat = self._batch(heatmaps.study)[0], heatmaps.maps[prompt]
            return faithfulness(classifier, image, heat, prompt, score=heatmaps.scores[prompt].logit)

    def picture(self, study: Study) -> NDArray[Any]:
        """The image from 0 to 1, (*spatial) or (rows, columns, 3), in display order."""
        encoder = self.clip.image_encoder
        return unit_image(study.image, mean=encoder.mean, std=encoder.std, channel=self.channel)

    def scanner(self, maps: MetaTensor) -> MetaTensor:
        """Maps (F, x, y[, z]) on the grid and with the affine that the file has; see `scanner_maps`."""
        return scanner_maps(maps, self.prepare, key=self.image_key)

    def _file(self, path: Path) -> Path:
        """A folder that holds one file is that file to a model of single images: so archives hand radiographs out."""
        files = list(path.iterdir()) if path.is_dir() and not self.volumes else []
        return files[0] if len(files) == 1 else path

    def _batch(self, study: Study) -> Tensor:
        """The image as a batch of one on the network's device."""
        return self._batches.get(study.key, lambda: study.image.as_tensor()[None].to(self.device))

    @contextmanager
    def _network(self, study: Study) -> Iterator[Tensor]:
        """The network to oneself, and the image as a batch whose tokens are kept from one question to the next."""
        batch = self._batch(study)
        kept = self._tokens.get((study.key, batch.data_ptr()), dict)
        with self._lock, remembering_tokens(batch, kept):
            yield batch

    def _prepared(self, path: Path) -> MetaTensor:
        try:
            image: MetaTensor = self.prepare({self.image_key: str(path)})[self.image_key]
        except Exception as error:
            cause = bad_input_cause(error)
            raise (cause or error) from error
        return image

    def _method(self, method: str | None, cls: str) -> str:
        method = method or self.methods[0]
        if method not in self.methods:
            raise ValueError(f"unknown method {method!r}: use one of {', '.join(self.methods)}.")
        if cls not in CLS_OPTIONS:
            raise ValueError(f"cls={cls!r}: use one of {', '.join(CLS_OPTIONS)}.")
        if cls != "default" and method != PREFIX_METHOD:
            raise ValueError(
                f"cls={cls!r} is a choice of {PREFIX_METHOD!r} alone: leave it at 'default' for {method!r}."
            )
        return method

    def _classifier(self, prompts: Sequence[str] | None) -> ZeroShotClassifier:
        if prompts is None:
            return self._classifiers.get(None, lambda: self._asking(self.known))
        asked = tuple(prompts)
        return self._classifiers.get(asked, lambda: self._asking(asked_findings(asked, self.known)))

    def _asking(self, findings: Sequence[Finding]) -> ZeroShotClassifier:
        """A classifier of these findings; a sentence, which has no negation, is compared with a normal study."""
        denies = all(finding.negative for finding in findings)
        rule = self.rule if denies or self.rule not in _PAIR_RULES else "positive_minus_normal"
        return ZeroShotClassifier(self.clip, findings, self.tokenizer, rule=rule).eval()


def _load(parser: ConfigParser, name: str) -> None:
    """Read the weights into the network, with ``weights_only``."""
    try:
        parser.get_parsed_content("trained")
    except RuntimeError as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(
            f"the weights of {name} cannot be read into its network ({why}). Give the model.pt that its training wrote."
        ) from error


def _scores(classifier: ZeroShotClassifier, logits: Tensor) -> list[Score]:
    pair = classifier.rule in _PAIR_RULES
    return [
        Score(name, float(logit), float(logit.sigmoid()) if pair else None)
        for name, logit in zip(classifier.findings, logits, strict=True)
    ]


def _file_key(path: Path) -> str:
    """What changes when a file, or one of a folder's files, does."""
    files: list[Path] = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    facts: list[Hashable] = [str(path.absolute())]
    facts += [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
