"""Explaining cases: every method's map of every prompt, as pictures, pages, raw maps and one table of figures."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform
from tqdm import tqdm

from ..explainers import Explainer, ReportGrounding, TextExplainer
from ..inferers import HeatmapInferer
from ..outputs import WordWeights
from ..transforms import sentence_spans
from ..writers import (
    Heat,
    OverlayStyle,
    TintedReport,
    explanation_page,
    heats_of,
    overlay_panel,
    report_figure,
    save_figure,
    unit_image,
    write_scanner_maps,
    write_whole,
)
from .explained_case import Case, slug, truths_of, write_figures, write_pages
from .explanation_rows import ExplanationRows, rows_of
from .files import write_csv, write_json

__all__ = ["CaseExplainer", "explain_cases"]

logger = logging.getLogger(__name__)


class CaseExplainer:
    """Explains prepared cases one by one and writes what it finds.

    For each case a folder with, per method, a figure for every prompt, a page with a prompt switcher (``METHOD.html``)
    and the raw maps on the scanner's grid (NIfTI, NPY); ``grid.png`` with all methods and prompts; volumes get
    orthogonal slices, a montage and a maximum intensity projection. If the case has a report, ``report_METHOD.png``
    shows which of its words carry the score of image and report, and, of a 2D image, ``sentences.html`` where each
    sentence lies.

    Args:
        network: the classifier.
        methods: by name; a method may bring a network of its own.
        transform: the pipeline that made the images, for the way back to the scanner's grid.
        output_dir: folder of the explanations.
        text_methods: by name, for cases with a report; the network must be a zero-shot classifier then.
        label_names: of the items' ``label``, to say which findings are present.
        channel: the one to show of images whose channels are neither alike nor colors.
        style: how maps are tinted.
        device: where the network is.
    """

    def __init__(
        self,
        network: Any,
        methods: Mapping[str, HeatmapInferer],
        *,
        transform: InvertibleTransform,
        output_dir: str | Path,
        text_methods: Mapping[str, TextExplainer] | None = None,
        label_names: Sequence[str] = (),
        channel: int | None = None,
        style: OverlayStyle | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Check every method against the network before any work is done."""
        self.network, self.methods, self.transform = network, dict(methods), transform
        self.output_dir = Path(output_dir)
        self.text_methods = dict(text_methods or {})
        self.label_names, self.channel = tuple(label_names), channel
        self.style = style or OverlayStyle()
        self.device = device
        if not self.methods:
            raise ValueError("no method to explain with: give at least one, such as {'Grad-ECLIP': ...}.")
        if not network.findings:
            raise ValueError("nothing is asked of the image: give prompts, such as --prompts \"['pleural effusion']\".")
        for method in self.methods.values():
            method.explainer.check(network if method.network is None else method.network)

    def __call__(self, item: Mapping[Any, Any]) -> ExplanationRows:
        """Explain one case.

        Args:
            item: prepared: ``image`` (C, *spatial) as a MetaTensor, ``id``, and, if known, ``label``, ``truth``
                (F, *spatial), ``text`` with ``input_ids`` and ``token_spans``.

        Returns:
            One row per method and prompt, and of a volume with a ground truth one per nodule too; see `rows_of`.
        """
        (self._folder(item) / "case.json").unlink(missing_ok=True)  # until all is written, the case is not whole
        case = self._explained(item)
        write_figures(case, self.style)
        write_pages(case, self.style)
        if "input_ids" in item and self.text_methods:
            self._write_report(case)
        rows = rows_of(case)
        # Last: the case is whole.
        write_json(case.folder / "case.json", {"asked": self._asked(item), "rows": rows.maps, "nodules": rows.nodules})
        return rows

    def finished(self, item: Mapping[Any, Any]) -> ExplanationRows | None:
        """The rows of a case explained before: same weights, methods, prompts, rule and report; None otherwise."""
        path = self._folder(item) / "case.json"
        if not path.is_file():
            return None
        before = json.loads(path.read_text(encoding="utf-8"))
        same = before["asked"] == self._asked(item) and "nodules" in before  # or an older version wrote it
        return ExplanationRows(before["rows"], before["nodules"]) if same else None

    def _folder(self, item: Mapping[Any, Any]) -> Path:
        identity = str(item["id"])
        name = slug(identity)
        if name != identity:  # two ids may look alike once they are file names
            name += f"-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        return self.output_dir / name

    def _asked(self, item: Mapping[Any, Any]) -> dict[str, Any]:
        return {
            "id": str(item["id"]),
            "weights": self._weights,
            "methods": {name: _settings(method.explainer) for name, method in self.methods.items()},
            "text_methods": {name: _settings(method) for name, method in self.text_methods.items()},
            "prompts": [str(prompt) for prompt in getattr(self.network, "prompts", self.network.findings)],
            "rule": getattr(self.network, "rule", None),
            "report": str(item.get("text_original", item.get("text", ""))),
        }

    @cached_property
    def _weights(self) -> str:
        """A digest of all networks' weights; what a zero-shot classifier computes of its prompts is none of them."""
        digest = hashlib.sha256()
        for network in (self.network, *(method.network for method in self.methods.values())):
            for tensor in () if network is None else getattr(network, "clip", network).state_dict().values():
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def _explained(self, item: Mapping[Any, Any]) -> Case:
        image: MetaTensor = item["image"]
        folder = self._folder(item)
        names = list(self.network.findings)
        heats: dict[str, list[Heat]] = {}
        for name, method in self.methods.items():
            heatmap, scores = method.explain(image.as_tensor()[None].to(self.device), self.network)
            maps = MetaTensor(heatmap[0].cpu()).copy_meta_from(image)
            heats[name] = heats_of(maps, scores[0], names, method=name)
            write_scanner_maps(folder / "maps", maps, self.transform, names, method=name, stem=slug(name))
        encoder = self.network.image_encoder
        picture = unit_image(image, mean=encoder.mean, std=encoder.std, channel=self.channel)
        return Case(folder, item, picture, heats, truths_of(item, names), self._presence(item, names))

    def _presence(self, item: Mapping[Any, Any], names: Sequence[str]) -> list[bool] | None:
        """Whether each prompt's finding is present; None unless the labels say it of all."""
        if not set(names) <= set(self.label_names) or "label" not in item:
            return None
        values = [float(item["label"][self.label_names.index(name)]) for name in names]
        return None if any(np.isnan(values)) else [value > 0 for value in values]

    def _write_report(self, case: Case) -> None:
        item = case.item
        text = str(item.get("text_original", item["text"]))
        image = item["image"].as_tensor()[None].to(self.device)
        for name, explain in self.text_methods.items():
            found = explain(self.network.clip, image, text, item["input_ids"], item["token_spans"])
            save_figure(report_figure(_tinted(text, found, name)), case.folder / f"report_{slug(name)}.png")
        if case.flat:
            self._write_sentences(case, text, image)

    def _write_sentences(self, case: Case, text: str, image: torch.Tensor) -> None:
        name, method = next(iter(self.methods.items()))
        network = self.network if method.network is None else method.network
        spans = [span for span in sentence_spans(text) if text[slice(*span)].strip()]
        sentences = [text[slice(*span)] for span in spans]
        ground = ReportGrounding(method.explainer, network.tokenizer)(network.clip, image, sentences, spans)
        heats = heats_of(ground.heatmap[0], ground.scores[0], ground.sentences, method=name)
        panels = [overlay_panel(case.picture, heat, style=self.style) for heat in heats]
        page = explanation_page(panels, title=f"{case.item['id']}: where each sentence lies ({name})")
        write_whole(case.folder / "sentences.html", page.encode())


