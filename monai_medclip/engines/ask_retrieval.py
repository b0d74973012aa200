"""Asked for the other side: which report belongs to an image, which images to a report, and which cases are alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..audits import AuditResult
from ..data import subgroup_values
from ..index import ApproximateIndex, DraftReport, EmbeddingIndex, SimilarCase, draft_report, similar_cases
from ..metrics import BreakdownRow, RetrievalReport, retrieval, retrieval_breakdown, retrieval_ranks
from ..writers import (
    IMAGE_QUERY,
    TEXT_QUERY,
    Picture,
    Section,
    Table,
    WrongAnswer,
    breakdown_figure,
    figure_text,
    recall_figure,
    similar_cases_figure,
    unit_image,
    wrong_answers_section,
)
from .answer_page import AnswerPage, audit_sections, flat_text
from .auditing import Auditor, log_audits
from .embedding import Embeddings
from .embedding_store import EmbeddingStore
from .files import write_csv, write_json
from .gallery import Gallery, build_gallery

__all__ = ["RetrievalAnswer", "ask_retrieval"]

logger = logging.getLogger(__name__)

QUERIES = 1024  # scored at a time against all
PROTOCOLS = ("strict", "tie_aware", "deduplicated")
DIRECTIONS = {"image_to_text": "image to report", "text_to_image": "report to image"}


class RetrievalAnswer(NamedTuple):
    """What was found, and where it was written."""

    report: RetrievalReport
    breakdown: tuple[BreakdownRow, ...]
    similar: dict[str, list[SimilarCase]]  # by the test item's id
    drafts: dict[str, DraftReport]
    audits: dict[str, AuditResult]
    gallery: Gallery
    metrics_file: Path
    predictions_file: Path
    report_file: Path


def ask_retrieval(
    store: EmbeddingStore,
    *,
    output_dir: str,
    index_dir: str,
    gallery: Sequence[str] = ("train",),
    ks: Sequence[int] = (1, 5, 10),
    cases: int = 4,
    similar: int = 4,
    wrong: int = 3,
    approximate: str | None = None,
    channel: int | None = None,
    auditor: Auditor | None = None,
    audits: Sequence[str] = (),
    bootstrap: int = 1000,
) -> RetrievalAnswer:
    """Retrieval among the test items, and for some of them similar cases and a draft of quoted sentences.

    Args:
        store: embeddings of ``test`` and of the gallery's splits.
        output_dir: folder of ``metrics.json``, ``predictions.csv`` (ranks per item), ``report.html``, ``pictures``.
        index_dir: folder of the searchable gallery.
        gallery: splits that similar cases and sentences come from.
        ks: cut-offs for recall.
        cases: test items that similar cases and drafts are shown of.
        similar: similar cases of each.
        wrong: nearest wrong answers shown of each direction.
        approximate: ``"hnsw"`` or ``"ivfpq"`` to search by FAISS and report its recall; None searches exactly.
        channel: the one shown of images whose channels are neither alike nor colors.
        auditor: what the audits look at; None leaves them out.
        audits: names of audits.
        bootstrap: resamples of patients for the 95 % intervals.

    Raises:
        ValueError: a store of pooled features.
    """
    store.require_shared_space("retrieval")
    test, items = store["test"], store.kept("test")
    patients = np.array(test.patients)
    report = retrieval(test.image, test.text, test.positives, ks=ks, patients=patients, bootstrap=bootstrap)
    ranks = retrieval_ranks(test.image, test.text, test.positives)
    columns = {name: column.tolist() for name, column in ranks.columns().items()}
    covariates: dict[str, Sequence[Any]] = {**subgroup_values(items)}
    if any(item.get("labels") for item in items):
        covariates["finding"] = [list(item.get("labels", ())) for item in items]
    rows = retrieval_breakdown(ranks, covariates, ks=ks, patients=patients, bootstrap=bootstrap)
    searchable = build_gallery(store, index_dir, gallery)
    shown = list(range(min(cases, len(items))))
    alike, recall = _similar(searchable, test, shown, similar, approximate)
    drafts = {
        test.ids[n]: draft_report(test.image[n], searchable.sentences, exclude_patients={test.patients[n]})
        for n in shown
        if len(searchable.sentences)  # reports of indications alone hold none
    }
    found = auditor(audits) if auditor else {}
    folder = Path(output_dir)
    page = AnswerPage(folder, "Retrieval: images and reports that belong together")
    page.add([_figures(report), *_breakdown(rows)], "retrieval")
    mistakes = [
        one for kind in (IMAGE_QUERY, TEXT_QUERY) for one in _wrong(store, test, items, columns, kind, wrong, channel)
    ]
    if mistakes:
        page.add([wrong_answers_section(mistakes)], "wrong_answers")
    page.add(_case_sections(store, test, alike, drafts, channel), "similar_cases")
    page.add(audit_sections(found), "audit")
    metrics = {
        "items": {split: len(one) for split, one in store.items.items()},
        "retrieval": report.as_dict(),
        "breakdown": [row.as_dict() for row in rows],
        "similar_cases": {name: [one._asdict() for one in cases] for name, cases in alike.items()},
        "drafts": {name: one.as_dict() for name, one in drafts.items()},
        "approximate": {"kind": approximate, "recall": recall} if approximate else {},
        "audits": {name: one.as_dict() for name, one in found.items()},
    }
    predictions = [
        {"id": item, "patient_id": patient, **{name: column[n] for name, column in columns.items()}}
        for n, (item, patient) in enumerate(zip(test.ids, test.patients, strict=True))
    ]
    summary = _summary(report)
    answer = RetrievalAnswer(
        report,
        rows,
        alike,
        drafts,
        found,
        searchable,
        write_json(folder / "metrics.json", metrics),
        write_csv(folder / "predictions.csv", predictions),
        page.write(summary),
    )
    logger.info("%s\n  written: %s", "\n  ".join(summary), answer.report_file)
    log_audits(found)
    return answer


def _similar(
    gallery: Gallery, test: Embeddings, shown: Sequence[int], similar: int, approximate: str | None
) -> tuple[dict[str, list[SimilarCase]], float | None]:
    """Similar cases by test id, and the recall at 10 of the approximate index against the exact one."""
    index: Any = gallery.images
    recall = None
    if approximate:
        index = _approximate(gallery.images, approximate)
        recall = float(index.recall_at(min(10, len(index)), test.image))
    patients = [test.patients[n] for n in shown]
    found = similar_cases(index, test.image[list(shown)], similar, exclude_patients=patients)
    return {test.ids[n]: cases for n, cases in zip(shown, found, strict=True)}, recall


def _approximate(exact: EmbeddingIndex, kind: str) -> ApproximateIndex:
    """The one that lies beside the exact index, with what that has received since; made where none fits."""
    try:
        index = ApproximateIndex(exact, kind)
    except (FileNotFoundError, ValueError):
        return ApproximateIndex.build(exact, kind)
    index.update()
    return index


def _figures(report: RetrievalReport) -> Section:
    flat, rows = report.as_dict(), []
    for protocol in PROTOCOLS:
        for direction, which in DIRECTIONS.items():
            name = f"{protocol}_{direction}"
            cells = [flat_text(flat, f"{name}_recall@{k}") for k in report.ceiling]
            chances = [flat[f"{name}_chance@{k}"] for k in report.ceiling]
            ceilings = [flat[f"strict_ceiling@{k}"] if protocol == "strict" else 1.0 for k in report.ceiling]
            rank, mrr = (flat_text(flat, f"{name}_{figure}") for figure in ("median_rank", "mrr"))
            rows.append([f"{protocol.replace('_', '-')}, {which}", *cells, chances, ceilings, rank, mrr])
    ks = [f"recall@{k}" for k in report.ceiling]
    heads = ["protocol", *ks, f"chance ({', '.join(ks)})", "ceiling", "median rank", "MRR"]
    said = [
        "Strict: only the item's own pair is right. Tie-aware: any report of the same words is. De-duplicated: every "
        "report stands once. The ceiling is the best strict recall that repeated reports allow."
    ]
    picture = Picture(
        recall_figure(report),
        "Recall with 95 % intervals; chance and ceiling are marked.",
        "Bars of recall; the figures are in the table.",
    )
    caption = f"{report.items} test pairs with {report.unique_texts} different reports"
    return Section("Figures: retrieval", said, [Table(heads, rows, caption)], [picture])


def _breakdown(rows: Sequence[BreakdownRow]) -> list[Section]:
    if not rows:
        return []
    k = sorted(rows[0].text_to_image.recall)[len(rows[0].text_to_image.recall) // 2]
    cells = []
    for row in rows:
        flat = row.as_dict()
        both = [f"{direction}_{figure}@{k}" for direction in DIRECTIONS for figure in ("recall", "chance")]
        ranks = [flat[f"{direction}_median_rank"] for direction in DIRECTIONS]
        cells.append([f"{row.covariate}: {row.value}", row.items, *(flat_text(flat, name) for name in both), *ranks])
    heads = ["group", "items"]
    heads += [f"{said}: {figure}" for said in DIRECTIONS.values() for figure in (f"recall@{k}", "chance")]
    heads += [f"median rank, {said}" for said in DIRECTIONS.values()]
    picture = Picture(
        breakdown_figure(rows, k=k),
        f"Tie-aware recall@{k} by group.",
        "The figures are in the table.",
    )
    said = ["Groups whose reports are frequent have more right answers: read each recall beside its own chance."]
    return [Section("By view and finding", said, [Table(heads, cells, "Tie-aware retrieval by group")], [picture])]


def _wrong(
    store: EmbeddingStore,
    test: Embeddings,
    items: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[float]],
    kind: str,
    most: int,
    channel: int | None,
) -> list[WrongAnswer]:
    """The wrong answers that are nearest to their query: the most confident mistakes."""
    best, place, own = _best_wrong(*((test.image, test.text) if kind == IMAGE_QUERY else (test.text, test.image)), test)
    direction = "image_to_text" if kind == IMAGE_QUERY else "text_to_image"
    ranks = columns[f"tie_aware_{direction}_rank"]
    mistaken = torch.where(best > own, best, -torch.inf)
    # Equal reports make equal mistakes: each wording is shown once.
    chosen: dict[int, int] = {}
    for number in mistaken.argsort(descending=True, stable=True).tolist():
        if mistaken[number] > -torch.inf and len(chosen) < most:
            chosen.setdefault(int(test.positives[number]), number)
    found = []
    for number in chosen.values():
        other = int(place[number])
        found.append(
            WrongAnswer(
                kind,
                test.ids[number],
                _picture(store, items[number], channel),
                str(items[number].get("text", "")),
                float(ranks[number]),
                float(own[number]),
                test.ids[other],
                _picture(store, items[other], channel),
                str(items[other].get("text", "")),
                float(best[number]),
            )
        )
    return found


def _best_wrong(queries: Tensor, gallery: Tensor, test: Embeddings) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine of each query's nearest wrong answer, its number, and the best right answer's cosine: (N,) each."""
    parts = []
    for asked, words in zip(queries.split(QUERIES), test.positives.split(QUERIES), strict=True):
        scores, same = asked @ gallery.T, words[:, None] == test.positives  # (QUERIES, N)
        wrong = scores.masked_fill(same, -torch.inf).max(dim=1)
        parts.append((wrong.values, wrong.indices, scores.masked_fill(~same, -torch.inf).amax(dim=1)))
    best, place, own = (torch.cat(part) for part in zip(*parts, strict=True))
    return best, place, own


