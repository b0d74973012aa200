"""The report: its sections, its cleaning, and which reports are the same; never losing the original characters."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_medclip.transforms.mapped_text import MappedText
from monai_medclip.transforms.rejects import BadInputError, item_name
from monai_medclip.transforms.stop_words import NLTK_STOP_WORDS

SECTION_HEADINGS = {
    "indication": ("clinical indication", "indication", "clinical history", "history", "reason for exam(?:ination)?"),
    "comparison": ("comparison", "comparisons", "prior studies"),
    "technique": ("technique", "procedure", "examination", "exam"),
    "findings": ("findings", "finding"),
    "impression": ("impression", "impressions", "conclusion", "opinion"),
}
_HEADING = re.compile(
    r"(?:^|(?<=[.\n])[^\S\n]*)[^\S\n]*(?:"
    + "|".join(f"(?P<{name}>{'|'.join(words)})" for name, words in SECTION_HEADINGS.items())
    + r")[^\S\n]*:",
    re.IGNORECASE | re.MULTILINE,
)
_DEIDENTIFIED = re.compile(r"\[\*\*.*?\*\*\]|_{2,}|\b[xX]{2,}\b(?:-(?=\w))?")  # i2b2 and MIMIC, MIMIC-CXR, IU X-ray
_SPACE = re.compile(r"\s+")
_SPACE_BEFORE_STOP = re.compile(r"\s+(?=[.,;:!?)])")
_REPEATED_STOP = re.compile(r"(?<=[.,;:])\s*[.,;:]+(?=\s|$)")


class Section(NamedTuple):
    """One section of a report."""

    text: str  # without its heading and outer white space; never empty
    start: int  # first character in the report
    end: int  # one past the last


def split_sections(text: str) -> dict[str, Section]:
    """Split a report at its headings (INDICATION:, COMPARISON:, TECHNIQUE:, FINDINGS:, IMPRESSION:, and synonyms).

    A heading stands at the beginning of a line or sentence and ends in a colon.

    Args:
        text: the report.

    Returns:
        sections in the order of the report; what stands before the first heading, or a report without headings, is
        called "text"; the second section of a name is "findings 2". Empty sections are left out.
    """
    matches = list(_HEADING.finditer(text))
    names = ["text", *(match.lastgroup or "text" for match in matches)]
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(text)]
    sections: dict[str, Section] = {}
    for name, start, end in zip(names, starts, ends):
        body = text[start:end]
        if not body.strip():
            continue
        start += len(body) - len(body.lstrip())
        number = sum(known.split()[0] == name for known in sections) + 1
        title = name if number == 1 else f"{name} {number}"
        sections[title] = Section(body.strip(), start, start + len(body.strip()))
    return sections


def clean_default(text: MappedText) -> MappedText:
    """Remove de-identification tokens (XXXX, ___, [** **]) and needless white space; every word stays, also "no"."""
    text = text.substituted(_DEIDENTIFIED, "").substituted(_SPACE, " ")
    text = text.substituted(_SPACE_BEFORE_STOP, "").substituted(_REPEATED_STOP, "")
    return MappedText(text.text, text.offsets).stripped(" ,;:")


def lower_case(text: MappedText) -> MappedText:
    """Lower case, character by character, so that none moves."""
    return MappedText("".join(c.lower() if len(c.lower()) == 1 else c for c in text.text), text.offsets)


def clean_as_published(text: MappedText) -> MappedText:
    """The published cleaning: it removes no, not and nor, so that a negated finding reads as present.

    Lower case; then `x`, `xxxx`, every character but letters and digits, `year old` and NLTK's English stop words go.
    Kept for comparison only.
    """
    text = lower_case(text).substituted(re.compile(r"[^a-z0-9]+"), " ")
    text = text.substituted(re.compile(r"\b(?:x+|years? old)\b"), "")
    words = re.compile(r"\b(?:" + "|".join(sorted(NLTK_STOP_WORDS)) + r")\b")
    return text.substituted(words, "").substituted(_SPACE, " ").stripped()


_CLEANING: dict[str, Callable[[MappedText], MappedText]] = {
    "default": clean_default,
    "as_published": clean_as_published,
}


class SelectSectionsd(MapTransform):
    """Keep some sections of a report, in the order asked for. A report without any heading is kept whole."""

    def __init__(
        self,
        keys: KeysCollection = "text",
        sections: Sequence[str] = ("findings", "impression"),
        *,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the sections.

        Args:
            keys: report texts.
            sections: names as `split_sections` gives them.
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a report that has headings, but none of these sections with text in it.
        """
        super().__init__(keys, allow_missing_keys)
        unknown = set(sections) - {*SECTION_HEADINGS, "text"}
        if unknown:
            raise ValueError(f"sections {sorted(unknown)} are unknown; choose from {[*SECTION_HEADINGS, 'text']}.")
        self.sections = tuple(sections)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its shorter report."""
        item = dict(data)
        for key in self.key_iterator(item):
            report = MappedText.from_item(item, key)
            found = split_sections(report.text)
            if set(found) <= {"text"}:
                continue
            kept = [s for name in self.sections for title, s in found.items() if title.split()[0] == name]
            if not kept:
                reason = f"the report has no text under {' or '.join(self.sections)} (it has {', '.join(found)})"
                raise BadInputError(item_name(item), reason, "Ask for other sections, or leave the study out.")
            MappedText.concatenate([report.cut(s.start, s.end) for s in kept], " ").into_item(item, key)
        return item


class CleanReportd(MapTransform):
    """Clean report texts; items gain "text_offsets" (each character's place in the original) and "text_original"."""

    def __init__(
        self,
        keys: KeysCollection = "text",
        cleaning: str = "default",
        *,
        case: str = "keep",
        allow_missing_keys: bool = False,
    ) -> None:
        """Set the cleaning.

        Args:
            keys: report texts.
            cleaning: "default" keeps every word; "as_published" repeats a paper's, which drops negations.
            case: "keep" or "lower".
            allow_missing_keys: do not raise when a key is missing.

        Raises:
            BadInputError: when called with a report that is empty, or is so after cleaning.
        """
        super().__init__(keys, allow_missing_keys)
        if cleaning not in _CLEANING or case not in ("keep", "lower"):
            raise ValueError(
                f"cleaning is {cleaning!r} (choose from {list(_CLEANING)}), case {case!r} (keep or lower)."
            )
        self.cleaning, self.case = cleaning, case

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its report cleaned."""
        item = dict(data)
        for key in self.key_iterator(item):
            report = MappedText.from_item(item, key)
            clean = _CLEANING[self.cleaning](report)
            clean = lower_case(clean) if self.case == "lower" else clean
            if not re.search(r"\w", clean.text):
                reason = "the report is empty" + (" after cleaning" if report.text.strip() else "")
                raise BadInputError(item_name(item), reason, "Give it a text, or leave it out.")
            clean.into_item(item, key)
        return item


def identity_hash(*parts: str) -> int:
    """A number from 0 to 2**63 - 1 that is the same for the same strings in every process and on every machine."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PositivesFromTextd(MapTransform):
    """Say which items count as the same: equal `positives` () int64 are positives of each other in the loss."""

    def __init__(self, keys: KeysCollection = "text", *, by: str = "text", allow_missing_keys: bool = False) -> None:
        """Set the rule.

        Args:
            keys: the report text; goes before random sentence sampling, so that equal reports stay equal.
            by: "text" (equal but for case and white space), "study" (`study_id`) or "item" (`id`: nothing is shared).
            allow_missing_keys: do not raise when a key is missing.
        """
        super().__init__(keys, allow_missing_keys)
        if by not in ("text", "study", "item") or len(self.keys) != 1:
            raise ValueError(f"by is {by!r} (choose text, study or item) and keys {self.keys} (give one).")
        self.by = by

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `positives`."""
        item = dict(data)
        for key in self.key_iterator(item):
            item["positives"] = torch.tensor(identity_hash(self.by, self._identity(item, key)), dtype=torch.int64)
        return item

    def _identity(self, item: Mapping[Hashable, Any], key: Hashable) -> str:
        if self.by == "text":
            return " ".join(str(item[key]).casefold().split())
        name = {"study": "study_id", "item": "id"}[self.by]
        if not item.get(name):
            raise BadInputError(item_name(item), f"the item has no {name}", f"Fill in {name}, or use by='text'.")
        return str(item[name])