def explain_cases(
    explain: CaseExplainer, cases: Iterable[Mapping[Any, Any]], *, resume: bool = False, progress: bool = True
) -> Path:
    """Explain prepared cases one after the other.

    Args:
        explain: what to do with each.
        cases: items, as a dataset gives them.
        resume: leave cases alone that a run before has finished with the same weights, methods and their settings,
            prompts, rule and report.
        progress: show a progress bar.

    Returns:
        ``explanations.csv``: one row per case, method and prompt. Beside it, where volumes have a ground truth,
        ``nodules.csv``: one per case, method, prompt and nodule.
    """
    rows = ExplanationRows([], [])
    kept = 0
    for case in tqdm(cases, desc="explaining", disable=not progress):
        before = explain.finished(case) if resume else None
        kept += before is not None
        found = explain(case) if before is None else before
        rows.maps.extend(found.maps)
        rows.nodules.extend(found.nodules)
    table = write_csv(explain.output_dir / "explanations.csv", rows.maps)
    (explain.output_dir / "nodules.csv").unlink(missing_ok=True)  # of a run before, on cases with masks
    if rows.nodules:
        write_csv(explain.output_dir / "nodules.csv", rows.nodules)
    logger.info("%d maps: figures in %s, pictures and raw maps in the cases' folders beside it", len(rows.maps), table)
    if kept:
        logger.info("%d cases were explained before and kept", kept)
    return table


def _tinted(text: str, found: WordWeights, method: str) -> TintedReport:
    title = f"{method}: score {float(found.score):.3g}" + (", no word stands out" if found.flat else "")
    spans = [(int(start), int(end)) for start, end in found.spans.tolist()]
    return TintedReport(text, spans, found.weights.tolist(), title=title)


def _settings(explainer: Any) -> list[Any]:
    """A method's class, its numbers and names, and the same of the methods that it is made of."""
    found: dict[str, Any] = {}
    for name, value in vars(explainer).items():
        if isinstance(value, Explainer):
            found[name] = _settings(value)
        elif isinstance(value, bool | int | float | str):
            found[name] = value
    return [type(explainer).__name__, found]
