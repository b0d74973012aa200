"""A draft out of quotations: sentences of other patients' reports that are nearest to an image, with their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monai_medclip.index.embedding_index import EmbeddingIndex, Record
from monai_medclip.index.similar import patient_of
from monai_medclip.notice import RESEARCH_USE
from monai_medclip.transforms import sentence_spans, split_sections

__all__ = ["DraftReport", "DraftSentence", "SentenceSource", "draft_report", "sentence_records"]

READ_FROM_IMAGES = ("findings", "impression", "text")  # not what was known or asked before the image was made
TIE = 1e-5  # cosines of the same sentence differ by rounding only
QUOTED = (
    "NOT A REPORT: sentences quoted from other patients' reports because they lie near this image. Nobody has read the "
    f"image; they may be wrong and contradict one another. {RESEARCH_USE}."
)


class SentenceSource(NamedTuple):
    """Where a sentence was written."""

    study_id: str
    patient_id: str
    section: str  # such as "findings"


class DraftSentence(NamedTuple):
    """One quotation."""

    text: str  # as its nearest source has it, to the letter
    score: float  # cosine of image and sentence, -1 to 1
    sources: tuple[SentenceSource, ...]  # of every report that says the same words, nearest first; at least one
    variants: tuple[str, ...]  # sentences that nearly say the same, as near to the image, and are not listed themselves


class DraftReport(NamedTuple):
    """Quotations, nearest first."""

    sentences: tuple[DraftSentence, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        listed = [
            {**one._asdict(), "sources": [source._asdict() for source in one.sources], "variants": list(one.variants)}
            for one in self.sentences
        ]
        return {"notice": QUOTED, "sentences": listed}

    def __str__(self) -> str:
        """Plain text, the warning on top."""
        lines = [f"{one.score:6.3f}  {one.text}  [{_cited(one.sources)}]" for one in self.sentences]
        return "\n".join([QUOTED, "", *(lines or ["No sentence is near enough."])])


def draft_report(
    image_embedding: Tensor,
    sentences: EmbeddingIndex,
    *,
    n: int = 8,
    min_score: float = 0.0,
    same_above: float = 0.95,
    exclude_patients: Collection[str] = (),
) -> DraftReport:
    """The nearest report sentences to an image, in their authors' words.

    Sentences of the same words (apart from case, spaces and the full stop) are one, with all their sources. Nothing is
    written anew and nothing is left out because it contradicts: the sentences are evidence to be read, not findings.

    Args:
        image_embedding: (E,), by the index's model; brought to unit length.
        sentences: an index of what `sentence_records` returns.
        n: how many sentences at most.
        min_score: cosine below which a sentence is not quoted, -1 to 1. What is near differs between models: take it
            from the cosines of matched pairs of a validation split.
        same_above: sentences whose embeddings have a greater cosine than this are listed once, -1 to 1.
        exclude_patients: whose reports are not quoted: the image's own patient.

    Raises:
        ValueError: an embedding of another shape, that is not finite or zero; an empty index; n < 1; a bound outside
            -1 to 1; entries without text, or without patient where one is to be left out.
    """
    if image_embedding.ndim != 1:
        raise ValueError(f"image_embedding has shape {tuple(image_embedding.shape)}: give one image's, (E,).")
    if not len(sentences):
        raise ValueError(f"{sentences.folder} is empty: add what sentence_records returns, with its embeddings.")
    if n < 1:
        raise ValueError(f"n={n}: ask for at least one sentence.")
    if not (-1 <= min_score <= 1 and -1 <= same_above <= 1):
        raise ValueError(f"min_score={min_score}, same_above={same_above}: cosines lie between -1 and 1.")
    if isinstance(exclude_patients, str):
        raise ValueError(f"exclude_patients={exclude_patients!r}: give a list of patient ids.")
    chosen = _Chosen(sentences, n, same_above)
    for score, row, record in _ranked(sentences, image_embedding[None]):
        if score < max(min_score, chosen.least - TIE):
            break
        if not exclude_patients or patient_of(record) not in exclude_patients:
            chosen.take(score, row, record)
    return DraftReport(tuple(chosen.sentences.values()))


def sentence_records(
    items: Iterable[Mapping[str, Any]], sections: Collection[str] = READ_FROM_IMAGES
) -> list[dict[str, str]]:
    """Cut reports into sentences, each with its source, for an index: embed ``record["text"]``, add both.

    The images of a study share its report, which is cut once. A sentence without a letter ("1.") is left out.

    Args:
        items: with ``text`` or ``sections`` (name -> text), ``patient_id``, and ``study_id`` or ``id``. Without
            ``sections`` the text is cut at its headings; what has no heading is called ``text``.
        sections: whose sentences are wanted.

    Returns:
        records of ``id``, ``text`` (to the letter), ``study_id``, ``patient_id``, ``section``.

    Raises:
        ValueError: an item without patient or without id.
    """
    if isinstance(sections, str):
        raise ValueError(f"sections={sections!r}: give a list of section names.")
    records: list[dict[str, str]] = []
    known: set[tuple[str, str, str]] = set()
    numbers: Counter[tuple[str, str]] = Counter()
    for item in items:
        study, patient = str(item.get("study_id") or item.get("id") or ""), str(item.get("patient_id") or "")
        if not study or not patient:
            raise ValueError(f"item {item.get('id')!r} has no study_id or no patient_id: a sentence needs its source.")
        for section, text in _sentences(item, sections):
            if (study, section, text) in known:
                continue
            known.add((study, section, text))
            numbers[study, section] += 1
            identity = f"{study}/{section}/{numbers[study, section]}"
            records.append({"id": identity, "text": text, "study_id": study, "patient_id": patient, "section": section})
    return records


class _Chosen:
    """The sentences that were taken, by their words."""

    def __init__(self, index: EmbeddingIndex, n: int, same_above: float) -> None:
        self.sentences: dict[str, DraftSentence] = {}
        self.least = -torch.inf  # once n were taken: the last one's score
        self._index, self._n, self._same_above = index, n, same_above
        self._variant_of: dict[str, str] = {}
        self._rows: list[int] = []

    def take(self, score: float, row: int, record: Record) -> None:
        """Take a sentence, or count it to one that was taken."""
        if not record.get("text"):
            raise ValueError(f"entry {record['id']!r} has no text: fill the index with what sentence_records returns.")
        words = _words(record["text"])
        if words in self._variant_of:
            return
        if words in self.sentences:
            known = self.sentences[words]
            self.sentences[words] = known._replace(sources=(*known.sources, _source(record)))
        elif (alike := self._alike(row)) is not None:
            known = self.sentences[alike]
            self.sentences[alike] = known._replace(variants=(*known.variants, record["text"]))
            self._variant_of[words] = alike
        elif len(self.sentences) < self._n:
            self.sentences[words] = DraftSentence(record["text"], score, (_source(record),), ())
            self._rows.append(row)
            self.least = score if len(self.sentences) == self._n else self.least

    def _alike(self, row: int) -> str | None:
        """The taken sentence that nearly says the same as a row."""
        if not self._rows:
            return None
        *taken, asked = self._index.vectors([*self._rows, row])
        cosines = torch.stack(taken) @ asked
        return list(self.sentences)[int(cosines.argmax())] if cosines.max() > self._same_above else None


def _ranked(index: EmbeddingIndex, query: Tensor) -> Iterator[tuple[float, int, Record]]:
    """All entries, nearest first, as far as somebody asks."""
    seen: set[int] = set()
    wanted = 64
    while len(seen) < len(index):
        found = index.search(query, wanted)
        new = [(score, row) for score, row in zip(found.scores[0].tolist(), found.rows[0].tolist()) if row not in seen]
        for (score, row), record in zip(new, index.records([row for _, row in new]), strict=True):
            yield score, row, record
        seen.update(row for _, row in new)
        wanted *= 4


def _sentences(item: Mapping[str, Any], sections: Collection[str]) -> Iterator[tuple[str, str]]:
    """Section and sentence of a report."""
    report = item.get("sections") or {name: part.text for name, part in split_sections(item.get("text") or "").items()}
    for name, text in report.items():
        section = name.split()[0]  # of several sections of a name, "findings 2" is the second
        if section in sections:
            sentences = (text[start:end] for start, end in sentence_spans(text))
            yield from ((section, one) for one in sentences if any(letter.isalpha() for letter in one))


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(" .")


def _source(record: Record) -> SentenceSource:
    return SentenceSource(*(str(record.get(name, "")) for name in SentenceSource._fields))


def _cited(sources: tuple[SentenceSource, ...]) -> str:
    studies = list(dict.fromkeys(source.study_id for source in sources))
    return f"study {studies[0]}" if len(studies) == 1 else f"{len(studies)} studies, such as {studies[0]}"
