"""What the readers of dermoscopy collections share: a scored lesion becomes an item, and what is left out is told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_medclip.data.derm_captions import criteria_caption
from monai_medclip.data.labels import as_findings, label_vector
from monai_medclip.data.manifest import text_key
from monai_medclip.data.rejected import Rejected, write_rejected

__all__ = ["SkinLesion", "finished_items", "lesion_item"]

logger = logging.getLogger(__name__)

# As labels, both would be 0 where nobody knows which one the lesion is; as rules they are NaN there.
_MALIGNANCY = {"malignant": "meta.malignant == 1", "benign": "meta.malignant == 0"}


class SkinLesion(NamedTuple):
    """One scored lesion."""

    id: str  # also stands for the patient: neither collection says which lesions share one
    image: Path
    kind: str  # "Dermoscopic image" or "Clinical photograph"
    split: str  # empty where the collection has none
    diagnosis: str
    group: str  # a coarser diagnosis
    malignant: bool | None  # None where the diagnosis does not tell
    criteria: dict[str, str]  # names and values of `CRITERIA`
    visible: bool  # whether the image shows them, so that the caption may tell them
    meta: dict[str, Any]  # what else is known


def lesion_item(lesion: SkinLesion, *, with_diagnosis: bool) -> dict[str, Any]:
    """The item of one lesion, without ``label``; ``labels`` are malignant or benign, the group, and the diagnosis.

    Raises:
        ValueError: a criterion's value that has no words.
    """
    named = lesion.diagnosis if with_diagnosis else None
    text = criteria_caption(named, lesion.criteria, kind=lesion.kind)
    text = text if lesion.visible else criteria_caption(named, {}, kind=lesion.kind)
    known = {} if lesion.malignant is None else {"malignant": int(lesion.malignant)}
    malignancy = ["malignant" if value else "benign" for value in known.values()]
    return {
        "image": str(lesion.image),
        "id": lesion.id,
        "study_id": lesion.id,
        "patient_id": lesion.id,
        "view": lesion.kind.lower(),
        "split": lesion.split,
        "labels": list(dict.fromkeys([*malignancy, lesion.group, lesion.diagnosis])),
        "text": text,
        "meta": {"diagnosis": lesion.diagnosis, "diagnosis_group": lesion.group, **known, **lesion.criteria}
        | lesion.meta,
        "positives": text_key(text),
    }


def finished_items(
    items: Sequence[dict[str, Any]],
    left_out: Sequence[Rejected],
    *,
    collection: str,
    findings: Sequence[str] | Mapping[str, str],
    rejected: str | Path | None,
) -> list[dict[str, Any]]:
    """Items with ``label``; what was left out is counted in the log, and listed in `rejected` if that is given.

    Args:
        items: of `lesion_item`.
        left_out: cases without an item; the reason's words before a colon are counted.
        collection: its name, for the log.
        findings: label names or rules, as in `label_vector`; ``malignant`` and ``benign`` are NaN where unknown.
        rejected: where to write `left_out` (`write_rejected`).

    Raises:
        ValueError: no item is left.
    """
    counts = Counter(one.reason.split(":")[0] for one in left_out)
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
    if rejected is not None:
        write_rejected(left_out, rejected)
    if not items:
        raise ValueError(f"{collection}: no case is left ({told}). Unpack its images beside its table.")
    asked = {name: _MALIGNANCY.get(rule, rule) for name, rule in as_findings(findings).items()}
    logger.info("%s: %d items kept; left out: %s", collection, len(items), told)
    return [{**item, "label": label_vector(item, asked)} for item in items]