def _case_sections(
    store: EmbeddingStore,
    test: Embeddings,
    alike: Mapping[str, Sequence[SimilarCase]],
    drafts: Mapping[str, DraftReport],
    channel: int | None,
) -> list[Section]:
    by_id = {str(item["id"]): item for found in store.items.values() for item in found}
    sections = []
    for name, cases in alike.items():
        rows = [
            [str(one.rank), one.score, one.record["id"], ", ".join(one.record["labels"]), one.record["text"]]
            for one in cases
        ]
        tables = [Table(["rank", "cosine", "case", "labels", "report"], rows, "Similar cases of other patients")]
        said = [f"Its own report: {by_id[name].get('text', '')}"]
        quoted = [
            [
                one.text,
                one.score,
                ", ".join(dict.fromkeys(source.study_id for source in one.sources[:3])),
                len(one.sources),
            ]
            for one in drafts[name].sentences
        ]
        tables.append(Table(["sentence", "cosine", "from study", "studies"], quoted, "Draft of quoted sentences"))
        said.append(drafts[name].as_dict()["notice"])
        pictures = [
            (f"query {name}", _picture(store, by_id[name], channel)),
            *(
                (f"{one.rank}: {one.score:.3f}", _picture(store, by_id.get(one.record["id"], one.record), channel))
                for one in cases
            ),
        ]
        figure = similar_cases_figure(pictures)
        alt = f"The query {name} and {len(cases)} similar cases; their reports are in the table."
        sections.append(
            Section(
                f"Similar cases: {name}",
                said,
                tables,
                [Picture(figure, "The query, then the most similar cases.", alt)],
            )
        )
    return sections


def _picture(store: EmbeddingStore, item: Mapping[str, Any], channel: int | None) -> np.ndarray:
    """What the network sees of an item, 0 to 1; an empty square for precomputed features."""
    encoder = store.clip.image_encoder
    if not encoder.spatial_dims:
        return np.zeros((8, 8))
    prepared = next(iter(store.make_dataset(data=[item], progress=False).prepared()))
    image = torch.as_tensor(prepared[store.image_key]).as_subclass(Tensor)
    return unit_image(image, mean=encoder.mean, std=encoder.std, channel=channel)


def _summary(report: RetrievalReport) -> list[str]:
    flat, lines = report.as_dict(), []
    for direction, said in DIRECTIONS.items():
        parts = [
            f"recall@{k} {flat_text(flat, f'tie_aware_{direction}_recall@{k}')} "
            f"(chance {figure_text(flat[f'tie_aware_{direction}_chance@{k}'])})"
            for k in report.ceiling
        ]
        lines.append(
            f"From {said} among {report.items} test pairs, any report of the same words counting: {'; '.join(parts)}."
        )
    return lines
