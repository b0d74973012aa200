"""Answers about a study as JSON: scores, a slice with its overlay, words with their tints, similar cases."""

from __future__ import annotations

from typing import Any

from monai_medclip.app.pictures import (
    cut,
    heat_ninths,
    legend_uri,
    peak_of,
    picture_uri,
    pixel_spacing_mm,
    place_in_words,
    tint_uri,
)
from monai_medclip.engines import BundleModel, Heatmaps, Study
from monai_medclip.engines.recent import Recent
from monai_medclip.index import SimilarCase
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.outputs import WordWeights
from monai_medclip.writers import TintedReport
from monai_medclip.writers.report_text import word_colors

__all__ = ["case", "facts", "findings", "heatmap", "picture", "report"]

Json = dict[str, Any]
Grounds = tuple[WordWeights, Heatmaps, list[tuple[int, int]]]

_REPORTS: Recent[Grounds] = Recent(8)  # so that another slice of a sentence's map costs a picture


def facts(model: BundleModel) -> Json:
    """What every answer says of itself."""
    return {"model": model.name, "model_version": model.version, "units": "logit", "intended_use": RESEARCH_USE}


def findings(model: BundleModel, study: Study) -> Json:
    """Scores of the model's findings, the most probable first."""
    scores = sorted(model.scores(study), key=lambda score: -score.logit)
    return {"scores": [score._asdict() for score in scores], **facts(model)}


def picture(model: BundleModel, study: Study, index: int | None = None) -> Json:
    """One slice as a picture; the middle one by default."""
    whole = model.picture(study)
    count = len(whole) if model.volumes else 1
    index = count // 2 if index is None else index
    return {
        "image": picture_uri(cut(whole, index, volume=model.volumes)),
        "slice": index,
        "slices": count,
        "spacing_mm": pixel_spacing_mm(study.image),
    }


def heatmap(model: BundleModel, maps: Heatmaps, *, threshold: float, index: int | None) -> Json:
    """The first map of an answer over its picture: one slice, by default that of the maximum."""
    return {
        "score": maps.scores[0]._asdict(),
        "method": maps.method,
        "prompt": maps.prompts[0],
        **_shown(model, maps, 0, threshold=threshold, index=index),
        "legend": legend_uri(),
        **facts(model),
    }


def report(model: BundleModel, study: Study, text: str, *, method: str | None, index: int | None) -> Json:
    """Words with weights and tints, and every sentence with its map."""

    def asked() -> Grounds:
        return model.words(study, text), *model.ground(study, text, method=method)

    words, maps, spans = _REPORTS.get((model.version, study.key, text, method), asked)
    return {
        "image": picture(model, study, index)["image"],
        "words": _tinted(text, words),
        "score": float(words.score),
        "signed": words.signed,
        "flat": words.flat,
        "sentences": [
            {"start": start, "end": end, "text": score.finding, "score": score.logit}
            | _shown(model, maps, number, threshold=0.0, index=index)
            for number, ((start, end), score) in enumerate(zip(spans, maps.scores, strict=True))
        ],
        "method": maps.method,
        "legend": legend_uri(),
        **facts(model),
    }


def case(found: SimilarCase) -> Json:
    """A similar case without its patient's id."""
    record = found.record
    return {"id": record["id"], "score": found.score} | {
        key: record[key] for key in ("text", "labels") if key in record
    }


def _shown(model: BundleModel, maps: Heatmaps, number: int, *, threshold: float, index: int | None) -> Json:
    """One slice of one map over its picture, and in words where it is hot there."""
    values = maps.maps[number].as_tensor().numpy()
    peak = peak_of(values)
    index = peak.slice if index is None else index
    heat = cut(values, index, volume=model.volumes)
    here = peak_of(heat)
    return {
        **picture(model, maps.study, index),
        "overlay": tint_uri(heat, full_scale=peak.value if peak.value > 0 else 1.0, threshold=threshold),
        "threshold": threshold,
        "maximum": peak.value,
        "maximum_slice": peak.slice,
        "here": {
            "maximum": here.value,
            "row": here.row,
            "column": here.column,
            "place": place_in_words(here.row, here.column, heat.shape) if here.value > 0 else None,
            "ninths": heat_ninths(heat),
        },
    }


def _tinted(text: str, words: WordWeights) -> list[Json]:
    """Words with the colors that our other reports give them."""
    report = TintedReport(text, [(int(a), int(b)) for a, b in words.spans.tolist()], words.weights.tolist()).checked()
    tints = zip(report.spans, report.weights, word_colors(report), strict=True)
    return [{"start": a, "end": b, "weight": weight, "color": color} for (a, b), weight, color in tints]
